import os
from pathlib import Path

import pytest

from evoloss.records import DataSpec

REAL_DATA = os.environ.get("EVOLOSS_DATA")


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    from evoloss import data

    return data.load(DataSpec("digits"), ("train", "select", "test"))


@pytest.fixture
def run_cli(monkeypatch, capsys):
    """Run the command line in this process: `run_cli("evaluate", "--expr", ...)` gives (exit code, stdout, stderr)."""
    from evoloss import cli

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["evoloss", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def committed_run():
    """The Fashion-MNIST run that the repository brings."""
    return Path(__file__).parent.parent / "runs" / "fashion-mnist-hybrid-0"


@pytest.fixture(scope="session")
def prover():
    """One process for the proofs of all tests."""
    from evoloss.analysis.prover import Prover

    with Prover(seconds=20) as process:
        yield process
