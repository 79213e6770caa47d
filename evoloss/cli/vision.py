"""`evoloss evaluate --model`: a formula trains a torchvision network, on images or on their masks."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from evoloss.cli.options import about_data, about_training
from evoloss.cli.printing import interruptible
from evoloss.errors import EvolossError

if TYPE_CHECKING:
    from evoloss.cli.options import Asked
    from evoloss.comparison import Comparison
    from evoloss.evidence import Judgement
    from evoloss.records import Evaluation, Job
    from evoloss.vision.networks import Task as TaskName
    from evoloss.vision.workbench import Bench

Task = Annotated[
    str,
    about_data(help="classification, or segmentation: a loss per pixel, on voc2012 or folder:PATH with masks."),
]
Model = Annotated[
    str | None,
    about_data(
        help="A network of torchvision in place of a proxy, such as resnet18 (10 epochs unless told) or, per pixel, "
        "fcn_resnet50 (30)."
    ),
]
ImageSize = Annotated[
    int | None,
    about_data(min=8, help="Pixels a side; default 224 for a folder, 256 with masks, else their own, 32 at least."),
]
Amp = Annotated[bool, about_training("--amp", help="Compute the network in bfloat16, the loss in float32.")]
Pretrained = Annotated[bool, about_training("--pretrained", help="Begin with torchvision's weights, not at random.")]

DEFAULT_SEGMENTER = "lraspp_mobilenet_v3_large"


@dataclass(frozen=True)
class Wanted:
    """The network that was asked for."""

    task: "TaskName"
    model: str
    image_size: int | None
    amp: bool
    pretrained: bool

    @property
    def score(self) -> str:
        """What it is judged by."""
        return "accuracy" if self.task == "classification" else "mean IoU"

    def conditions(self, side: int) -> str:
        """What the line of the protocol says of it besides its name."""
        return f", images of {side} x {side}" + ", bfloat16" * self.amp + ", pretrained" * self.pretrained


def read_network(task: str, model: str | None, image_size: int | None, amp: bool, pretrained: bool) -> Wanted | None:
    """The network that the options name; None for a proxy. Raises `EvolossError`."""
    if task == "segmentation":
        return Wanted("segmentation", model or DEFAULT_SEGMENTER, image_size, amp, pretrained)
    if task != "classification":
        raise EvolossError(f"--task should be classification or segmentation, not `{task}`")
    if model is not None:
        return Wanted("classification", model, image_size, amp, pretrained)
    for option, value in (("--image-size", image_size), ("--amp", amp), ("--pretrained", pretrained)):
        if value:
            raise EvolossError(f"{option} is for networks of torchvision: name one with --model, such as resnet18")
    return None


def refuse(options: dict[str, object]) -> None:
    """Raise `EvolossError` where an option is set that only proxies have."""
    for option, value in options.items():
        if value is not None:
            raise EvolossError(
                f"{option} is for proxies, a network of torchvision trains in this process: leave it out"
            )


def judged(asked: "Asked", wanted: Wanted) -> "tuple[Comparison, list[Judgement], str]":
    """The formula beside cross-entropy on a network of torchvision, by the rules of every contest, in this process.

    With what the line of the protocol says of the network besides its name.
    """
    from evoloss import comparison
    from evoloss.directory import record_look
    from evoloss.expression import Expression
    from evoloss.playoff import sweep_of
    from evoloss.vision import networks, workbench

    networks.check(wanted.model, wanted.task)
    loaded, side = workbench.load(asked.spec, wanted.task, wanted.image_size)
    comparison.check_samples(asked.changes["samples"], loaded)
    own = asked.space.rungs.get(wanted.model)
    sweep = sweep_of(own) if own else workbench.sweep(wanted.task, loaded)
    rungs = comparison.changed(sweep, asked.changes, [asked.optimizer], asked.rates)
    config = comparison.configured(asked.spec, loaded, wanted.model, asked.losses, rungs, asked.seeds, asked.device)
    batch_size = rungs[asked.optimizer].batch_size
    design = networks.Design(wanted.model, wanted.task, loaded.num_classes, side, wanted.amp, wanted.pretrained)
    bench = workbench.prepare(loaded, design, asked.device, batch_size)
    bench.check(Expression(asked.text))
    if caution := bench.caution(rungs[asked.optimizer]):
        print(f"evoloss: {caution}", file=sys.stderr)
    if asked.run:
        record_look(asked.run, asked.spec.name, 1)
    due = config.contests()[0].trainings
    with interruptible("nothing was kept"), _watched(bench, due, asked.as_json) as evaluate:
        return config, comparison.answered(config, evaluate), wanted.conditions(side)


@contextlib.contextmanager
def _watched(bench: "Bench", due: int, silent: bool) -> "Iterator[Callable[[Iterable[Job]], dict[Job, Evaluation]]]":
    """The bench as a function of jobs that shows two bars: of the trainings, and of the steps of this one.

    Nothing is shown where standard error is no terminal, or if `silent`.
    """
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = silent or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as bar:
        trainings = bar.add_task("trainings", total=due)
        steps = bar.add_task("screening", total=None)
        watched = replace(bench, tick=lambda step, total: bar.update(steps, completed=step, total=total))

        def evaluate(jobs: "Iterable[Job]") -> "dict[Job, Evaluation]":
            answers: dict[Job, Evaluation] = {}
            for job in dict.fromkeys(jobs):
                bar.update(steps, description=_described(job), completed=0)
                answers[job] = watched.answer(job)
                if job.task == "train":
                    bar.advance(trainings)
                    bar.update(trainings, total=max(due, bar.tasks[trainings].completed))  # a sweep may go on
            return answers

        yield evaluate


def _described(job: "Job") -> str:
    from rich.markup import escape

    words = "screening" if job.budget is None else f"steps at {job.budget.learning_rate:g}:"
    return escape(f"{words} {job.expression[:40]}")
