import dataclasses
import io
import time
from collections import Counter

import pytest
from rich.console import Console

from evoloss import view
from evoloss.records import Candidate, Generation
from evoloss.search import Progress

ROW = Generation(2, 20, 5, 4, 3, 0, 0.91234, 0.9, "cls(-y*log(p))", 0.9, None, 12.0)


def progress(**changes):
    best = Candidate("k", "cls(exp(-p*y))", 6, "classification", scores={0: 0.9, 1: 0.92})
    ce = Candidate("c", "cls(-y*log(p))", 7, "classification", name="ce", scores={0: 0.9})
    values = {
        "generations": 4,
        "started": time.monotonic() - 100,
        "generation": 2,
        "phase": "rung 2 of 2",
        "done": 3,
        "due": 12,
        "trained": 50,
        "cached": 7,
        "rejected": Counter({"learns": 12, "flat": 1}),
        "best": best,
        "references": {"ce": ce},
    }
    return Progress(**(values | changes))


def picture(state):
    output = io.StringIO()
    Console(file=output, width=100).print(view._Picture(state))
    return output.getvalue()


def test_the_live_view_says_where_the_search_stands():
    shown = picture(progress())
    for part in ("generation 2 of 4", "left", "rung 2 of 2: 3 of 12", "30 a minute", "7", "learns 12, flat 1"):
        assert part in shown
    assert "0.9100  2 seeds  cls(exp(-p*y))" in shown
    assert "0.9000  1 seed   cls(-y*log(p))" in shown


def test_time_left_counts_what_this_session_did():
    """Half of generation 2's evaluations are there: 2.25 of 5 generations after 100 s, 0.25 of them in this session."""
    assert "about 2 min 02 s left" in picture(progress(done=6))
    assert "left" not in picture(progress(done=6, first=2))
    assert "about 8 min 20 s left" in picture(progress(generation=3, done=0, first=2, generations=7))


def test_gains_have_their_sign(capsys):
    row = dataclasses.replace(ROW, best_fitness=0.0123, ce_fitness=0.0, ngl_fitness=-0.004)
    with view.watching("lines", Console()) as watch:
        watch(progress(finished=row, gains=True))
    assert "best gain +0.0123 (cross-entropy +0.0000, NGL -0.0040) cls(-y*log(p))" in capsys.readouterr().out
    assert "+0.9100  2 seeds" in picture(progress(gains=True))
    assert (view.score(None, True), view.score(-0.5, True), view.score(0.5)) == ("-", "-0.5000", "0.5000")


def test_trainings_from_a_cache_are_told_where_there_are_any(capsys):
    assert "from the cache" not in picture(progress())
    assert "from the cache  17" in picture(progress(shared=17))
    told = {"lines": "4 duplicates, 17 trainings so far from the cache, best", "json": '"shared": 17'}
    for style, shown in told.items():
        with view.watching(style, Console()) as watch:
            watch(progress(shared=17, finished=ROW))
        assert shown in capsys.readouterr().out


def test_the_live_view_before_anything_is_known():
    shown = picture(progress(generation=0, done=0, due=0, trained=0, best=None, references={}, rejected=Counter()))
    assert "generation 0 of 4" in shown
    assert "best" not in shown


def test_the_live_view_in_a_terminal():
    output = io.StringIO()
    with view.watching("live", Console(file=output, force_terminal=True, width=100)) as watch:
        watch(progress())
    assert "rung 2 of 2" in output.getvalue()


def test_plain_lines_and_silence(capsys):
    for style, shown in (("lines", "generation 2/4: 20 evaluated"), ("json", '"best_fitness": 0.91234'), ("quiet", "")):
        with view.watching(style, Console()) as watch:
            watch(progress())
            assert capsys.readouterr().out == ""
            watch(progress(finished=ROW))
        assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.4, "12 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min")]
)
def test_durations(seconds, text):
    assert view.duration(seconds) == text


def test_styles(monkeypatch):
    assert view.style_for(True, False) == "quiet"
    assert view.style_for(True, True) == view.style_for(False, True) == "json"
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert view.style_for(False, False) == "lines"


def test_a_search_that_has_ended_is_whole():
    shown = picture(progress(ended=True, generation=4, phase="ended", done=0, due=0))
    assert "generation 4 of 4 " + "\u2501" * 30 in shown
    assert "ended" in shown
    assert "0 of 0" not in shown
    assert "left" not in shown
