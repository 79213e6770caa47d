import re

from evoloss.tables import print_table

COLUMNS, ROWS = ("name", "formula"), [["ce", "cls(-y*log(p))"], ["[bold]x", "cls(" + "p + " * 40 + "y)"]]


def test_aligned_lines_where_there_is_no_terminal(capsys):
    print_table(COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["name     formula", "ce       cls(-y*log(p))"]
    assert lines[2] == f"[bold]x  {ROWS[1][1]}"


def test_long_cells_fold_in_a_terminal_and_nothing_is_markup(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    print_table(COLUMNS, ROWS)
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, out.splitlines())) <= 60
    assert "[bold]x" in out
    assert out.count("p +") == 40
