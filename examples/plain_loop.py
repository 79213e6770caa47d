"""A plain PyTorch loop on digits with a loss that has learned centers; `fashion_loss.py` is what

    evoloss export runs/fashion-mnist-hybrid-0#3 --to examples/fashion_loss.py

wrote. The centers are parameters of the loss and get an optimizer of their own. Needs torch and scikit-learn.
"""

import argparse

import torch
from fashion_loss import FashionLoss
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

BATCH = 128


class Network(nn.Module):
    """Digits [B, 64] to embeddings [B, 32] and logits [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
        self.embedding = nn.Linear(128, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits."""
        embeddings = self.embedding(self.features(pixels))
        return embeddings, self.head(embeddings)


def main() -> None:
    """Train, and print the accuracy on what was held out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=3e-3)
    options = parser.parse_args()

    torch.manual_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(pixels / 16, labels, test_size=0.25, random_state=0, stratify=labels)
    images, test_images = (torch.tensor(part, dtype=torch.float32) for part in parts[:2])
    target, test_target = (torch.tensor(part) for part in parts[2:])

    model = Network()
    loss = FashionLoss(num_classes=10, embedding_dim=32)
    optimizers = [torch.optim.Adam(model.parameters(), options.lr), torch.optim.SGD(loss.parameters(), lr=0.5)]
    steps = options.epochs * -(-len(images) // BATCH)
    schedules = [torch.optim.lr_scheduler.LinearLR(each, 1.0, 0.0, steps) for each in optimizers]
    for _ in range(options.epochs):
        for batch in torch.randperm(len(images)).split(BATCH):
            for optimizer in optimizers:
                optimizer.zero_grad()
            embeddings, logits = model(images[batch])
            loss(logits, target[batch], embeddings).backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()

    model.eval()
    with torch.no_grad():
        accuracy = (model(test_images)[1].argmax(1) == test_target).float().mean().item()
    print(f"test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
