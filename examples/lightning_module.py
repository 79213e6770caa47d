"""PyTorch Lightning on digits; `cifar_loss.py`, which takes the place of `nn.CrossEntropyLoss`, is what

    evoloss export runs/cifar10-hybrid-0#1 --to examples/cifar_loss.py

wrote. Needs `lightning` and scikit-learn.
"""

import argparse

import lightning
import torch
from cifar_loss import CifarLoss
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Classifier(lightning.LightningModule):
    """A small convolutional network and the loss that it is trained with."""

    def __init__(self, loss: nn.Module, rate: float) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )
        self.loss = loss
        self.rate = rate

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a batch."""
        images, target = batch
        return self.loss(self.network(images), target)

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Log the accuracy."""
        images, target = batch
        self.log("accuracy", (self.network(images).argmax(1) == target).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """All parameters: those of a loss with centers would be among them."""
        return torch.optim.Adam(self.parameters(), self.rate)


def main() -> None:
    """Train, and print the accuracy on what was held out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=1e-3)
    options = parser.parse_args()

    lightning.seed_everything(0, verbose=False)
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(pixels / 16, labels, test_size=0.25, random_state=0, stratify=labels)
    images, test_images = (torch.tensor(part, dtype=torch.float32).reshape(-1, 1, 8, 8) for part in parts[:2])
    target, test_target = (torch.tensor(part) for part in parts[2:])

    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    model = Classifier(CifarLoss(), options.lr)
    trainer.fit(model, DataLoader(TensorDataset(images, target), batch_size=64, shuffle=True))
    (figures,) = trainer.test(model, DataLoader(TensorDataset(test_images, test_target), batch_size=450), verbose=False)
    print(f"test accuracy {figures['accuracy']:.4f}")


if __name__ == "__main__":
    main()
