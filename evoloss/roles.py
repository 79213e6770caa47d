"""Which samples are train, select and test: the same in every process.

A role is a fixed set of samples: it depends neither on a run's seed nor on which roles are asked for.
"""

import numpy as np

from evoloss.records import Role, derive_seed

ROLE_SEED = derive_seed("roles", 1)  # never a run's seed: scores of different runs are compared
SELECT_PARTS, MOST_SELECT = 5, 10_000


def apportion(counts: np.ndarray, total: int) -> np.ndarray:
    """`total` shared out in proportion to `counts` (largest remainders), at least 1 and at most its count to each."""
    exact = counts * (total / counts.sum())
    quota = np.maximum(counts * total // counts.sum(), 1)
    while rest := int(total - quota.sum()):
        step = int(np.sign(rest))
        free = (quota + step >= 1) & (quota + step <= counts)
        quota[np.argmax(np.where(free, (exact - quota) * step, -np.inf))] += step
    return quota


def take(labels: np.ndarray, quota: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sorted indices of `quota[k]` random samples of every class k."""
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == k))[:n] for k, n in enumerate(quota)]))


def assign(labels: np.ndarray, num_classes: int, own_test: bool) -> dict[Role, np.ndarray]:
    """The train part's indices by role, shuffled; all roles are always drawn, so asking for fewer changes none."""
    rng = np.random.default_rng(ROLE_SEED)
    share = len(labels) // SELECT_PARTS
    total = max(num_classes, min(share, MOST_SELECT) if own_test else share)
    quota = apportion(np.bincount(labels, minlength=num_classes), total)
    rest, roles = np.arange(len(labels)), dict[Role, np.ndarray]()
    drawn: tuple[Role, ...] = ("select",) if own_test else ("select", "test")
    for role in drawn:
        roles[role] = rest[take(labels[rest], quota, rng)]
        rest = np.setdiff1d(rest, roles[role])
    roles["train"] = rest
    if not np.array_equal(np.sort(np.concatenate(list(roles.values()))), np.arange(len(labels))):
        raise AssertionError("the roles overlap or miss samples")
    return {role: rng.permutation(index) for role, index in roles.items()}
