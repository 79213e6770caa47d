"""The short form of `benchmarks.leaks`, in a process of its own, and that it sees what it is for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import leaks
from benchmarks.leaks import Reading

# Of each training: the weights of a proxy of 20,000 numbers with their gradients and moments, and a file.
LEAKS = {"nothing": "pass", "memory and files": "hoard.append((bytearray(os.urandom(4_000) * 80), open(os.devnull)))"}
PROGRAM = """
import os, sys
from benchmarks import leaks
from evoloss import evaluate
train, hoard = evaluate._train_stack, []

def leaking(batch, workbench):
    for _ in batch:
        {leak}
    return train(batch, workbench)

evaluate._train_stack = leaking
sys.argv = ["leaks", "--evaluations", "400", "--workers", "0", "--bound", "0.03"]
leaks.main()
"""


@pytest.mark.timeout(900)  # ten seconds of a core, on a machine that may be busy
@pytest.mark.parametrize("leak", LEAKS)
def test_a_search_grows_only_where_something_leaks(tmp_path, leak):
    """Without a leak the memory grows by half a percent between 40 and 400 evaluations."""
    program = PROGRAM.format(leak=LEAKS[leak])
    environment = os.environ | {"PYTHONPATH": str(Path(leaks.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == (leak != "nothing"), done.stdout + done.stderr
    complaints = [line.split(" of the driver grew from ")[0] for line in done.stdout.splitlines()[2:]]
    assert complaints == ([] if leak == "nothing" else ["the memory", "the open files"])
    assert len((tmp_path / "leaks.csv").read_text().splitlines()) == leaks.READINGS + 1


def test_the_bound_is_a_tenth_more_than_after_the_first_tenth():
    def readings(memory, files):
        return [Reading("worker", 500 * place, *each) for place, each in enumerate(zip(memory, files, strict=True), 1)]

    flat = [12] * 10
    assert not leaks.complaints(readings([100, *[150] * 8, 110], flat))
    assert leaks.complaints(readings([100] * 9 + [110.5], flat)) == ["the memory of the worker grew from 100 to 110 MB"]
    assert leaks.complaints(readings([100] * 10, [*flat[:9], 13])) == [
        "the open files of the worker grew from 12 to 13"
    ]
