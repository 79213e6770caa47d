"""What the documents show is what happens."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from evoloss import cli

ROOT = Path(__file__).parent.parent
PATHS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = {path.name: path.read_text(encoding="utf-8") for path in PATHS}
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", "\n".join(DOCUMENTS.values()), re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^(?:\$ )?evoloss (.*?)(?:  +#.*)?$", "".join(text for _, text in BLOCKS), re.MULTILINE)


GUIDE = DOCUMENTS["guide.md"]


def test_the_python_examples_run():
    examples = [text for language, text in BLOCKS if language == "python" and text not in GUIDE]
    assert examples
    for text in examples:
        exec(compile(text, "document", "exec"), {})


@pytest.mark.timeout(900)
def test_the_guide_can_be_followed_word_by_word(tmp_path):
    """Its commands and examples, in their order, in an empty directory, each in a process of its own."""
    steps = re.findall(r"^```(console|python)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(steps) > 8
    for language, text in steps:
        if language == "python":
            command = [sys.executable, "-c", text]
        else:
            command = [sys.executable, "-m", "evoloss", *shlex.split(text.removeprefix("$ evoloss "))]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}{done.stderr}"
    checked = subprocess.run([sys.executable, "test_loss.py"], cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_the_failing_example_fails_as_shown(run_cli):
    (shown,) = [text for language, text in BLOCKS if language == "console" and "log(P)" in text]
    command, _, output = shown.partition("\n")
    code, _, err = run_cli(*shlex.split(command)[2:])
    assert code == 1
    assert err == output


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_has_these_options(line):
    """Parsed as typer parses it, without being run."""
    import typer

    words = shlex.split(line.partition(" | ")[0])
    command = typer.main.get_command(cli.app).commands[words[0]]
    with command.make_context(words[0], words[1:]) as context:
        assert context.params
    assert COMMANDS


def test_the_tree_lists_every_module():
    package = Path(cli.__file__).parent.parent
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py", "__main__.py", "errors.py"}
    modules |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+(?:\.py|/)) ", DOCUMENTS["README.md"], re.MULTILINE)) == modules


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    """Files of the repository; runs that are not in a source distribution are left out there."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", DOCUMENTS[path.name])
    assert [link for link in links if not (path.parent / link).exists()] == []
