"""How far the confidence of a model is from how often it is right: the expected calibration error (ECE)."""

import torch
from torch import Tensor

BINS = 15


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """ECE = sum over 15 bins b of |b| / N * |accuracy(b) - confidence(b)| (Naeini et al. 2015; Guo et al. 2017).

    `confidence` [N] is the largest probability of a sample, `right` [N] whether that class is its label. The bins are
    ((m - 1) / 15, m / 15], of equal width.
    """
    precise = confidence.double()  # float32 would put 1/3, the end of a bin, beyond it
    bins = (precise * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64, device=confidence.device)
    gaps.index_add_(0, bins, right.double() - precise)
    return gaps.abs().sum().item() / len(confidence)
