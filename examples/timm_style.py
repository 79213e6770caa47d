"""A training script in the manner of timm on digits: its model, mixup, optimizer and schedule, and autocast.

Mixup makes soft targets, for which timm has a loss of its own, and needs none here: `cifar_loss.py`, which

    evoloss export runs/cifar10-hybrid-0#1 --to examples/cifar_loss.py

wrote, takes classes and probabilities alike. Needs `timm` and scikit-learn.
"""

import argparse

import numpy as np
import timm
import torch
from cifar_loss import CifarLoss
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch.nn import functional

BATCH = 64


def main() -> None:
    """Train, and print the accuracy on what was held out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="test_resnet", help="any of timm.list_models()")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--mixup", type=float, default=0.2, help="0 for none")
    parser.add_argument("--amp", action="store_true", help="autocast to bfloat16")
    options = parser.parse_args()

    torch.manual_seed(0)
    np.random.seed(0)  # of mixup
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(pixels / 16, labels, test_size=0.25, random_state=0, stratify=labels)
    images, test_images = (
        functional.interpolate(torch.tensor(part, dtype=torch.float32).reshape(-1, 1, 8, 8), size=32).to(device)
        for part in parts[:2]
    )
    target, test_target = (torch.tensor(part).to(device) for part in parts[2:])

    model = timm.create_model(options.model, in_chans=1, num_classes=10).to(device)
    loss = CifarLoss().to(device)
    mixup = Mixup(mixup_alpha=options.mixup, num_classes=10) if options.mixup else None
    optimizer = create_optimizer_v2(model, opt="adamw", lr=options.lr, weight_decay=0.05)
    schedule = CosineLRScheduler(optimizer, t_initial=options.epochs, warmup_t=1, warmup_lr_init=options.lr / 10)
    for epoch in range(options.epochs):
        schedule.step(epoch)
        model.train()
        for batch in torch.randperm(len(images)).split(BATCH):
            inputs, wanted = images[batch], target[batch]
            if mixup is not None and len(batch) % 2 == 0:  # timm's mixup pairs the samples of a batch
                inputs, wanted = mixup(inputs, wanted)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.amp):
                value = loss(model(inputs), wanted)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

    model.eval()
    with torch.no_grad():
        accuracy = (model(test_images).argmax(1) == test_target).float().mean().item()
    print(f"test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
