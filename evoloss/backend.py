"""What a command trains with: worker processes, here or in a cluster, behind a cache of what is known already."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from evoloss import workers
from evoloss.cache import Cache
from evoloss.workers import Datasets, Pool, opened_when_needed

log = logging.getLogger("evoloss")


@dataclass(frozen=True)
class Backend:
    """How many worker processes (None: one a core; 0: this process), the `address` of a Ray cluster, a `cache` file.

    `gpus` is the share of a GPU that a worker takes, where the device is cuda.
    """

    workers: int | None = None
    address: str | None = None
    cache: Path | None = None
    gpus: float | None = None

    @contextmanager
    def open(self, datasets: Datasets, device: str) -> Iterator[Pool]:
        """A pool on these data. With a cache, no process is started before something is to be trained."""
        start = partial(workers.open_pool, datasets, self.workers, self.address, device, self.gpus)
        if self.cache is None:
            with start() as pool:
                yield pool
            return
        with ExitStack() as stack, closing(Cache(self.cache, datasets, device)) as cache:
            try:
                yield cache.ahead_of(opened_when_needed(stack, start))
            finally:
                log.info("%s: %d evaluations taken, %d added", self.cache, cache.taken, cache.added)


HERE = Backend()  # a process for each core of this machine, and no cache
