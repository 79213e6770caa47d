"""A loss that evoloss found.

    cls(-y*log(p)) + 0.0417*cls(d)

    p       softmax probability of the class
    y       target, one-hot or soft
    d       distance from the embedding to the class's learned center
    cls(.)  sum over classes, mean over samples

Origin: rank 3 of the evoloss run fashion-mnist-hybrid-0 (fashion-mnist, mlp). On 10 fresh seeds and the test split,
accuracy 0.8492, +0.0033 [+0.0020, +0.0047] to cross-entropy's: better.

Scale: 1; with it, the gradient at the start is as long as cross-entropy's, as in the search.

Recipe: adam at 0.003, falling linearly to 0, batches of 128, 10,000 samples x 3 epochs, centers: SGD at 0.5, falling
as well. Elsewhere, sweep the learning rate.

Written by evoloss 0.4.0. Needs torch alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

FORMULA = "cls(-y*log(p)) + 0.0417*cls(d)"
SCALE = 1.0


def fashion_loss(
    logits: Tensor,
    target: Tensor,
    embeddings: Tensor,
    centers: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    scale: float = SCALE,
) -> Tensor:
    """The loss of a batch: a scalar, or [B, ...] with `reduction` "none".

    logits: [B, K, ...], before any softmax.
    target: [B, ...] of class indices, or [B, K, ...] of probabilities.
    embeddings: [B, E, ...], what the last layer of the model sees.
    centers: [K, E], learned, one a class.
    weight: [K]; counts a sample by its class (and the mean is weighted), or each class's term where the target
        is probabilities, as `nn.CrossEntropyLoss` does.
    Trailing dimensions are samples. Those of `ignore_index` count for nothing; `scale` multiplies the result.
    """
    labels, kept = _labels(target, ignore_index)
    z = _kept(_rows(logits), kept)
    x = _kept(_rows(embeddings), kept)
    num_classes = z.shape[1]
    y = _targets(target, labels, num_classes, z)
    log_p = z.log_softmax(1)
    d = _center_distances(x, centers, y)
    t1 = _cls(-y * log_p, target, labels, kept, weight, reduction)
    value = t1 + 0.0417 * _cls(d, target, labels, kept, weight, reduction)
    if reduction == "mean":
        return scale * value
    return _per_sample(scale * value, target, kept, reduction)


class FashionLoss(nn.Module):
    """`fashion_loss` as a module, with its centers.

    Give `loss.parameters()` to an optimizer, such as SGD at 0.5.
    """

    weight: Tensor | None

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        scale: float = SCALE,
    ) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(num_classes, embedding_dim))
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.scale = scale

    def forward(self, logits: Tensor, target: Tensor, embeddings: Tensor) -> Tensor:
        """The loss of a batch; see `fashion_loss`."""
        return fashion_loss(
            logits,
            target,
            embeddings,
            self.centers,
            self.weight,
            self.ignore_index,
            self.reduction,
            self.scale,
        )


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


def _per_sample(value: Tensor, target: Tensor, kept: Tensor, reduction: str) -> Tensor:
    """Values [N] as their sum, or in the shape of the samples [B, ...]; those of ignored samples are 0."""
    if reduction != "sum" and reduction != "none":
        raise ValueError(f'reduction should be "mean", "sum" or "none", not "{reduction}"')
    value = value.masked_fill(~kept, 0.0)
    if reduction == "sum":
        return value.sum()
    return value.reshape(target[:, 0].shape if target.is_floating_point() else target.shape)
