"""torchvision's networks, for images and for pixels, beside the proxies of a search."""
