import struct
import sys
import types
from contextlib import contextmanager

import pytest
import stubs

from evoloss import sinks
from evoloss.errors import EvolossError
from evoloss.evidence import judge
from evoloss.records import Generation, Standing
from evoloss.search import Progress

ROW = Generation(3, 20, 5, 4, 3, 1, 0.91, None, "cls(exp(-p*y))", 0.9, None, 12.5)
FIGURES = {
    "fitness/best": 0.91,
    "fitness/ce": 0.9,
    "formulas/evaluated": 20.0,
    "formulas/cached": 5.0,
    "formulas/duplicates": 4.0,
    "formulas/rejected": 3.0,
    "formulas/diverged": 1.0,
    "seconds": 12.5,
}


def events(path):
    """The events of a TFRecord file: length, its checksum, the bytes, their checksum (tensorflow.org/tutorials)."""
    from tensorboardX.proto.event_pb2 import Event

    data, place = path.read_bytes(), 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        yield Event.FromString(data[place + 12 : place + 12 + length])
        place += 12 + length + 4


def scalars(directory):
    found = {}
    for path in sorted(directory.glob("events.*")):
        for event in events(path):
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found[value.tag, event.step] = value.simple_value
    return found


def test_a_generation_as_figures():
    assert sinks.of_generation(ROW) == (FIGURES, {"best": "cls(exp(-p*y))"})


def test_a_playoff_as_figures():
    ce = Standing("search", "k", "cls(-y*log(p))", "ce", test=(0.8, 0.81))
    found = Standing("search", "f", "cls(y/p)", test=(0.82, 0.85))
    figures, texts = sinks.of_playoff({"search": judge([ce, found], "k")})
    assert figures.keys() == {f"playoff/evolved-1/minus-ce{end}" for end in ("", "-low", "-high")}
    assert figures["playoff/evolved-1/minus-ce"] == pytest.approx(0.03)
    assert texts == {
        "playoff/evolved-1": "cls(y/p): not distinguishable",
        "playoff/ce": "cls(-y*log(p)): reference",
    }
    assert sinks.of_playoff({}) == ({}, {})


def test_tensorboard_event_files(tmp_path):
    with sinks.opened(["tensorboard"], tmp_path, stubs.config()) as logs:
        watched = []
        watch = sinks.feeding(watched.append, logs)
        progress = Progress(5, 0.0)
        watch(progress)
        progress.finished = ROW
        watch(progress)
    assert watched == [progress, progress]
    assert scalars(tmp_path / "tensorboard") == {(name, 3): pytest.approx(value) for name, value in FIGURES.items()}


def test_a_search_writes_event_files(run_cli, tmp_path):
    run = tmp_path / "run"
    options = ("--space", "smoke", "--workers", "0", "--population", "8", "--quiet")
    code, _, err = run_cli("search", *options, "--generations", "1", "--no-playoff", "--tensorboard", "--out", run)
    assert (code, err) == (0, "")
    assert {step for name, step in scalars(run / "tensorboard") if name == "fitness/best"} == {0, 1}


@pytest.fixture
def fakes(monkeypatch):
    """Modules that note what they are asked, in place of mlflow and wandb, with the calls of their documentation."""
    calls = []

    def noting(name):
        return lambda *arguments, **options: calls.append((name, arguments, options))

    @contextmanager
    def opened(name, run, options):
        calls.append((name, (), options))
        yield run
        calls.append((f"{name} ended", (), {}))

    mlflow = types.ModuleType("mlflow")
    for name in ("set_experiment", "log_params", "log_metrics", "set_tags", "log_artifact"):
        setattr(mlflow, name, noting(name))
    mlflow.start_run = lambda **options: opened("start_run", None, options)
    wandb = types.ModuleType("wandb")
    run = types.SimpleNamespace(log=noting("log"), save=noting("save"))
    wandb.init = lambda **options: opened("init", run, options)
    for module in (mlflow, wandb):
        module.__spec__ = types.SimpleNamespace(name=module.__name__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_mlflow_gets_the_same_records(fakes, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    (tmp_path / "report.html").write_text("")
    sinks.check(["mlflow", "wandb"])
    with sinks.opened(["mlflow"], tmp_path, stubs.config(seed=7)) as (log,):
        log(3, *sinks.of_generation(ROW))
    names = [name for name, _, _ in fakes]
    expected = [
        "set_experiment",
        "start_run",
        "log_params",
        "log_metrics",
        "set_tags",
        "log_artifact",
        "start_run ended",
    ]
    assert names == expected
    assert fakes[1][2] == {"run_name": tmp_path.name}
    assert fakes[2][1][0]["seed"] == 7
    assert fakes[3][1:] == ((FIGURES,), {"step": 3})
    assert fakes[5][1] == (str(tmp_path / "report.html"),)


def test_wandb_gets_the_same_records(fakes, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with sinks.opened(["wandb"], tmp_path, stubs.config()) as (log,):
        log(3, *sinks.of_generation(ROW))
    assert [name for name, _, _ in fakes] == ["init", "log", "init ended"]
    assert fakes[0][2]["project"] == "mine"
    assert fakes[1][1:] == (({**FIGURES, "best": "cls(exp(-p*y))"},), {"step": 3})


def test_a_sink_that_fails_is_left_out_and_the_search_goes_on(fakes, tmp_path, caplog):
    def broken(*_, **__):
        raise ConnectionError("no network")

    sys.modules["mlflow"].log_metrics = broken
    with sinks.opened(["mlflow", "wandb"], tmp_path, stubs.config()) as logs:
        for step in (1, 2):
            for log in logs:
                log(step, {"a": 1.0}, {})
    assert [record.message for record in caplog.records] == [
        "mlflow gets nothing more of this search: ConnectionError: no network"
    ]
    assert [name for name, _, _ in fakes].count("log") == 2


def test_a_sink_that_cannot_be_opened(fakes, tmp_path):
    def broken(**_):
        raise PermissionError("not logged in")

    sys.modules["wandb"].init = broken
    with pytest.raises(EvolossError, match="--wandb cannot begin: PermissionError: not logged in; go on without it"):
        sinks.opened(["wandb"], tmp_path, stubs.config()).__enter__()


def test_a_sink_that_cannot_be_closed_ends_no_search(fakes, tmp_path, caplog):
    (tmp_path / "report.html").write_text("")
    sys.modules["mlflow"].log_artifact = lambda path: 1 / 0
    with sinks.opened(["mlflow"], tmp_path, stubs.config()):
        pass
    assert [record.message for record in caplog.records] == [
        "mlflow was not closed: ZeroDivisionError: division by zero"
    ]
    with pytest.raises(KeyboardInterrupt), sinks.opened(["wandb"], tmp_path, stubs.config()):
        raise KeyboardInterrupt


def test_a_package_that_is_missing_is_told_before_anything_is_made(run_cli, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run_cli("search", "--mlflow", "--out", tmp_path / "run")
    assert code == 1
    assert err == "evoloss: --mlflow needs the package mlflow: pip install 'evoloss[mlflow]', or leave it out\n"
    assert not (tmp_path / "run").exists()


def test_a_control_has_no_sinks(run_cli, tmp_path):
    code, _, err = run_cli("search", "--with-control", "--tensorboard", "--out", tmp_path / "run")
    assert (code, err) == (1, "evoloss: --tensorboard follows one search: leave it out with --with-control\n")
