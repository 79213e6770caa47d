import pytest

from evoloss.baselines import BASELINES
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.formula import find
from evoloss.report import read_table


@pytest.mark.parametrize("name", BASELINES)
def test_a_name_of_the_library(name):
    formula = find(name)
    assert formula.expression == Expression.parse(BASELINES[name].expression)
    assert (formula.name, formula.baseline, formula.found, formula.scale) == (name, BASELINES[name], None, 1.0)


def test_a_formula():
    formula = find(" log(p)*(-y) ")
    assert (formula.expression.text, formula.name, formula.scale) == ("cls(-y*log(p))", "", 1.0)


def test_every_row_of_a_hall_of_fame(committed_run):
    rows = read_table(committed_run / "hall_of_fame.csv")
    for row in rows:
        formula = find(f"{committed_run}#{row['rank']}")
        assert formula.expression.text == row["expression"]
        assert formula.scale == float(row["scale"])
        assert (formula.found.run, formula.found.row, formula.found.config.dataset) == (
            committed_run,
            row,
            "fashion-mnist",
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("focl", "unknown loss `focl`, did you mean `focal`?: see `evoloss baselines`"),
        ("y*log(q)", "unknown name `q`"),
        ("{run}", "`{run}` is a run: say which of its losses, for instance `{run}#1` for the first"),
        ("{run}#21", "{run}/hall_of_fame.csv has no rank 21; it has 1, 2, 3"),
        ("{run}#best", "expected RUN#rank, such as runs/fashion-mnist-hybrid-0#1, not `{run}#best`"),
        ("#1", "expected RUN#rank"),
        ("nowhere#1", "cannot read nowhere/hall_of_fame.csv: No such file or directory"),
        ("", "the formula is empty"),
    ],
)
def test_what_names_no_loss(text, message, committed_run):
    with pytest.raises(EvolossError) as error:
        find(text.format(run=committed_run))
    assert str(error.value).startswith(message.format(run=committed_run))
