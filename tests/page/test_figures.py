import json
import re
from dataclasses import replace

import pytest
import stubs

from evoloss.page import facts
from evoloss.page.figures import FIGURES, HOVER_WIDTH, name_of, shown

COLOR = re.compile(r"--color-[a-z]+")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    return facts.read(stubs.run_directory(tmp_path_factory.mktemp("figures") / "run", seed=2))


def hovers(figure):
    return [text for trace in figure["data"] for text in trace.get("hovertext", ())]


@pytest.mark.parametrize("name", FIGURES)
def test_plotly_takes_every_figure(played, name):
    """Its own schema: an unknown property or a wrong type is an error."""
    from plotly.graph_objects import Figure

    figure = FIGURES[name](played)
    assert figure is not None
    text = json.dumps(figure, allow_nan=False)
    assert "--color-" in text
    assert Figure(json.loads(COLOR.sub("#123456", text))).data


@pytest.mark.parametrize("name", FIGURES)
def test_every_color_is_one_of_the_page(played, name):
    from evoloss.page.render import TEMPLATES

    style = (TEMPLATES / "report.css").read_text()
    for color in COLOR.findall(json.dumps(FIGURES[name](played))):
        assert style.count(f"{color}:") == 2  # light and dark


@pytest.mark.parametrize("name", FIGURES)
def test_a_run_without_an_archive_or_a_playoff_has_fewer(played, name):
    bare = replace(played, candidates=[], judged={}, costs=[], hall=[], baselines=[], front=[], without="gone")
    figure = FIGURES[name](bare)
    assert (figure is not None) == (name in ("generations", "work"))


def test_the_front_has_its_formulas_on_hover(played):
    front = FIGURES["pareto"](played)["data"][-1]
    assert front["name"] == "Pareto front"
    assert front["x"] == sorted(front["x"])
    assert [text.split("<br><b>")[0].replace("<br>", " ") for text in front["hovertext"]] == [
        f"{row['name']}: {row['expression']}" if row["name"] else row["expression"] for row in played.front
    ]


def test_a_loss_goes_by_its_name_or_its_rank():
    """Of the Pareto front, who is in the niche of a better one has no rank."""
    rows = [{"name": "ce", "rank": 3}, {"name": "", "rank": 2}, {"name": "", "rank": None}]
    assert [name_of(row) for row in rows] == ["ce", "#2", ""]


def test_every_loss_of_the_last_rung_is_a_dot_once(played):
    dots = [text for text in hovers(FIGURES["pareto"](played)) if "no score" not in text]
    last = max(candidate.rung for candidate in played.candidates)
    high = {c.key for c in played.candidates if c.fitness is not None and c.rung == last}
    named = {row["key"] for row in [*played.baselines, *played.front]}
    assert len(dots) == len(high - named) + sum(r["fitness"] is not None for r in played.baselines) + len(played.front)


def test_the_seeds_are_lines_over_the_generations(played):
    lines = {trace["name"]: trace for trace in FIGURES["generations"](played)["data"]}
    assert lines["best"]["y"] == [row.best_fitness for row in played.generations]
    assert lines["cross-entropy"]["y"] == [row.ce_fitness for row in played.generations]
    others = {row["name"] for row in played.baselines if row["fitness"] is not None} - {"ce", "ngl"}
    assert others <= lines.keys()


def test_the_forest_has_every_finalist_with_its_interval(played):
    found = {}
    for trace in FIGURES["forest"](played)["data"]:
        ends = zip(trace["error_x"]["arrayminus"], trace["error_x"]["array"], strict=True)
        for mean, text, (below, above) in zip(trace["x"], trace["hovertext"], ends, strict=True):
            found[text.split("<br><b>")[0].replace("<br>", " ")] = (mean, mean - below, mean + above)
    for row in played.finalists:
        if row["delta_ce"] is not None:
            ends = tuple(row[f"delta_ce{end}"] for end in ("", "_low", "_high"))
            assert found[row["expression"]] == pytest.approx(ends)


def test_all_formulas_are_in_the_bars(played):
    (bar,) = FIGURES["ends"](played)["data"]
    assert sum(bar["x"]) >= len(played.candidates)


def test_texts_from_strangers_have_no_markup():
    assert shown("<b>p</b> & <i>") == "&lt;b&gt;p&lt;/b&gt; &amp; &lt;i&gt;"
    assert shown("y*" * 60 + "p").replace("<br>", "") == "y*" * 60 + "p"
    assert max(map(len, shown("y*" * 60 + "p").split("<br>"))) == HOVER_WIDTH


def test_a_table_with_a_broken_formula_has_no_curve(played):
    hall = [row | {"expression": "<script>", "test_acc": None} for row in played.hall]
    baselines = [row | {"expression": "1 +", "test_acc": None} for row in played.baselines]
    broken = replace(played, hall=hall, baselines=baselines)
    assert FIGURES["loss"](broken) is None
    assert FIGURES["distance"](broken) is None
    assert all("<script>" not in text for text in hovers(FIGURES["pareto"](broken)))
