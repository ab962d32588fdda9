"""Sweeps on a real Ray cluster of two nodes: hand-back, a lost node, Ctrl-C and resuming."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossbench.models.folder import ModelFolder
from crossbench.results import load_result
from tests.helpers.commands import crossbench, read_until, results, runs, start, the_sweep
from tests.helpers.ray_nodes import TOKEN, RayNodes, can_unshare, ray_nodes

pytestmark = pytest.mark.slow
SWEEP = (
    "-m", "hydra/launcher=ray", "backend=noop", "quality=none", "stop=fixed", "warmup_requests=1",
    "warmup_max_seconds=0.2",
)  # fmt: skip
QUICK = (*SWEEP, "requests=20", "tracker=none")
EIGHT = "batch=1,2,3,4,5,6,7,8"


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """The environment of the commands, with the token of the cluster."""
    return {**environment, **TOKEN}


@pytest.fixture
def cluster(environment: dict[str, str], outputs: Path) -> Iterator[RayNodes]:
    """Two nodes; if this user may, the second is a machine of its own, which has no outputs."""
    with ray_nodes(environment) as nodes:
        nodes.start("node-a")
        nodes.start("node-b", '--resources={"fast": 1}', hidden=outputs if can_unshare() else None)
        yield nodes


def machines(sweep: Path) -> list[str]:
    folders = sorted(
        (path for path in sweep.iterdir() if path.name.isdecimal()), key=lambda p: int(p.name)
    )
    return [str(load_result(folder).environment["host"]) for folder in folders]


def test_a_sweep_of_which_a_node_is_killed_ends_complete(
    cluster: RayNodes, outputs: Path, environment: dict[str, str]
) -> None:
    where = {"outputs": outputs, "environment": environment}
    sweep = start(*SWEEP, "max_seconds=3", EIGHT, f"cluster.address={cluster.address}", **where)
    read_until(sweep, "measured on node-b")
    read_until(sweep, "(node-b)")  # it has handed back its first cell
    read_until(sweep, "measured on node-b")
    cluster.kill("node-b")
    _, told = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, told
    assert "node-b was lost while it measured the cell, so it is measured again" in told
    folder = the_sweep(outputs)
    assert [result["status"] for result in results(folder)] == ["finished"] * 8
    found = machines(folder)
    assert set(found) == {"node-a", "node-b"}
    report = (folder / "report.md").read_text()
    rows = re.findall(r"^\| \[(\d)\]\(\d/report\.md\) +\| (\d) +\| (node-[ab])", report, re.M)
    assert {int(number): name for number, _, name in rows} == dict(enumerate(found))
    assert "## Machines" in report
    logged = runs(outputs)
    assert len(logged) == 9
    assert {run.info.status for run in logged} == {"FINISHED"}
    hosts = sorted(run.data.tags["host"] for run in logged if "mlflow.parentRunId" in run.data.tags)
    assert hosts == sorted(found)
    again = ("-m", "crossbench.sync", str(folder), f"outputs_dir={outputs}")
    synced = subprocess.run([sys.executable, *again], capture_output=True, text=True, timeout=100)
    assert "0 uploaded, 8 already present" in synced.stdout + synced.stderr


def test_blocks_stay_on_one_machine_which_may_be_named(
    cluster: RayNodes, outputs: Path, environment: dict[str, str]
) -> None:
    where = {"outputs": outputs, "environment": environment}
    address = f"cluster.address={cluster.address}"
    done = crossbench(*QUICK, "batch=2,4", "repeats=3", address, **where)
    assert done.returncode == 0, done.stderr
    found = machines(the_sweep(outputs))
    assert found[0::2] == found[1::2]  # both cells of each block
    for named in ("cluster.hosts=[node-b]", "cluster.resources={fast: 1}"):
        done = crossbench(*QUICK, "batch=2,4", address, named, "sweep_name=named", **where)
        assert done.returncode == 0, done.stderr
        assert set(machines(max(outputs.glob("2*")))) == {"node-b"}
    done = crossbench(*QUICK, "batch=2,4", address, "cluster.resources={gpu: 1}", **where)
    assert done.returncode == 1
    assert "no machine of the Ray cluster fits cluster.resources={gpu: 1}. It has: " in done.stderr


def test_ctrl_c_stops_remote_cells_and_resume_measures_the_rest(
    cluster: RayNodes, outputs: Path, environment: dict[str, str]
) -> None:
    where = {"outputs": outputs, "environment": environment}
    address = f"cluster.address={cluster.address}"
    sweep = start(*SWEEP, "tracker=none", "max_seconds=4", "batch=1,2,3,4", address, **where)
    read_until(sweep, "(node-")  # the first cell has ended
    read_until(sweep, "measured on")  # a further one begins
    sweep.send_signal(signal.SIGINT)
    _, told = sweep.communicate(timeout=100)
    assert sweep.returncode == 130, told
    folder = the_sweep(outputs)
    assert (folder / "report.md").exists()
    before = [load_result(cell) for cell in sorted(folder.glob("[0-9]"))]
    cut = [result for result in before if result.failure == "interrupted"]
    assert cut
    assert all((result.error or "").startswith("interrupted by Ctrl-C") for result in cut)
    command = [sys.executable, "-m", "crossbench", "-m", f"resume={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    assert [result["status"] for result in results(folder)] == ["finished"] * 4


def test_a_node_is_sent_the_model_that_it_lacks(
    cluster: RayNodes, outputs: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    if not can_unshare():
        pytest.skip("both nodes see the same files")
    where = {"outputs": outputs, "environment": environment}
    here, there = outputs / "arrivals.csv", tmp_path / "nowhere"  # outputs is empty on node-b
    here.write_text("arrival_s\n" + "".join(f"{0.02 * n}\n" for n in range(40)))
    common = (*QUICK, "load=trace", f"cluster.address={cluster.address}", "batch=2,4")
    done = crossbench(*common, "cluster.hosts=[node-b]", f"load.path={here}", **where)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"sending {here} to node-b") == 1
    folder = the_sweep(outputs)
    assert load_result(folder / "1").config.value("load.path") == str(here)
    model = ("model=local", f"model.path={there}")
    done = crossbench(*QUICK, *common[-2:], "cluster.hosts=[node-b]", *model, **where)
    assert done.returncode == 1
    assert f"on node-b: model.path={there} does not exist" in " ".join(done.stderr.split())


def test_a_model_of_the_parent_ranks_alike_on_another_node(
    cluster: RayNodes, outputs: Path, environment: dict[str, str], seeded_model: ModelFolder
) -> None:
    if not can_unshare():
        pytest.skip("both nodes see the same files")
    where = {"outputs": outputs, "environment": environment}
    folder = shutil.copytree(seeded_model.path, outputs / "model")  # node-b does not see it
    checked = tuple(word for word in QUICK if not word.startswith(("backend=", "quality=")))
    done = crossbench(
        *checked, "backend=packed", "batch=2,4", "model=local", f"model.path={folder}",
        "quality.unjudged_queries=3", "quality.min_queries=2",
        f"cluster.address={cluster.address}", "cluster.hosts=[node-b]", **where,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"sending {folder} to node-b") == 1  # for both cells
    for cell in ("0", "1"):
        result = load_result(the_sweep(outputs) / cell)
        assert result.environment["host"] == "node-b"
        assert result.config.value("model.path") == str(folder)
        assert result.metrics["quality/max_abs_diff"] < 1e-4
        assert result.metrics["quality/kendall_tau"] > 0.999


def test_an_address_without_a_cluster_is_refused_at_once(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    done = crossbench(
        *QUICK,
        "batch=2,4",
        "cluster.address=127.0.0.1:1",
        outputs=tmp_path,
        environment=environment,
    )
    assert done.returncode == 1
    assert "cluster.address=127.0.0.1:1: Ray cannot be reached" in done.stderr
    assert not list(tmp_path.iterdir())
