import signal
import threading

import pytest

from evoloss import limits
from evoloss.errors import EvolossError
from evoloss.limits import processor_time


def work(steps):
    return sum(range(steps))


def work_for_ever():
    while True:
        work(1000)


def test_what_takes_too_long_is_stopped_and_the_handler_is_as_it_was():
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(TimeoutError), processor_time(0.01):
        work_for_ever()
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_what_ends_in_time_is_left_alone():
    with processor_time(60):
        assert work(1000) == 499_500
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_an_error_inside_is_passed_on():
    with pytest.raises(KeyError), processor_time(60):
        raise KeyError
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_another_thread_has_no_limit():
    done = []

    def target():
        with processor_time(1e-6):
            done.append(work(300_000))

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    assert len(done) == 1


@pytest.mark.parametrize(
    ("total", "cores", "share"),
    [(64, 2, 32), (64, 64, 8), (512, 64, 8), (1024, 64, 16), (12, 8, 6), (4, 4, 2)],
)
def test_the_share_of_a_worker(total, cores, share, monkeypatch):
    monkeypatch.delenv("EVOLOSS_MEMORY", raising=False)
    monkeypatch.setattr(limits, "total_memory", lambda: total * limits.GIB)
    monkeypatch.setattr(limits, "cores", lambda: cores)
    assert limits.worker_share() == share * limits.GIB


def test_the_user_names_the_share_of_a_worker(monkeypatch):
    monkeypatch.setenv("EVOLOSS_MEMORY", "1.5")
    assert limits.worker_share() == 1.5 * limits.GIB
    for text in ("", "much", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("EVOLOSS_MEMORY", text)
        with pytest.raises(EvolossError, match="GiB that a worker may take, such as 4"):
            limits.worker_share()
