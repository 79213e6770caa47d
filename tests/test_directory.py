import json
import logging
import sqlite3

import pytest

from evoloss import directory
from evoloss.errors import EvolossError


@pytest.fixture
def made(tmp_path):
    directory.create(tmp_path / "run", "run.toml", "a = 1\n", "cpu")
    return tmp_path / "run"


def environment(path):
    return json.loads((path / "environment.json").read_text())


def test_a_directory_is_made_once(made):
    assert (made / "run.toml").read_text() == "a = 1\n"
    with pytest.raises(EvolossError, match="exists: choose another --out, or continue it with `evoloss resume"):
        directory.create(made, "run.toml", "a = 2\n", "cpu")
    assert (made / "run.toml").read_text() == "a = 1\n"


def test_a_directory_that_cannot_be_finished_is_not_there(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory, "_write_environment", full)
    with pytest.raises(EvolossError, match=r"cannot make the directory .*run: No space left"):
        directory.create(tmp_path / "run", "run.toml", "a = 1\n", "cpu")
    assert not list(tmp_path.iterdir())


def test_the_environment_has_what_a_reader_needs(made):
    found = environment(made)
    assert {"started", "commit", "versions", "machine", "device", "looks"} == set(found)
    assert {"evoloss", "torch", "ray", "python"} <= set(found["versions"])
    assert found["looks"] == []


def test_every_look_at_a_test_split_is_recorded(made, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evoloss", "compare", "--losses", "ce"])
    directory.record_look(made, "digits", 3)
    directory.record_look(made, "mnist", 1)
    first, second = environment(made)["looks"]
    assert (first["command"], first["dataset"], first["losses"]) == ("evoloss compare --losses ce", "digits", 3)
    assert (second["dataset"], second["losses"]) == ("mnist", 1)
    assert first["when"] <= second["when"]


def test_which_data_is_recorded_once(made):
    directory.record_data(made, {"digits": "0123456789abcdef"})
    before = (made / "environment.json").stat().st_mtime_ns
    directory.record_data(made, {"digits": "0123456789abcdef"})
    assert (made / "environment.json").stat().st_mtime_ns == before
    assert directory.read_environment(made)["data"] == {"digits": "0123456789abcdef"}
    assert directory.read_environment(made)["looks"] == []


def test_a_look_that_cannot_be_recorded_is_refused(tmp_path):
    with pytest.raises(EvolossError, match="cannot record the look"):
        directory.record_look(tmp_path, "digits", 1)


def test_one_process_at_a_time(made):
    with directory.in_use(made):
        with pytest.raises(EvolossError, match="another process is working on"), directory.in_use(made):
            pass
        logging.getLogger("evoloss").info("hello")
    assert "hello" in (made / "log.txt").read_text()
    with directory.in_use(made):
        pass


def test_a_full_disk_or_a_damaged_archive_is_one_line(made):
    for error in (sqlite3.DatabaseError("database disk image is malformed"), OSError(28, "No space left on device")):
        with pytest.raises(EvolossError, match="cannot go on with"), directory.in_use(made):
            raise error


def test_another_versions_directory_is_not_carried_on(made):
    with pytest.raises(EvolossError, match=r"was made by evoloss 0\.0\.1"):
        directory.check_version(made, "0.0.1")
