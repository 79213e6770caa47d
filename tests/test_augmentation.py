import pytest
import torch

from evoloss.augmentation import augmented
from evoloss.recipe import Augmentation


def images(count=64, channels=3, side=12):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def change(batch, seed=1, **bounds):
    return augmented(batch, Augmentation(**bounds), torch.Generator().manual_seed(seed))


def equal(a, b):
    return torch.isclose(a, b, atol=1e-5).flatten(1).all(1)


def test_nothing_asked_for_changes_nothing():
    batch = images()
    assert change(batch) is batch


def test_half_are_flipped():
    batch = images(400)
    flipped = change(batch, flip=True)
    kept, turned = equal(flipped, batch), equal(flipped, batch.flip(3))
    assert (kept ^ turned).all()
    assert 150 < turned.sum() < 250


def test_a_crop_moves_by_whole_pixels_and_pads_with_black():
    batch = images(300)
    moved = change(batch, crop=2)
    padded = torch.nn.functional.pad(batch, (2, 2, 2, 2))
    windows = [padded[:, :, y : y + 12, x : x + 12] for y in range(5) for x in range(5)]
    found = torch.stack([equal(moved, window) for window in windows])
    assert (found.sum(0) == 1).all()
    assert found.any(1).all()  # all 25 places occur


@pytest.mark.parametrize("bounds", [{"rotate": 20.0}, {"zoom": 0.2}, {"shift": 0.2}])
def test_each_bound_changes_images_and_zero_of_it_does_not(bounds):
    batch = images()
    assert not equal(change(batch, **bounds), batch).any()
    tiny = {name: value * 1e-6 for name, value in bounds.items()}
    assert equal(change(batch, **tiny), batch).all()


def test_a_rotation_keeps_the_middle_and_distances_from_it():
    batch = torch.zeros(50, 1, 21, 21)
    batch[:, :, 10, 10] = 1
    torch.testing.assert_close(change(batch, rotate=90.0)[:, 0, 10, 10], torch.ones(50))


def test_the_edge_is_black_or_repeated():
    batch = torch.ones(20, 1, 8, 8)
    assert change(batch, shift=0.3).min() == 0
    torch.testing.assert_close(change(batch, shift=0.3, edge="nearest"), batch)


def test_the_generator_decides():
    batch, bounds = images(), {"flip": True, "rotate": 5.0, "zoom": 0.1, "shift": 0.1, "crop": 1}
    assert torch.equal(change(batch, **bounds), change(batch, **bounds))
    assert not torch.equal(change(batch, **bounds), change(batch, 2, **bounds))
