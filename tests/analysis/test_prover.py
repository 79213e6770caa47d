import time

from evoloss.analysis.prover import MOST_LATE, Prover
from evoloss.syntax import read

FALLS = ("falls", read("-log(p)")[1], {"p": (0.0, 1.0)}, "p")
ENDLESS = ("bounded", ("pow", 9.0, ("pow", 9.0, ("pow", 9.0, 9.0))), {"p": (0.0, 1.0)})


def endless(number):
    claim, formula, domain = ENDLESS
    return claim, ("add", formula, float(number)), domain


def test_answers_come_and_go_as_plain_data(prover):
    assert prover.ask(*FALLS) is True
    answer = prover.ask("bounded", read("softplus(z)")[1], {"z": (-float("inf"), float("inf"))})
    assert (answer["bounded"], answer["end"]) == (False, float("inf"))


def test_a_proof_that_never_ends_is_ended_and_the_next_one_is_answered():
    with Prover(seconds=1) as prover:
        assert prover.ask(*FALLS) is True  # the process has started
        begun = time.monotonic()
        assert prover.ask(*endless(0)) is None
        assert time.monotonic() - begun < 60
        assert prover.ask(*FALLS) is True
        assert prover.ask("falls", read("log(p)")[1], {"p": (0.0, 1.0)}, "p") is None


def test_after_some_that_never_end_no_more_are_asked():
    with Prover(seconds=0.5) as prover:
        for number in range(MOST_LATE):
            assert prover.ask(*endless(number)) is None
        assert prover.late == MOST_LATE
        assert prover._process is None
        assert prover.ask(*FALLS) is None


def test_a_process_that_dies_is_replaced():
    with Prover() as prover:
        assert prover.ask(*FALLS) is True
        prover._process.kill()
        prover._process.wait()
        assert prover.ask("falls", read("-p")[1], {"p": (0.0, 1.0)}, "p") is None
        assert prover.ask("falls", read("-2*p")[1], {"p": (0.0, 1.0)}, "p") is True


def test_no_process_is_left():
    with Prover() as prover:
        process = prover._process
    assert process.poll() is not None
