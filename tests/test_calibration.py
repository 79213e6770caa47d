import math

import pytest
import torch
from torch import nn

from evoloss.calibration import BINS, calibration_error


def error(confidence, right):
    return calibration_error(torch.tensor(confidence), torch.tensor(right))


def test_each_bin_counts_by_its_share():
    """By hand: a bin with confidences .95, .95, .99 of which one is wrong, and one with .5, which is right."""
    first, second = abs(2 - (0.95 + 0.95 + 0.99)), abs(1 - 0.5)
    assert error([0.95, 0.95, 0.99, 0.5], [True, False, True, True]) == pytest.approx((first + second) / 4, abs=1e-7)


@pytest.mark.parametrize("value", [m / BINS for m in range(1, BINS + 1)])
def test_errors_cancel_within_a_bin_and_a_bin_holds_its_upper_end(value):
    """(Guo et al. 2017, equation 2): a bin's end and what is just below it lie in one bin."""
    assert calibration_error(torch.tensor([value] * 2, dtype=torch.float64), torch.tensor([True, False])) == (
        pytest.approx(abs(1 - 2 * value) / 2)
    )
    inside = torch.tensor([value, value - 0.01], dtype=torch.float64)
    assert calibration_error(inside, torch.tensor([True, False])) == pytest.approx(abs(1 - 2 * value + 0.01) / 2)


def test_a_model_that_knows_what_it_knows_has_none():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(200_000, generator=generator)
    right = torch.rand(200_000, generator=generator) < confidence
    assert calibration_error(confidence, right) < 0.01
    assert calibration_error(confidence, ~right) > 0.3


def test_it_is_the_error_of_the_softmax_that_a_training_reports():
    """Logits that are the images: three samples of two classes, one of them guessed wrong."""
    from evoloss.train import Samples, _answers

    class Same(nn.Module):
        def forward(self, images):
            return images, images

    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    right, confidence = _answers(Same(), Samples(logits, torch.tensor([0, 1, 1])), None)
    assert right.tolist() == [True, True, False]
    sigmoids = [1 / (1 + math.exp(-gap)) for gap in (2.0, 1.0, 3.0)]
    assert confidence.tolist() == pytest.approx(sigmoids)
    assert calibration_error(confidence, right) == pytest.approx((1 - sigmoids[0] + 1 - sigmoids[1] + sigmoids[2]) / 3)
