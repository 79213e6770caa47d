"""Where the records of a search go besides its directory: TensorBoard, MLflow, Weights & Biases, a row each."""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evoloss.config import RunConfig
from evoloss.errors import EvolossError
from evoloss.evidence import Judgement
from evoloss.playoff import SEARCHED
from evoloss.records import Generation
from evoloss.search import Progress, Watch

Figures = Mapping[str, float]
Texts = Mapping[str, str]
Log = Callable[[int, Figures, Texts], None]  # at a step: a generation, or the one after the last for the playoff
PROJECT = "evoloss"
RESULTS = ("hall_of_fame.csv", "baselines.csv", "generations.csv", "report.html")

log = logging.getLogger("evoloss")


@dataclass(frozen=True)
class Sink:
    """A package that takes figures, and what opens it for a run directory with the settings of the run."""

    package: str
    open: Callable[[Path, dict[str, Any]], AbstractContextManager[Log]]


def check(names: Sequence[str]) -> None:
    """Raise `EvolossError` for a sink whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(SINKS[name].package) is None:
            package = SINKS[name].package
            raise EvolossError(f"--{name} needs the package {package}: pip install 'evoloss[{name}]', or leave it out")


@contextmanager
def opened(names: Sequence[str], directory: Path, config: RunConfig) -> Iterator[list[Log]]:
    """The sinks of a run. One that fails later on is left out from then on: no search ends because of a dashboard.

    Raises `EvolossError` where one cannot be opened.
    """
    settings = config.model_dump(mode="json", exclude={"space"}, exclude_none=True)
    with ExitStack() as stack:
        logs: list[Log] = []
        for name in names:
            manager = SINKS[name].open(directory, settings)
            try:
                logs.append(_guarded(name, manager.__enter__()))
                stack.push(partial(_closed, name, manager))
            except Exception as error:  # whatever a foreign package raises
                problem = f"--{name} cannot begin: {type(error).__name__}: {error}".splitlines()[0]
                raise EvolossError(f"{problem}; go on without it: evoloss resume {directory}") from error
        yield logs


def _closed(name: str, manager: AbstractContextManager[Log], *raised: Any) -> bool:
    """Close a sink, which is told whether the search has failed; what goes wrong there is not the search's."""
    try:
        manager.__exit__(*raised)
    except Exception as error:  # whatever a foreign package raises
        if error is not raised[1]:
            log.warning("%s was not closed: %s: %s", name, type(error).__name__, error)
    return False


def _guarded(name: str, sink: Log) -> Log:
    broken = False

    def guarded(step: int, figures: Figures, texts: Texts) -> None:
        nonlocal broken
        if not broken:
            try:
                sink(step, figures, texts)
            except Exception as error:  # whatever a foreign package raises
                broken = True
                log.warning("%s gets nothing more of this search: %s: %s", name, type(error).__name__, error)

    return guarded


def feeding(watch: Watch, logs: Sequence[Log]) -> Watch:
    """A watch that also gives each finished generation to the sinks."""

    def both(progress: Progress) -> None:
        watch(progress)
        if progress.finished is not None:
            for sink in logs:
                sink(progress.finished.generation, *of_generation(progress.finished))

    return both


def of_generation(row: Generation) -> tuple[Figures, Texts]:
    """The figures of a generation, without those that are not known, and its best loss."""
    values = {
        "fitness/best": row.best_fitness,
        "fitness/mean": row.mean_fitness,
        "fitness/ce": row.ce_fitness,
        "fitness/ngl": row.ngl_fitness,
        **{f"formulas/{name}": getattr(row, name) for name in _COUNTS},
        "seconds": row.seconds,
    }
    return {name: float(value) for name, value in values.items() if value is not None}, {"best": row.best_expression}


def of_playoff(judged: Mapping[str, Sequence[Judgement]]) -> tuple[Figures, Texts]:
    """Differences to cross-entropy on fresh seeds, evolved losses by their place in the playoff."""
    figures: dict[str, float] = {}
    texts: dict[str, str] = {}
    for place, judgement in enumerate(judged.get(SEARCHED, ()), 1):
        name = f"playoff/{judgement.standing.name or f'evolved-{place}'}"
        texts[name] = f"{judgement.standing.expression}: {judgement.verdict}"
        if judgement.gap:
            gap = judgement.gap
            figures |= {
                f"{name}/minus-ce": gap.mean,
                f"{name}/minus-ce-low": gap.low,
                f"{name}/minus-ce-high": gap.high,
            }
    return figures, texts


@contextmanager
def _tensorboard(directory: Path, settings: dict[str, Any]) -> Iterator[Log]:
    """Event files in the run directory: `tensorboard --logdir RUN`."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(directory / "tensorboard")) as writer:
        writer.add_text("settings", "\n".join(f"    {name} = {value}" for name, value in settings.items()), 0)

        def put(step: int, figures: Figures, texts: Texts) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, step)
            for name, text in texts.items():
                writer.add_text(name, f"    {text}", step)  # indented: verbatim in Markdown
            writer.flush()

        yield put


@contextmanager
def _mlflow(directory: Path, settings: dict[str, Any]) -> Iterator[Log]:
    """A run of the experiment `evoloss`, or of the one that MLflow's own variables name."""
    import mlflow

    if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
        mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=directory.name):
        mlflow.log_params(settings)

        def put(step: int, figures: Figures, texts: Texts) -> None:
            mlflow.log_metrics(dict(figures), step=step)
            mlflow.set_tags(dict(texts))

        yield put
        for path in _results(directory):
            mlflow.log_artifact(str(path))


@contextmanager
def _wandb(directory: Path, settings: dict[str, Any]) -> Iterator[Log]:
    """A run of the project `evoloss`, or of the one that W&B's own variables name."""
    import wandb

    project = os.environ.get("WANDB_PROJECT", PROJECT)
    with wandb.init(project=project, name=directory.name, dir=str(directory), config=settings) as run:
        yield lambda step, figures, texts: run.log({**figures, **texts}, step=step)
        for path in _results(directory):
            run.save(str(path), base_path=str(directory), policy="now")


def _results(directory: Path) -> list[Path]:
    return [path for name in RESULTS if (path := directory / name).is_file()]


_COUNTS = ("evaluated", "cached", "duplicates", "rejected", "diverged")

SINKS: dict[str, Sink] = {
    "tensorboard": Sink("tensorboardX", _tensorboard),
    "mlflow": Sink("mlflow", _mlflow),
    "wandb": Sink("wandb", _wandb),
}
