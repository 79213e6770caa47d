"""A progress bar on standard error."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(silent: bool) -> Iterator[Callable[[float, float], None]]:
    """Gives `tick(done, due)`; shows nothing where standard error is no terminal, or if `silent`."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=silent or not sys.stderr.isatty()) as bar:
        task = bar.add_task("training")
        yield lambda done, due: bar.update(task, completed=done, total=due)
