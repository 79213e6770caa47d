import re

from evoloss import machine


def test_there_is_a_core_and_a_processor():
    assert machine.cores() >= 1
    assert machine.processor()


def test_the_processor_of_a_machine_that_does_not_say(monkeypatch):
    monkeypatch.setattr(machine.Path, "read_text", lambda *_: "flags: none\n")
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    assert machine.processor() == "unknown processor"


def test_the_commit_of_a_checkout_and_of_an_installation(monkeypatch, tmp_path):
    found = machine.commit()
    assert found is None or re.fullmatch(r"[\w.-]+(-dirty)?", found)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert machine.commit() is None


def test_the_memory_is_the_containers_where_that_is_less(monkeypatch):
    total = machine.memory()
    assert total > 2**28
    monkeypatch.setattr(machine.Path, "read_text", lambda _: "1073741824\n")
    assert machine.memory() == 2**30
    for no_limit in ("max\n", str(2**60)):
        monkeypatch.setattr(machine.Path, "read_text", lambda _, text=no_limit: text)
        assert machine.memory() >= total
