import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import nn
from torch.nn import functional

from evoloss.baselines import BASELINES
from evoloss.expression import Expression
from evoloss.lower import Loss
from evoloss.records import Budget
from evoloss.vision.masks import IGNORE
from evoloss.vision.segmentation import MaskedSamples, iou, mean_iou


class Shown(nn.Module):
    """A model whose logits [B, K, H, W] are read off its images [B, 3, H, W]: the first channel is the class."""

    def forward(self, images):
        return None, functional.one_hot(images[:, 0].long(), 4).movedim(3, 1).float()


def random(*shape, most=4, seed=0):
    return torch.randint(0, most, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_iou_by_hand():
    # Classes 0 and 1: 3 and 2 right, one pixel of 1 taken for 0; class 2 is nowhere, class 3 only predicted.
    confusion = torch.tensor([[3, 0, 0, 1], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert iou(confusion) == pytest.approx((3 / 5 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize("chunk", [2, 5, 100])
def test_mean_iou_is_that_of_scikit_learn(chunk):
    images, masks = random(7, 3, 6, 5), random(7, 6, 5, seed=1)
    masks[random(7, 6, 5, seed=2) == 0] = IGNORE
    kept = masks != IGNORE
    expected = jaccard_score(masks[kept], images[:, 0][kept], average="macro")
    assert mean_iou(Shown(), MaskedSamples(images, masks), 4, chunk) == pytest.approx(expected)


def test_ignored_pixels_change_nothing():
    images, masks = random(2, 3, 4, 4), random(2, 4, 4)
    images[:, 0] = masks
    masks[0, 0] = IGNORE
    images[0, 0, 0] = 3
    assert mean_iou(Shown(), MaskedSamples(images, masks), 4, 2) == 1


@pytest.mark.parametrize("changes", [{}, {"flips": True}, {"shifts": True}, {"flips": True, "shifts": True}])
def test_images_and_masks_move_together(changes):
    masks = random(16, 16, 16)
    images = masks.unsqueeze(1).repeat(1, 3, 1, 1) * 10
    samples = MaskedSamples(images, masks)
    places = torch.tensor([3, 1, 4, 15])
    moved, labels = samples.batch(places, Budget(1, 1, 0.1, **changes), torch.Generator().manual_seed(1))
    assert labels.dtype == torch.int64
    assert torch.equal(moved[:, 0].long(), labels * 10)
    assert torch.equal(labels, masks[places].long()) == (not changes)


@pytest.mark.parametrize("name", ["ce", "ngl"])
def test_a_loss_per_pixel_is_that_of_the_pixels_as_samples(name):
    logits = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    masks = random(2, 5, 3).long()
    masks[0, :2] = IGNORE
    loss = Loss(Expression.parse(BASELINES[name].expression), 4, ignore_index=IGNORE)
    kept = masks.flatten() != IGNORE
    pixels = logits.movedim(1, -1).reshape(-1, 4)[kept]
    torch.testing.assert_close(loss(logits, masks), loss(pixels, masks.flatten()[kept]))
    if name == "ce":
        torch.testing.assert_close(loss(logits, masks), functional.cross_entropy(logits, masks, ignore_index=IGNORE))
