import sys
from itertools import islice

import pytest
import torch

from benchmarks import screens
from benchmarks.false_merges import formulas
from evoloss.report import read_table

torch.set_num_threads(1)


def test_both_are_timed():
    whole, descent = screens.milliseconds(list(islice(formulas(), 12)), 4)
    assert whole > 0
    assert descent > 0


def test_the_table_has_a_row_a_size(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(screens, "milliseconds", lambda bred, size: [len(bred) / size, 1.0])
    monkeypatch.setattr(sys, "argv", ["screens", str(tmp_path / "screens.csv")])
    screens.main()
    rows = read_table(tmp_path / "screens.csv")
    assert [(int(row["together"]), float(row["screens_ms"])) for row in rows] == [
        (size, pytest.approx(screens.FORMULAS / size)) for size in screens.SIZES
    ]
    assert capsys.readouterr().out.splitlines()[0].split() == list(screens.COLUMNS)
