"""`python -m crossbench`: one cell, sweeps, bad input, Ctrl-C, killed processes, a client."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from crossbench.backends.devices import missing_device
from crossbench.results import load_records
from tests.helpers.commands import (
    QUICK,
    QUIET,
    crossbench,
    read_until,
    results,
    runs,
    start,
    the_sweep,
)

METRICS = {
    "throughput/pairs_per_s",
    "throughput/requests_per_s",
    "throughput/tokens_per_s",
    *(f"latency/p{percent}_ms" for percent in (50, 75, 90, 95, 99)),
    *(f"latency/{name}_ms" for name in ("mean", "std", "min", "max")),
    *(f"service/{name}_ms" for name in ("p50", "p99", "mean")),
    *(f"stage/{name}_p50_ms" for name in ("tokenize", "queue", "infer")),
    "memory/rss_peak_mb",
    "batching/pairs_per_batch",
    "batching/padding_waste",
    "correlation/request",
    "requests/ok",
    "requests/failed",
}


@pytest.mark.slow
def test_one_cell_of_the_real_model(outputs: Path, environment: dict[str, str]) -> None:
    done = crossbench(*QUICK, "batch=4", outputs=outputs, environment=environment)
    assert done.returncode == 0, done.stderr
    cell = the_sweep(outputs) / "0"
    (result,) = results(cell.parent)
    assert result["status"] == "finished"
    # A busy machine may have time for one request only: no correlation and no deviation then
    always = METRICS - {"correlation/request", "latency/std_ms"}
    assert set(result["metrics"]) >= always  # type: ignore[call-overload]
    assert result["quality"]["verdict"] == "reference"  # type: ignore[index]
    assert result["metrics"]["memory/model_mb"] > 80  # type: ignore[index]
    assert len(load_records(cell)) == result["metrics"]["requests/ok"]  # type: ignore[index]
    assert "relevance" in (cell / "report.md").read_text()  # the warning about random weights
    assert list((cell / "plots").glob("*.png"))
    (run,) = runs(outputs)
    assert run.info.status == "FINISHED"
    assert run.data.metrics.keys() >= set(result["metrics"])  # type: ignore[call-overload]
    assert str(cell / "report.md") in done.stderr


def test_a_sweep_continues_after_unavailable_and_failed_cells(
    outputs: Path, environment: dict[str, str]
) -> None:
    overrides = ["-m", "backend=noop,mps", "batch=32,0", *QUICK]
    done = crossbench(*overrides, outputs=outputs, environment=environment)
    sweep = the_sweep(outputs)
    statuses = [result["status"] for result in results(sweep)]
    on_a_mac = sys.platform == "darwin"
    assert statuses == ["finished", "failed", "finished" if on_a_mac else "unavailable", "failed"]
    assert results(sweep)[0]["quality"] == {
        "check": "sample",
        "verdict": "not checked",
        "reason": "backend=noop runs no model",
    }
    caveat = str(results(sweep)[0]["model"]["caveat"])  # type: ignore[index]
    assert caveat.startswith("backend=noop: no model ran")
    assert "random" not in caveat  # no warning about weights that were not used
    errors = [str(result["error"]) for result in results(sweep)]
    assert "batch must be a positive whole number, got 0" in errors[1]
    assert on_a_mac or errors[2].endswith(
        str(missing_device("mps"))
    )  # the same text as in the doctor's table
    assert done.returncode == 1
    report = (sweep / "report.md").read_text()
    assert "batch must be a positive whole number" in report
    assert (sweep / "results.csv").read_text().count("\n") == 5
    tracked = {run.info.run_id: run for run in runs(outputs)}
    (parent,) = (run for run in tracked.values() if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in tracked.values() if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len(children) == 4
    assert sum(run.info.status == "FINISHED" for run in children) == statuses.count("finished")
    finished = next(run for run in children if run.info.status == "FINISHED")
    assert finished.data.metrics.keys() >= METRICS


def test_an_unsupported_cell_is_not_a_failure(outputs: Path, environment: dict[str, str]) -> None:
    overrides = ["-m", "backend=noop,pytorch", "quant=int4", *QUICK]
    done = crossbench(*overrides, outputs=outputs, environment=environment)
    assert done.returncode == 0, done.stderr
    _, result = results(the_sweep(outputs))
    assert result["status"] == "unsupported"
    assert "fp32, fp16, bf16" in str(result["error"])


@pytest.mark.parametrize(
    ("overrides", "texts"),
    [
        (["batchh=3"], ["no key batchh", "Did you mean batch?", "concurrency"]),
        (["scheduler.max_batch=3"], ["max_batch", "max_batch_pairs", "timeout_ms"]),
        (["backend=onx"], ["no choice backend=onx. Did you mean onnx? Available choices", "noop"]),
        (["backend=32"], ["there is no choice backend=32. Available choices of backend: "]),
        (["seed=abc"], ["seed", "abc"]),
        (["-m", "backend=noop,tensorflow"], ["no choice backend=tensorflow", "pytorch"]),
        (["-m", "batchh=3,4"], ["no key batchh"]),
        (
            ["-m", "+experiment=05a_batch_size_mps,06a_concurrency_mps"],
            ["python -m crossbench.suite studies=[05a_batch_size_mps,06a_concurrency_mps]"],
        ),
        (
            ["backend=noop", "-m", "model=minilm-l6-seeded,local", "model.path=~/x"],
            ["model=minilm-l6-seeded has no key model.path", "'model.path=\"~/x\"'"],
        ),
        (["backend=noop", "batch=8,16"], ["For a sweep, give python -m crossbench -m batch=8,16;"]),
        (["-m", "backend=noop", "hydra.sweep.subdir=x"], ["hydra.sweep.subdir=x cannot be used"]),
        (["--batch=32"], ["there is no option --batch=32. Settings have no dashes", "--help"]),
        (["target=remote"], ["python -m crossbench.client server.address=HOST:PORT"]),
        (["-m", "backend=noop", "--cfg", "job"], ["-m and --cfg exclude each other"]),
        (["model=cross-encoder/ms-marco-MiniLM-L-6-v2"], ["model=hub model.repo=cross-encoder/"]),
        (["+backend=noop"], ["give backend=..., without the plus"]),
        (["=3"], ["'=3' is not an override"]),
        (["-m", "quant=int4", "batch=8,32"], ["cannot run any of the 2 cells", "doctor"]),
        (["-m", "model=local", "model.path=/no,/where"], ["model.path=/no does not exist"]),
    ],
)
def test_a_config_that_does_not_compose_is_refused_with_what_exists(
    tmp_path: Path, environment: dict[str, str], overrides: Sequence[str], texts: Sequence[str]
) -> None:
    done = crossbench(*overrides, outputs=tmp_path, environment=environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for text in texts:
        assert text in done.stderr
    assert not list(tmp_path.glob("*/*"))  # nothing was started


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch=1.5", "batch must be a positive whole number, got 1.5"),
        ("server.port=99999", "server.port must be 0 (any free port) to 65535, got 99999"),
        ("model=local", "model.path=DIR"),
    ],
)
def test_a_single_cell_with_a_bad_value_is_refused(
    tmp_path: Path, environment: dict[str, str], override: str, message: str
) -> None:
    arguments = ["backend=noop", "tracker=none", override]
    done = crossbench(*arguments, outputs=tmp_path, environment=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("crossbench: ")  # and not a word of Hydra's
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())  # nothing was started


def test_a_sweep_of_nothing_but_bad_values_is_refused(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    arguments = ["-m", "backend=noop", "batch=abc,0", "tracker=none"]
    done = crossbench(*arguments, outputs=tmp_path, environment=environment)
    assert done.returncode == 1
    assert "batch must be a positive whole number, got 'abc'" in done.stderr
    assert "batch must be a positive whole number, got 0" in done.stderr
    assert not list(tmp_path.glob("*/*"))  # nothing was started


LONG = ("backend=noop", "max_seconds=100", "requests=100000000", *QUICK[1:])


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_stop_signal_stops_the_cell_and_reports_the_sweep(
    outputs: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    sweep = start("-m", "batch=8,16,32", *LONG, outputs=outputs, environment=environment)
    read_until(sweep, "measuring")
    time.sleep(1)
    sweep.send_signal(number)
    _, errors = sweep.communicate(timeout=200)
    assert sweep.returncode == 130
    assert "interrupted: results of 1 of 3 cells" in errors
    folder = the_sweep(outputs)
    (result,) = results(folder)
    assert result["status"] == "failed"
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert str(result["error"]).startswith(f"interrupted by {name}")
    assert load_records(folder / "0")
    assert (folder / "report.md").exists()
    assert {run.info.status for run in runs(outputs)} == {"KILLED"}


@pytest.mark.slow
def test_a_signal_while_a_report_is_written_waits_for_it_and_its_upload(
    outputs: Path, environment: dict[str, str]
) -> None:
    sweep = start(
        "-m", "batch=8,16", *QUICK, "backend=noop", outputs=outputs, environment=environment
    )
    read_until(sweep, "writing the report")
    sweep.send_signal(signal.SIGTERM)
    _, errors = sweep.communicate(timeout=200)
    assert sweep.returncode == 130
    assert "interrupted: results of 1 of 2 cells" in errors
    folder = the_sweep(outputs)
    (result,) = results(folder)
    assert result["status"] == "finished"
    assert (folder / "0" / "report.md").exists()
    assert (folder / "report.md").exists()
    parents = {run.data.tags.get("mlflow.parentRunId"): run for run in runs(outputs)}
    assert parents.pop(None).info.status == "KILLED"
    assert [run.info.status for run in parents.values()] == ["FINISHED"]


def test_a_killed_cell_process_fails_its_cell_and_the_sweep_continues(
    outputs: Path, environment: dict[str, str]
) -> None:
    sweep = start(
        "-m",
        "batch=8",
        "max_seconds=100,1",
        *QUICK[1:],
        "backend=noop",
        "requests=100000000",
        outputs=outputs,
        environment=environment,
    )
    read_until(sweep, "measuring")
    (child,) = psutil.Process(sweep.pid).children()
    child.kill()
    _, errors = sweep.communicate(timeout=200)
    first, second = results(the_sweep(outputs))
    assert first["status"] == "failed"
    assert "SIGKILL" in str(first["error"])
    assert second["status"] == "finished"
    assert sweep.returncode == 1, errors
    assert sorted(run.info.status for run in runs(outputs)) == ["FAILED", "FAILED", "FINISHED"]


@pytest.mark.slow  # test_measure covers a lost server in the same process
def test_a_server_that_dies_ends_the_cell_and_keeps_its_records(
    outputs: Path, environment: dict[str, str]
) -> None:
    cell = start("target=process", *LONG, outputs=outputs, environment=environment)
    read_until(cell, "measuring")
    time.sleep(1)
    children = psutil.Process(cell.pid).children(recursive=True)
    (server,) = (child for child in children if "crossbench.runner.target_child" in child.cmdline())
    server.kill()
    cell.communicate(timeout=200)
    assert cell.returncode == 1
    (result,) = results(the_sweep(outputs))
    assert "the connection to the server was lost (UNAVAILABLE) after" in str(result["error"])
    folder = the_sweep(outputs) / "0"
    assert {"OK", "UNAVAILABLE"} == {record.status for record in load_records(folder)}
    assert "the server process was ended by SIGKILL" in (folder / "cell.log").read_text()


def test_a_killed_parent_leaves_no_orphan(tmp_path: Path, environment: dict[str, str]) -> None:
    parent = start("tracker=none", *LONG, outputs=tmp_path, environment=environment)
    read_until(parent, "measuring")
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_server_and_client_in_two_processes(tmp_path: Path, environment: dict[str, str]) -> None:
    server = start(
        "backend=noop",
        "server.port=0",
        outputs=tmp_path,
        environment=environment,
        module="crossbench.serve",
    )
    assert server.stdout is not None
    address = ""
    for line in server.stdout:
        if found := re.search(r"listening on (\S+)", line):
            address = found[1]
            break
    done = crossbench(
        f"server.address={address}",
        "tracker=none",
        *QUICK,
        outputs=tmp_path,
        environment=environment,
        module="crossbench.client",
    )
    assert done.returncode == 0, done.stderr
    (result,) = results(the_sweep(tmp_path))
    assert result["status"] == "finished"
    # The client's config has backend=pytorch, but the cell is named after the served backend
    assert result["config"]["backend"] == {"name": "noop"}  # type: ignore[index]
    report = (the_sweep(tmp_path) / "0" / "report.md").read_text()
    assert report.startswith("# noop fp32 batch=32")
    assert "the server runs backend=noop (not pytorch), and the cell is named after that" in report
    server.send_signal(signal.SIGTERM)
    out, errors = server.communicate(timeout=200)
    assert server.returncode == 0, errors
    assert "ended" in out

    gone = crossbench(
        f"server.address={address}",
        "target.connect_timeout_s=1",
        "tracker=none",
        outputs=tmp_path / "gone",
        environment=environment,
        module="crossbench.client",
    )
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"crossbench: no crossbench server answered at {address}")
    assert not (tmp_path / "gone").exists()  # nothing was started


@pytest.mark.parametrize("more", [[], ["-m", "batch=4,8"]])
def test_an_empty_outputs_folder_is_refused(more: list[str], tmp_path: Path) -> None:
    """An unset shell variable must not put results into the root of the file system."""
    command = [sys.executable, "-m", "crossbench", *more, "backend=noop", "outputs_dir=", *QUIET]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ}, timeout=120
    )
    assert done.returncode == 1
    assert "outputs_dir is empty: give outputs_dir=DIR" in done.stderr
    assert not list(tmp_path.iterdir())
