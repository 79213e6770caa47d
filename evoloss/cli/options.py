"""The options that commands share, and what their texts mean."""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoloss.errors import EvolossError

if TYPE_CHECKING:
    from evoloss.backend import Backend
    from evoloss.config import SearchSpace
    from evoloss.records import DataSpec

# How `--help` groups options; those that are about what a command does come first, under no heading of their own.
about_data = partial(typer.Option, rich_help_panel="Data and network")
about_training = partial(typer.Option, rich_help_panel="Training")
about_machine = partial(typer.Option, rich_help_panel="Machine")
about_output = partial(typer.Option, rich_help_panel="Output")

Dataset = Annotated[str, about_data(help="A name of `evoloss datasets`, or folder:PATH for your own images.")]
DatasetOfRun = Annotated[str | None, about_data(help="Default: the run's, or digits.")]
DataDir = Annotated[str | None, about_data(help="Where to look for data first.")]
Proxy = Annotated[str | None, about_data(help="mlp or inception; the default depends on the data set.")]
Samples = Annotated[int | None, about_data(min=1, help="Keep that many training samples.")]
LabelNoise = Annotated[float, about_data(min=0, max=0.99, help="Share of training labels made wrong.")]
LabelNoiseOfRun = Annotated[
    float | None, about_data(min=0, max=0.99, help="Share of training labels made wrong; default: the run's, or 0.")
]
Imbalance = Annotated[float, about_data(min=1, help="Ratio of the largest to the smallest training class.")]
ImbalanceOfRun = Annotated[
    float | None,
    about_data(min=1, help="Ratio of the largest to the smallest training class; default: the run's, or 1."),
]

Space = Annotated[str, typer.Option(help="A name of `evoloss spaces`, or the path of a TOML file.")]

Seeds = Annotated[int, about_training(min=1, help="Fresh seeds of each loss.")]
Seed = Annotated[int, about_training(help="Draws all other seeds.")]
DrawnSamples = Annotated[int | None, about_training(min=1, help="Training samples, drawn anew for each seed.")]
Epochs = Annotated[int | None, about_training(min=1, help="Default from the playoff of the space.")]
Batch = Annotated[int | None, about_training(min=2, help="Default from the playoff of the space.")]
Optimizer = Annotated[str, about_training(help="adam or sgd.")]
Rates = Annotated[
    list[str] | None,
    about_training(
        help="Learning rates to begin with, such as 1e-3,3e-3; a loss that gets better at an end meets more."
    ),
]

Workers = Annotated[int | None, about_machine(min=0, help="Processes; default one a core; 0 runs in this process.")]
Address = Annotated[str | None, about_machine(help="Join a running Ray cluster, for instance auto.")]
Cache = Annotated[
    Path | None, about_machine(help="A file of evaluations that runs on this machine share; made if it is not there.")
]
Device = Annotated[str, about_machine(help="auto, cpu or cuda.")]
Gpus = Annotated[
    float | None,
    about_machine(
        "--gpus-per-worker", min=0.0001, help="Share of a GPU that a worker takes, such as 0.1; default: an equal one."
    ),
]

Quiet = Annotated[bool, about_output("--quiet", help="Print nothing while searching.")]
AsJson = Annotated[bool, about_output("--json", help="Print JSON for machines.")]
Tensorboard = Annotated[bool, about_output("--tensorboard", help="Event files in the run directory.")]
Mlflow = Annotated[bool, about_output("--mlflow", help="Each generation to MLflow as well.")]
Wandb = Annotated[bool, about_output("--wandb", help="Each generation to Weights & Biases as well.")]


def read_sinks(**wanted: bool) -> list[str]:
    """The names of the sinks that are wanted; one whose package is missing is refused before anything is made."""
    names = [name for name, is_wanted in wanted.items() if is_wanted]
    if names:
        from evoloss.sinks import check

        check(names)
    return names


@dataclass(frozen=True)
class Asked:
    """What `evoloss evaluate` was asked, whatever network it is that trains: a canonical formula, data, a budget."""

    text: str
    spec: "DataSpec"
    space: "SearchSpace"
    changes: dict[str, int | None]
    optimizer: str
    rates: dict[str, list[float]]
    seeds: int
    device: str
    run: Path | None
    as_json: bool

    @property
    def losses(self) -> dict[str, str]:
        """The formula by its name, which is its text."""
        return {self.text: self.text}


def read_backend(workers: int | None, address: str | None, cache: Path | None, gpus: float | None = None) -> "Backend":
    """What to train with; a file that is no cache is refused before anything is made."""
    from evoloss.backend import Backend
    from evoloss.cache import check

    if gpus is not None and workers == 0:
        raise EvolossError("--gpus-per-worker is for worker processes: leave out --workers 0")
    if cache is not None:
        check(cache)
    return Backend(workers, address, cache, gpus)


def full_path(dataset: str) -> str:
    """A folder of images by its full path: a run can be resumed from anywhere."""
    kind, colon, path = dataset.partition(":")
    if not _is_text(dataset):
        raise EvolossError(f"the path of the data is not UTF-8, and run.toml could not name it: rename {dataset}")
    return f"{kind}:{Path(path).expanduser().resolve()}" if colon and path else dataset


def _is_text(name: str) -> bool:
    """Whether a file can hold it: names of files may be any bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def canonical(text: str) -> str:
    """The canonical text of a formula."""
    from evoloss.expression import Expression

    return Expression.parse(text).text


def read_seconds(text: str | None) -> float | None:
    """`90`, `90s`, `45m` or `2h` in seconds."""
    if text is None:
        return None
    factor = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    try:
        seconds = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise EvolossError(f"--time-limit should be a positive time such as 90s, 45m or 2h, not `{text}`")
    return seconds


def read_rates(texts: list[str] | None) -> dict[str, list[float]]:
    """Learning rates by optimizer from `sgd:0.01,0.03`; those of a text without a name are under ""."""
    rates: dict[str, list[float]] = {}
    for text in texts or []:
        optimizer, _, numbers = text.rpartition(":")
        try:
            values = [float(number) for number in numbers.split(",")]
        except ValueError:
            values = [0.0]
        if any(not 0 < value < float("inf") for value in values) or len(set(values)) < len(values):
            raise EvolossError(f"--lr should be different positive numbers such as 1e-3,3e-3, not `{text}`")
        rates[optimizer] = values
    return rates


def read_optimizers(text: str) -> list[str]:
    """`adam,sgd` as names; each is checked where it is used."""
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


def read_regimes(text: str | None) -> list[str]:
    """`adam,sgd` as names, folders of images by their full path; each is checked where it is used."""
    return [] if text is None else [full_path(name.strip()) for name in text.split(",")]


def read_device(name: str, gpus: float | None = None) -> str:
    """The device, with "auto" decided; GPUs for workers say it, wherever those are."""
    if name not in ("auto", "cpu", "cuda"):
        raise EvolossError(f"--device should be auto, cpu or cuda, not `{name}`")
    if gpus is not None and name == "cpu":
        raise EvolossError("--gpus-per-worker is for the device cuda: leave it out, or --device cpu")
    if gpus is not None:
        return "cuda"
    if name == "auto":  # asking torch would import it
        return "cuda" if shutil.which("nvidia-smi") else "cpu"
    return name
