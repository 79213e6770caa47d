"""What an exported loss carries along: functions whose source is copied into its file, so they know torch alone.

Nothing here branches on values, and nothing but the number of triplets depends on them, so that `torch.compile`,
`torch.export` and `torch.jit.script` see one graph. What does not count (ignored samples, a sample paired with itself)
holds a copy of something that does, and is left out of the sums: it can neither be non-finite nor send a gradient.
Distances are those of `torch.cdist` without its matrix product, which autocast leaves in single precision.
"""

import torch
from torch import Tensor
from torch.nn import functional


def _rows(tensor: Tensor) -> Tensor:
    """[B, C, ...] as [N, C], in at least single precision."""
    rows = tensor.movedim(1, -1).reshape(-1, tensor.shape[1])
    return rows.float() if rows.dtype == torch.float16 or rows.dtype == torch.bfloat16 else rows


def _labels(target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Classes [N], and whether a sample counts [N]."""
    if target.is_floating_point():
        labels = _rows(target).argmax(1)
        return labels, torch.ones_like(labels, dtype=torch.bool)
    labels = target.reshape(-1)
    kept = labels != ignore_index
    return _kept(labels.masked_fill(~kept, 0), kept), kept


def _first(counted: Tensor) -> Tensor:
    """The index [1] of the first place of a mask that counts, or of the last where none does; [0] of an empty one."""
    order = torch.arange(counted.numel(), device=counted.device)
    return order if len(order) == 0 else torch.where(counted.flatten(), order, len(order) - 1).amin(0, keepdim=True)


def _kept(rows: Tensor, kept: Tensor) -> Tensor:
    """The rows [N, ...], each ignored one replaced by a copy of one that counts."""
    if len(rows) != len(kept):
        raise ValueError(f"inputs and target should have the same samples, not {len(rows)} and {len(kept)}")
    order = torch.arange(len(kept), device=kept.device)
    return rows[torch.where(kept, order, _first(kept))]


def _targets(target: Tensor, labels: Tensor, num_classes: int, like: Tensor) -> Tensor:
    """Targets [N, K], one-hot or soft, of the floating type of `like`."""
    if not target.is_floating_point():
        return functional.one_hot(labels, num_classes).to(like.dtype)
    if target.shape[1] != num_classes:
        raise ValueError(f"a soft target should have {num_classes} classes, not {target.shape[1]}")
    return _rows(target).to(like.dtype)


def _distances(x: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances [N, M], at least sqrt(1e-7); there the gradient is 0."""
    return torch.cdist(x, others, compute_mode="donot_use_mm_for_euclid_dist").clamp_min(1e-7**0.5)


def _center_distances(x: Tensor, centers: Tensor, y: Tensor) -> Tensor:
    """Distances [N, K] to the centers; those of classes that are absent get no gradient."""
    present = (y > 0).any(0).unsqueeze(1)
    return _distances(x, torch.where(present, centers, centers.detach()).to(x.dtype))


def _pairs(x: Tensor, labels: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of all pairs [N, N]: the distance, 1 where the classes agree, and whether the pair counts."""
    order = torch.arange(len(x), device=x.device)
    counted = kept.unsqueeze(1) & kept & (order.unsqueeze(1) != order)
    first = _first(counted)
    distance, agree = _distances(x, x), (labels.unsqueeze(1) == labels).to(x.dtype)
    distance = torch.where(counted, distance, distance.flatten()[first])
    return distance, torch.where(counted, agree, agree.flatten()[first]), counted


def _triplets(labels: Tensor, counted: Tensor) -> Tensor:
    """Anchors, positives, negatives [3, T]: all ordered agreeing pairs, each with one random negative."""
    agree = labels.unsqueeze(1) == labels
    negative = counted & ~agree
    others = negative.sum(1)
    pairs = (counted & agree & (others > 0).unsqueeze(1)).nonzero()
    anchor, positive = pairs[:, 0], pairs[:, 1]
    negatives_first = negative.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    drawn = torch.rand_like(anchor, dtype=torch.float32) * others[anchor]
    place = torch.minimum(drawn.long(), others[anchor] - 1)  # a product may round up
    return torch.stack((anchor, positive, negatives_first[anchor, place]))


def _cls(values: Tensor, target: Tensor, labels: Tensor, kept: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """Values [N, K] summed over classes: a number a sample [N], or their (weighted) mean.

    `weight` [K] counts a sample by its class, or each class's term where the target is soft.
    """
    counts = kept.to(values.dtype)
    if weight is not None:
        if target.is_floating_point():
            values = values * weight.to(values.dtype)
        else:
            counts = counts * weight.to(values.dtype)[labels]
    per_sample = values.sum(1).masked_fill(~kept, 0.0) * counts
    return per_sample if reduction != "mean" else per_sample.sum() / counts.sum().clamp_min(1.2e-38)


def _partner(values: Tensor, kept: Tensor, counted: Tensor, reduction: str) -> Tensor:
    """Values [N, N] summed over partners: a number a sample [N], or their mean."""
    per_sample = values.masked_fill(~counted, 0.0).sum(1)
    return per_sample if reduction != "mean" else per_sample.sum() / kept.sum().clamp_min(1)


def _pair(values: Tensor, agree: Tensor, counted: Tensor) -> Tensor:
    """Half the mean of values [N, N] over agreeing pairs plus half the mean over the others; no pair, nothing."""
    agree = agree * counted
    differ = counted.to(agree.dtype) - agree
    weights = agree / agree.sum().clamp_min(1) + differ / differ.sum().clamp_min(1)
    return 0.5 * (values.masked_fill(~counted, 0.0) * weights).sum()


def _trip(values: Tensor) -> Tensor:
    """The mean of values [T]; no triplet, no loss."""
    return values.sum() / torch.ones_like(values).sum().clamp_min(1)


def _per_sample(value: Tensor, target: Tensor, kept: Tensor, reduction: str) -> Tensor:
    """Values [N] as their sum, or in the shape of the samples [B, ...]; those of ignored samples are 0."""
    if reduction != "sum" and reduction != "none":
        raise ValueError(f'reduction should be "mean", "sum" or "none", not "{reduction}"')
    value = value.masked_fill(~kept, 0.0)
    if reduction == "sum":
        return value.sum()
    return value.reshape(target[:, 0].shape if target.is_floating_point() else target.shape)
