"""`evoloss replay`: is a number of the hall of fame what a training comes to?"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from evoloss.cli.options import AsJson, DataDir, Device, about_machine, read_backend, read_device
from evoloss.cli.printing import counting, interruptible
from evoloss.errors import EvolossError
from evoloss.tables import print_table

if TYPE_CHECKING:
    from evoloss.replay import Repeat
    from evoloss.tokens import Token

Processes = Annotated[int, about_machine(min=0, help="Worker processes; 0, the default, trains in this process.")]


def replay(
    token: Annotated[str, typer.Argument(metavar="TOKEN|RUN#RANK", help="A cell of the column `token`, or its row.")],
    data_dir: DataDir = None,
    workers: Processes = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a loss of a hall of fame again and confirm its select accuracies to the last image, or exit with 1."""
    from evoloss import data, replay, tokens

    read = tokens.read(_of_row(token) if "#" in token else token)
    place = read_device(device)
    loaded = data.load(read.data(data_dir))
    with interruptible("nothing was kept"), counting(len(read.scores), as_json) as tick:
        repeats = replay.replay(read, loaded, place, tick, read_backend(workers, None, None))
    changed = replay.changed(read, loaded, place)
    confirmed = all(repeat.same for repeat in repeats)
    if as_json:
        rows = [asdict(repeat) for repeat in repeats]
        print(json.dumps({"confirmed": confirmed, "trainings": rows, "differs": changed, "token": read.model_dump()}))
    else:
        _print(read, repeats, replay.scored(read, loaded))
    if not confirmed:
        raise EvolossError(_denied(repeats, changed))
    if not as_json:
        what = "all trainings" if len(repeats) > 1 else "the training"
        print(f"confirmed: {what} to the last image{_although(changed)}")


def _of_row(text: str) -> str:
    """The token of a row of a hall of fame."""
    from evoloss.formula import find

    found = find(text).found
    if found is None or not found.row.get("token"):
        raise EvolossError(
            f"`{text}` has no token: its table is older than tokens, or the loss has no score; "
            "`evoloss resume RUN`, where the archive of the run is, writes the tables anew"
        )
    return found.row["token"]


def _print(token: "Token", repeats: "list[Repeat]", images: int) -> None:
    rung = token.rung
    budget = f"{rung.extent}, {rung.optimizer} at {rung.rates[0]:g}"
    print(token.expression)
    print(f"{token.dataset}, {token.proxy}, {budget}, scale {token.scale:g}; {images:,} select images")
    rows = [
        [
            str(repeat.number),
            _right(repeat.then, images),
            repeat.detail if repeat.now is None else _right(repeat.now, images),
            "the same" if repeat.same else "differs",
        ]
        for repeat in repeats
    ]
    print_table(("seed", "right then", "right now", ""), rows)


def _right(share: float, images: int) -> str:
    """`8613 (0.8613)`: the share tells the count, which is whole."""
    return f"{round(share * images):,} ({share:.6g})"


def _although(changed: list[str]) -> str:
    return f", although these differ: {'; '.join(changed)}" if changed else ""


def _denied(repeats: "list[Repeat]", changed: list[str]) -> str:
    wrong = sum(not repeat.same for repeat in repeats)
    cause = f"; what differs: {'; '.join(changed)}" if changed else "; nothing that the token knows of differs"
    return f"not confirmed: {wrong} of {len(repeats)} trainings end otherwise{cause}"
