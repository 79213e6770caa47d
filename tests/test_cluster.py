"""A search over the machines of a cluster, which come and go. Each is one of its own as far as Ray can tell."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import chaos, nodes

PATIENCE = 200  # seconds
SEARCH = ("search", *chaos.SMALL, "--no-playoff", "--json")


@contextlib.contextmanager
def running(cluster, out):
    """A search on the head of the cluster."""
    command = [sys.executable, "-m", "evoloss", *SEARCH, "--address", cluster.address, "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(cluster.head.inside(*command), env=cluster.environment, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(900)  # Ray takes half a minute to notice that a machine is gone
@pytest.mark.skipif(not nodes.possible(), reason="needs root and the namespaces of Linux")
def test_machines_may_die_and_join_in_mid_search(tmp_path):
    """Of two, one is switched off, then the other; a third, which joins late, finishes what is left."""
    environment = os.environ | {"PYTHONPATH": str(Path(chaos.__file__).parents[1])}
    with nodes.cluster(environment) as cluster:
        first, second = cluster.join(), cluster.join()
        first.ready(), second.ready()
        with running(cluster, tmp_path / "run") as process:
            log = tmp_path / "run" / "log.txt"
            nodes.wait_for(log, f"ready on {first.address}", process)
            nodes.wait_for(log, f"ready on {second.address}", process)
            stored = chaos.stored(tmp_path / "run")
            first.kill()
            process.stdout.readline()  # a generation is through
            second.kill()
            third = cluster.join()
            out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert '"complete": true' in out
    assert f"ready on {third.address}" in log.read_text()
    assert not chaos.lost(stored, chaos.stored(tmp_path / "run"))
    for workers in ("0", "1"):
        alone = [sys.executable, "-m", "evoloss", *SEARCH, "--workers", workers, "--out", tmp_path / workers]
        subprocess.run(alone, check=True, capture_output=True, env=environment)
        assert not chaos.differences(chaos.ending(tmp_path / workers), chaos.ending(tmp_path / "run"))
