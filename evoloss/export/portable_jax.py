"""`portable.py` in JAX: the functions that a loss exported to JAX carries along. Their source is copied, never called.

Under `jax.jit` the reduction has to be static; all else follows from shapes and types.
"""

import jax
import jax.numpy as jnp


def _rows(array: jax.Array) -> jax.Array:
    """[B, C, ...] as [N, C], in at least single precision."""
    rows = jnp.moveaxis(array, 1, -1).reshape(-1, array.shape[1])
    return rows.astype(jnp.promote_types(rows.dtype, jnp.float32))


def _soft(target: jax.Array) -> bool:
    """Whether the target is probabilities."""
    return jnp.issubdtype(target.dtype, jnp.floating)


def _labels(target: jax.Array, ignore_index: int) -> tuple[jax.Array, jax.Array]:
    """Classes [N], and whether a sample counts [N]."""
    if _soft(target):
        labels = _rows(target).argmax(1)
        return labels, jnp.ones(labels.shape, bool)
    labels = target.reshape(-1)
    kept = labels != ignore_index
    return _kept(jnp.where(kept, labels, 0), kept), kept


def _kept(rows: jax.Array, kept: jax.Array) -> jax.Array:
    """The rows [N, ...], each ignored one replaced by a copy of one that counts."""
    if len(rows) != len(kept):
        raise ValueError(f"inputs and target should have the same samples, not {len(rows)} and {len(kept)}")
    return rows[jnp.where(kept, jnp.arange(len(kept)), kept.argmax())]


def _targets(target: jax.Array, labels: jax.Array, num_classes: int, like: jax.Array) -> jax.Array:
    """Targets [N, K], one-hot or soft, of the floating type of `like`."""
    if not _soft(target):
        return jax.nn.one_hot(labels, num_classes, dtype=like.dtype)
    if target.shape[1] != num_classes:
        raise ValueError(f"a soft target should have {num_classes} classes, not {target.shape[1]}")
    return _rows(target).astype(like.dtype)


def _distances(x: jax.Array, others: jax.Array) -> jax.Array:
    """Euclidean distances [N, M], at least sqrt(1e-7); there the gradient is 0."""
    squared = jnp.square(x[:, None] - others[None]).sum(-1)
    return jnp.sqrt(jnp.maximum(squared, 1e-7))


def _center_distances(x: jax.Array, centers: jax.Array, y: jax.Array) -> jax.Array:
    """Distances [N, K] to the centers; those of classes that are absent get no gradient."""
    present = (y > 0).any(0)[:, None]
    return _distances(x, jnp.where(present, centers, jax.lax.stop_gradient(centers)).astype(x.dtype))


def _pairs(x: jax.Array, labels: jax.Array, kept: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of all pairs [N, N]: the distance, 1 where the classes agree, and whether the pair counts."""
    counted = kept[:, None] & kept & ~jnp.eye(len(x), dtype=bool)
    first = counted.argmax()
    distance, agree = _distances(x, x), (labels[:, None] == labels).astype(x.dtype)
    distance = jnp.where(counted, distance, distance.reshape(-1)[first])
    return distance, jnp.where(counted, agree, agree.reshape(-1)[first]), counted


def _cls(
    values: jax.Array, target: jax.Array, labels: jax.Array, kept: jax.Array, weight: jax.Array | None, reduction: str
) -> jax.Array:
    """Values [N, K] summed over classes: a number a sample [N], or their (weighted) mean.

    `weight` [K] counts a sample by its class, or each class's term where the target is soft.
    """
    counts = kept.astype(values.dtype)
    if weight is not None:
        if _soft(target):
            values = values * weight.astype(values.dtype)
        else:
            counts = counts * weight.astype(values.dtype)[labels]
    per_sample = jnp.where(kept, values.sum(1), 0.0) * counts
    return per_sample if reduction != "mean" else per_sample.sum() / jnp.maximum(counts.sum(), 1.2e-38)


def _partner(values: jax.Array, kept: jax.Array, counted: jax.Array, reduction: str) -> jax.Array:
    """Values [N, N] summed over partners: a number a sample [N], or their mean."""
    per_sample = jnp.where(counted, values, 0.0).sum(1)
    return per_sample if reduction != "mean" else per_sample.sum() / jnp.maximum(kept.sum(), 1)


def _pair(values: jax.Array, agree: jax.Array, counted: jax.Array) -> jax.Array:
    """Half the mean of values [N, N] over agreeing pairs plus half the mean over the others; no pair, nothing."""
    agree = agree * counted
    differ = counted.astype(agree.dtype) - agree
    weights = agree / jnp.maximum(agree.sum(), 1) + differ / jnp.maximum(differ.sum(), 1)
    return 0.5 * (jnp.where(counted, values, 0.0) * weights).sum()


def _trip(values: jax.Array) -> jax.Array:
    """The mean of values [T]; no triplet, no loss."""
    return values.sum() / max(values.shape[0], 1)


def _per_sample(value: jax.Array, target: jax.Array, kept: jax.Array, reduction: str) -> jax.Array:
    """Values [N] as their sum, or in the shape of the samples [B, ...]; those of ignored samples are 0."""
    if reduction not in ("sum", "none"):
        raise ValueError(f'reduction should be "mean", "sum" or "none", not "{reduction}"')
    value = jnp.where(kept, value, 0.0)
    if reduction == "sum":
        return value.sum()
    return value.reshape(target[:, 0].shape if _soft(target) else target.shape)
