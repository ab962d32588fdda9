"""Sweeps over servers that run already: crossbench's own, and those of other people."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from crossbench.analysis.frames import load_runs, load_sweep
from tests.helpers.commands import QUICK, crossbench, results, runs, start, the_sweep
from tests.helpers.http_servers import rerankers


@pytest.mark.slow
def test_a_sweep_over_our_running_server(tmp_path: Path, environment: dict[str, str]) -> None:
    """Cells that differ in the load reuse it; one that needs another server says so."""
    server = start(
        "backend=noop", "server.port=0", outputs=tmp_path, environment=environment,
        module="crossbench.serve",
    )  # fmt: skip
    assert server.stdout is not None
    found = (re.search(r"listening on (\S+)", line) for line in server.stdout)
    address = next(item[1] for item in found if item)
    done = crossbench(
        "-m", f"server.address={address}", "backend=noop,packed", "batch=4,8", "tracker=none",
        *QUICK, outputs=tmp_path, environment=environment, module="crossbench.client",
    )  # fmt: skip
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=200)
    assert done.returncode == 1, done.stderr
    cells: list[Any] = results(the_sweep(tmp_path))
    by_choice = {
        (cell["config"]["backend"]["name"], cell["config"]["batch"]): cell for cell in cells
    }
    assert len(by_choice) == 4
    for (backend, _), cell in by_choice.items():
        if backend == "noop":
            assert cell["status"] == "finished"
        else:
            assert cell["status"] == "failed"
            told = "this cell needs another server: backend=packed, but it has backend=noop"
            assert told in cell["error"]
    assert "this cell needs another server" in (the_sweep(tmp_path) / "report.md").read_text()


@pytest.mark.slow
def test_one_report_of_ours_and_two_servers_of_others(
    outputs: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    choices = tmp_path / "mine" / "target"
    choices.mkdir(parents=True)
    with rerankers() as first, rerankers() as second:
        for name, server, api in (("first", first, "tei"), ("second", second, "infinity")):
            text = f"defaults: [http]\nname: {name}\nurl: {server.url}\napi: {api}\n"
            (choices / f"{name}.yaml").write_text(text)
        done = crossbench(
            "-m", "--config-dir", str(choices.parent), "target=inprocess,first,second",
            "backend=packed", "batch=4", *QUICK, "quality.unjudged_queries=4",
            outputs=outputs, environment=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        same = crossbench(
            "-m", "--config-dir", str(choices.parent), "target=inprocess,first",
            "backend=packed,noop", outputs=outputs, environment=environment,
        )  # fmt: skip
    assert same.returncode == 1
    assert "target=first is a server of other people, for which backend, device" in same.stderr
    sweep = the_sweep(outputs)
    report = (sweep / "report.md").read_text()
    for cell in ("packed inprocess", "first", "second"):
        assert re.search(rf"\*\*{cell}\*\*|^- {cell}", report, re.MULTILINE), report
    assert "Score parity: " in report
    frame = load_sweep(sweep).set_index("target")
    assert frame.loc["inprocess", "backend"] == "packed"
    assert frame.loc[["first", "second"], "backend"].isna().all()
    assert (frame["throughput/pairs_per_s"] > 0).all()
    logged = load_runs(f"sqlite:///{outputs}/mlflow.db", experiment="crossbench")
    assert sorted(logged["cell_id"]) == sorted(frame["cell_id"])
    backends = logged.set_index("target")["backend"]
    assert backends["inprocess"] == "packed"
    assert backends[["first", "second"]].isna().all()
    params = {run.data.params.get("target"): run.data.params for run in runs(outputs)}
    assert "backend" not in params["first"]
