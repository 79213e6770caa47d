"""A loss per pixel: batches of images with their masks, and mean IoU."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evoloss.records import Budget
from evoloss.train import Samples, augmented
from evoloss.vision.masks import IGNORE


@dataclass(frozen=True)
class MaskedSamples(Samples):
    """Images uint8 [N, 3, H, W] and, in place of labels, masks uint8 [N, H, W], these on the device."""

    def batch(self, places: Tensor, budget: Budget, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images and masks of these places [B], flipped and shifted together; masks int64 [B, H, W]."""
        images, masks = self.images[places].to(self.labels.device), self.labels[places]
        together = augmented(torch.cat([images, masks.unsqueeze(1)], 1), budget, generator)
        return together[:, :-1], together[:, -1].long()


@torch.no_grad()
def mean_iou(model: nn.Module, data: MaskedSamples, num_classes: int, chunk: int) -> float:
    """Mean intersection over union of the classes, over the pixels of all images together.

        mIoU = mean over k of TP_k / (TP_k + FP_k + FN_k)

    (Everingham et al. 2010; "mean IU" of Long et al. 2015). Pixels of 255 count for nothing, and classes that are
    neither in the masks nor predicted are left out of the mean. `model(images)` gives embeddings, which are not used,
    and logits [B, K, H, W].
    """
    model.eval()
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=data.labels.device)
    for images, masks in zip(data.images.split(chunk), data.labels.split(chunk), strict=True):
        guess = model(images)[1].argmax(1)
        kept = masks != IGNORE
        places = masks[kept].long() * num_classes + guess[kept]
        confusion += torch.bincount(places, minlength=num_classes**2).view_as(confusion)
    return iou(confusion)


def iou(confusion: Tensor) -> float:
    """The mean IoU of counts [K, K] of pixels, by true class and prediction; NaN where there are none."""
    both = confusion.diagonal()
    either = confusion.sum(0) + confusion.sum(1) - both
    seen = either > 0
    return (both[seen] / either[seen]).mean().item()
