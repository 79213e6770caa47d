"""`report.html`: a run as one page that opens without a network, with all that it needs inside."""

import base64
import functools
import gzip
import shlex
from pathlib import Path
from typing import Any

from evoloss.config import RunConfig
from evoloss.errors import EvolossError
from evoloss.evidence import noise_ceiling
from evoloss.expression import Expression
from evoloss.files import replace_file
from evoloss.page.facts import Facts
from evoloss.page.figures import FIGURES, Figure, measure
from evoloss.page.sheets import TABLES
from evoloss.page.verdict import verdict
from evoloss.playoff import together
from evoloss.syntax import ExpressionError
from evoloss.view import duration

PAGE = "report.html"
MARK = '<meta name="generator" content="evoloss">'  # in the first lines of every page
TEMPLATES = Path(__file__).parent / "templates"


def write(facts: Facts, to: Path | None = None) -> Path:
    """Write the page of a run into its directory, or to another file.

    Raises `EvolossError` where no generation has finished, and where the file is something else: then it stays.
    """
    path = to or facts.directory / PAGE
    if path.is_dir() or (path.exists() and not _is_page(path)):
        raise EvolossError(f"{path} exists and is no report of evoloss: choose another --to")
    text = rendered(facts)
    try:
        replace_file(path, text)
    except OSError as error:
        raise EvolossError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _is_page(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as handle:
            return MARK in handle.read(500)
    except OSError as error:
        raise EvolossError(f"cannot read {path}: {error.strerror or error}") from None


def rendered(facts: Facts) -> str:
    """The page as text. Raises `EvolossError` where no generation has finished."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if not facts.generations:
        raise EvolossError(f"nothing to report of {facts.directory} yet: its first generation has not finished")
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    jinja.filters["formula"] = _formula
    jinja.filters["duration"] = duration
    figures = {name: figure for name, draw in FIGURES.items() if (figure := draw(facts))}
    return jinja.get_template("report.html").render(
        facts=facts,
        verdict=verdict(facts),
        figures=figures,
        plotly=_plotly(),
        measure=measure(facts),
        tables={name: table for name, build in TABLES.items() if (table := build(facts))},
        command=command(facts.config),
        settings=facts.config.toml(),
        environment=_environment(facts),
        notes=_notes(facts, figures),
    )


@functools.cache
def _plotly() -> str:
    """plotly.js, 4.8 MB, packed to 1.9: every browser since 2023 unpacks it."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _formula(text: str) -> Any:
    """A formula typeset, with its text below it; only the text where it cannot be read."""
    from markupsafe import Markup

    code = Markup("<code>{}</code>").format(text)
    try:
        return Markup(Expression(text).mathml) + code  # of names of the language and digits alone
    except ExpressionError:
        return code


def _notes(facts: Facts, figures: dict[str, Figure]) -> dict[str, str]:
    """What a reader has to know beside a figure or table, by section."""
    notes = {"playoff": "", "formulas": "", "curves": ""}
    drawn = [trace["name"] for trace in (figures["loss"]["data"] if "loss" in figures else [])]
    if drawn and "best loss" not in drawn:
        notes["curves"] = "The best loss sees no probability: it has a curve over the distance alone."
    home = facts.home()
    seeds = max((len(j.standing.test) for j in home), default=0)
    ceiling = noise_ceiling(home, sum(j.gap is not None for j in home), seeds) if seeds else None
    parts = [f"Means over {', '.join(regimes)}." for regimes in [together(facts.judged)] if home and regimes]
    if ceiling is not None:
        parts.append(
            f"By luck alone the best of so many losses, all equal to cross-entropy, would show {ceiling:+.4f}."
        )
    if any(j.standing.at_edge for j in home):
        edge = ", ".join(j.standing.name or j.standing.expression for j in home if j.standing.at_edge)
        parts.append(f"At the edge of the sweep, where a wider one might do better: {edge}.")
    parts += [f"{j.standing.name or j.standing.expression}: {j.standing.detail}." for j in home if j.standing.detail]
    notes["playoff"] = " ".join(parts)
    met = len(facts.candidates)
    if met:
        known, twins = (sum(getattr(row, part) for row in facts.generations) for part in ("cached", "duplicates"))
        notes["formulas"] = (
            f"{met:,} different formulas were screened. {twins:,} had the gradients, or on three seeds the scores, of "
            f"a loss that was known; {known:,} times a formula was bred that had been met before and cost nothing."
        )
    return notes


def command(config: RunConfig) -> str:
    """The command that makes the run again; what is as by default is left out, but for what decides the most."""
    words = ["evoloss", "search"]
    for name, option in _OPTIONS.items():
        value = getattr(config, name)
        if name in _ALWAYS or value != type(config).model_fields[name].default:
            words += [option, ",".join(value) if isinstance(value, tuple) else f"{value}"]
    words += [word for text in config.seed_expressions for word in ("--seed-expr", text)]
    words += ["--playoff-seeds", str(config.space.playoff.seeds)] if config.playoff else ["--no-playoff"]
    return shlex.join(words)


def _environment(facts: Facts) -> list[tuple[str, str]]:
    """What the run was made with and on, as lines."""
    found = facts.environment
    versions = found.get("versions") or {}
    lines = [
        ("run directory", str(facts.directory)),
        ("started", str(found.get("started", ""))),
        ("commit", str(found.get("commit") or "")),
        ("machine", str(found.get("machine", ""))),
        ("device", str(found.get("device", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    looks = found.get("looks") or []
    lines += [("look at a test split", ", ".join(str(look.get(part, "")) for part in _LOOK)) for look in looks]
    return [(name, text) for name, text in lines if text] + ([] if looks else [("looks at a test split", "none")])


_LOOK = ("when", "dataset", "command")
_ALWAYS = ("dataset", "space_name", "seed", "generations", "population")
_OPTIONS = {
    "dataset": "--dataset",
    "space_name": "--space",
    "seed": "--seed",
    "generations": "--generations",
    "population": "--population",
    "proxy": "--proxy",
    "strategy": "--strategy",
    "selection": "--selection",
    "regimes": "--regimes",
    "samples": "--samples",
    "label_noise": "--label-noise",
    "imbalance": "--imbalance",
    "top": "--top",
}
