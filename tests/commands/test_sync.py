"""Sweeps that lost their tracker are uploaded later: completely, once, and nested as usual."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from crossbench.errors import ResultError
from crossbench.models.folder import ModelFolder
from crossbench.results import RunResult, Status, save_result
from crossbench.settings.cell_config import CellConfig
from crossbench.sweeps.folder import take_new
from crossbench.sweeps.upload import is_sweep, sweep_folders, upload_sweep
from crossbench.tracking.mlflow_store import MlflowTracker
from crossbench.tracking.protocol import CellRef
from tests.helpers.bad_servers import bad_server, free_port
from tests.helpers.mlflow_server import kill, mlflow_server
from tests.helpers.stored_sweeps import embedded_tracker, save_sweep

QUICK = (
    "requests=20",
    "warmup_requests=1",
    "warmup_max_seconds=0.2",
    "stop=fixed",
    "dataset.queries=4",
    "dataset.passages_per_query=40",
    "dashboard=none",
)
RESULT = RunResult(
    status=Status.FINISHED,
    config=CellConfig(
        {
            "backend": {"name": "pytorch"},
            "quant": {"name": "fp32"},
            "batch": 8,
            "concurrency": 1,
            "pipeline": "full",
        }
    ),
    cell_id="0123456789ab",
    metrics={"throughput/pairs_per_s": 100.0, "latency/p95_ms": 9.5},
    environment={"host": "bench-1"},
    series={"time_s": [1.0, 2.0, 2.5], "pairs_per_s": [100.0, 120.0, 110.0]},
    model={"name": "minilm", "digest": "feedface", "backend": "pytorch", "quant": "fp32"},
    dataset={"name": "synthetic", "source": "made up", "digest": "beef"},
    started_at="2026-01-02T03:04:05+00:00",
)


@pytest.fixture
def tracker(outputs: Path) -> MlflowTracker:
    return embedded_tracker(outputs)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep on disk that was never logged: a finished cell, a failed one, a truncated result."""
    folder = tmp_path / "2026-01-02_03-04-00"
    failed = replace(
        RESULT, status=Status.FAILED, error="no luck", metrics={}, series={}, dataset={}
    )
    save_sweep(folder, (RESULT, failed), 3, "{quant: 'fp32,int8'}", "['batch=8']")
    (folder / "2").mkdir()
    (folder / "2" / "result.json").write_text("{", "utf-8")
    (folder / "report.md").write_text("# Sweep\n\n[0](0/report.md)\n", "utf-8")
    return folder


def runs(uri: str) -> list[Run]:
    client = MlflowClient(uri)
    found = client.search_experiments(filter_string="name = 'crossbench'")
    return list(client.search_runs([item.experiment_id for item in found]))


def parent_and_cells(uri: str) -> tuple[Run, list[Run]]:
    """Return the parent run and the runs of the cells in order; there must be no other runs."""
    every = runs(uri)
    (parent,) = (run for run in every if "mlflow.parentRunId" not in run.data.tags)
    cells = [run for run in every if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in cells} <= {parent.info.run_id}
    return parent, sorted(cells, key=lambda run: int(run.data.tags["crossbench.cell"]))


def test_a_sweep_is_uploaded_whole_and_once(sweep: Path, tracker: MlflowTracker) -> None:
    done = upload_sweep(sweep, tracker)
    assert (done.uploaded, done.present, done.without_result) == (2, 0, 1)
    parent, cells = parent_and_cells(tracker.uri)
    assert parent.info.run_name == sweep.name
    assert parent.info.status == "FAILED"
    assert parent.data.params == {"quant": "fp32,int8", "batch": "8"}
    assert parent.data.metrics["cells/finished"] == 1
    assert parent.data.metrics["cells/failed"] == 2
    assert f"/runs/{cells[0].info.run_id})" in parent.data.tags["mlflow.note.content"]
    assert [run.info.status for run in cells] == ["FINISHED", "FAILED"]
    assert cells[0].info.run_name == "pytorch fp32 batch=8 concurrency=1"
    assert cells[0].info.start_time == 1_767_323_045_000  # the start of the cell, not of the upload
    assert cells[0].data.tags["host"] == parent.data.tags["host"] == "bench-1"
    assert cells[0].data.metrics["throughput/pairs_per_s"] == 100
    assert cells[0].data.tags["crossbench.model_digest"] == "feedface"
    assert cells[1].data.tags["error"] == "no luck"

    before = {run.info.run_id: run.data.to_dictionary() for run in runs(tracker.uri)}
    again = upload_sweep(sweep, replace(tracker))
    assert (again.uploaded, again.present) == (0, 2)
    assert {run.info.run_id: run.data.to_dictionary() for run in runs(tracker.uri)} == before


def test_incomplete_runs_are_completed_without_duplicates(
    sweep: Path, tracker: MlflowTracker
) -> None:
    """The store was lost during the second cell, and came back without the parent run."""
    whole = tracker.open_cell("whole", None, CellRef(sweep.name, 0), "bench-1", None)
    tracker.finish_cell(whole, RESULT, sweep / "0")
    begun = tracker.open_cell("begun", None, CellRef(sweep.name, 1), "bench-1", None)
    elsewhere = tracker.open_cell("other", None, CellRef(sweep.name, 1), "bench-2", None)

    done = upload_sweep(sweep, tracker)
    assert (done.uploaded, done.present) == (1, 1)
    MlflowClient(tracker.uri).delete_run(elsewhere)
    _, cells = parent_and_cells(tracker.uri)
    assert [run.info.run_id for run in cells] == [whole, begun]
    assert cells[1].data.tags["status"] == "failed"

    tracker.finish_cell(whole, RESULT, sweep / "0")  # as if the connection was lost while writing
    client = MlflowClient(tracker.uri)
    for name in ("throughput/pairs_per_s", "live/pairs_per_s"):
        steps = [point.step for point in client.get_metric_history(whole, name)]
        assert len(steps) == len(set(steps)), name
    assert [p.step for p in client.get_metric_history(whole, "live/pairs_per_s")] == [1, 2, 3]
    assert len(client.get_run(whole).inputs.dataset_inputs) == 1


def test_a_run_that_lacked_files_is_completed(sweep: Path, tracker: MlflowTracker) -> None:
    """On a full disk, MLflow gets the result without its files; there is space later."""
    run_id = tracker.open_cell("cell", None, CellRef(sweep.name, 0), "bench-1", None)
    files = sweep / "0"
    elsewhere = files.rename(sweep.parent / "elsewhere")
    files.mkdir()
    tracker.finish_cell(run_id, RESULT, files, whole=False)
    client = MlflowClient(tracker.uri)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).data.metrics["throughput/pairs_per_s"] == 100
    assert not client.list_artifacts(run_id)
    files.rmdir()
    elsewhere.rename(files)
    assert upload_sweep(sweep, tracker).uploaded == 2
    _, cells = parent_and_cells(tracker.uri)
    assert [run.info.status for run in cells] == ["FINISHED", "FAILED"]
    assert cells[0].info.run_id == run_id
    assert "result.json" in {item.path for item in client.list_artifacts(run_id)}


def test_the_same_folder_run_again_is_another_run(sweep: Path, tracker: MlflowTracker) -> None:
    upload_sweep(sweep, tracker)
    save_result(replace(RESULT, started_at="2026-01-02T09:00:00+00:00"), sweep / "0")
    done = upload_sweep(sweep, tracker)
    assert (done.uploaded, done.present) == (1, 1)
    _, cells = parent_and_cells(tracker.uri)
    assert [run.data.tags["crossbench.cell"] for run in cells] == ["0", "0", "1"]


def test_sweeps_of_the_same_name_are_not_mixed(
    sweep: Path, tracker: MlflowTracker, tmp_path: Path
) -> None:
    """Sweeps may have the same name: named by the user, or by the study in different suites."""
    other = tmp_path / "other" / sweep.name
    shutil.copytree(sweep, other)
    save_result(replace(RESULT, started_at="2026-01-02T09:00:00+00:00"), other / "0")
    save_result(replace(RESULT, started_at="2026-01-02T09:01:00+00:00"), other / "1")
    upload_sweep(sweep, tracker)
    begun = tracker.open_sweep(sweep.name, sweep.name, {"host": "bench-1"}, None)
    tracker.open_cell("of a third sweep", begun, CellRef(sweep.name, 0), "bench-1", None)
    for _ in range(2):
        upload_sweep(other, tracker)
    every = runs(tracker.uri)
    parents = [run for run in every if "mlflow.parentRunId" not in run.data.tags]
    children = {
        parent.info.run_id: sorted(
            run.info.status
            for run in every
            if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
        )
        for parent in parents
    }
    assert children.pop(begun) == ["RUNNING"]
    assert sorted(children.values()) == [["FAILED", "FINISHED"], ["FINISHED", "FINISHED"]]


def test_single_cells_and_the_studies_of_a_suite_are_found(
    sweep: Path, tracker: MlflowTracker, tmp_path: Path
) -> None:
    outputs = tmp_path / "all"
    (outputs / "mine").mkdir(parents=True)
    save_result(RESULT, outputs / "mine")
    shutil.copytree(sweep, outputs / "suite_1" / "20_stages")
    (outputs / "suite_1" / "suite.json").write_text("{}")
    assert sweep_folders(outputs) == [outputs / "mine", outputs / "suite_1" / "20_stages"]
    for count in (1, 0):
        assert upload_sweep(outputs / "mine", tracker).uploaded == count
    (run,) = runs(tracker.uri)
    assert run.data.tags["crossbench.sweep"] == "mine"
    assert not is_sweep(sweep / "0")  # it is one cell of a sweep


def test_a_running_single_cell_is_skipped(tracker: MlflowTracker, tmp_path: Path) -> None:
    taken = take_new(tmp_path / "now")
    (taken.path / "0").mkdir()
    save_result(RESULT, taken.path / "0")  # its quality check has not finished
    assert upload_sweep(taken.path, tracker).still_running
    taken.release()
    assert upload_sweep(taken.path, tracker).uploaded == 1


def test_a_running_sweep_is_skipped(sweep: Path, tracker: MlflowTracker) -> None:
    (sweep / "report.md").unlink()
    state = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps({**state, "pid": os.getpid()}), "utf-8")
    assert upload_sweep(sweep, tracker).still_running
    assert runs(tracker.uri) == []
    with pytest.raises(ResultError, match="nothing to upload"):
        upload_sweep(sweep / "2", tracker)


def test_a_registered_model_has_the_id_of_its_best_run(sweep: Path, tracker: MlflowTracker) -> None:
    registering = replace(tracker, registered_model="it's a reranker")
    client = MlflowClient(tracker.uri)
    found = []
    for number, rate in enumerate((100.0, 300.0, 200.0)):
        metrics = {"throughput/pairs_per_s": rate, "latency/p95_ms": 1e3 / rate}
        run_id = registering.open_cell("cell", None, CellRef("s", number), "bench-1", None)
        registering.finish_cell(run_id, replace(RESULT, metrics=metrics), sweep / "0")
        found.append(run_id)
    floor = {**RESULT.model, "backend": "noop"}
    fast = replace(RESULT, model=floor, metrics={"throughput/pairs_per_s": 9e9})
    registering.finish_cell(found[2], fast, sweep / "0")  # noop must not be the best run
    other = replace(RESULT, model={**RESULT.model, "digest": "cafe"})
    registering.finish_cell(
        registering.open_cell("cell", None, CellRef("s", 3), "bench-1", None), other, sweep / "0"
    )

    versions = client.search_model_versions("")
    by_digest = {item.tags["crossbench.model_digest"]: item for item in versions}
    assert by_digest.keys() == {"feedface", "cafe"}
    best = by_digest["feedface"]
    assert best.name == "it's a reranker"
    assert best.run_id == found[0]  # the first run that measured it
    assert best.tags["crossbench.best_run_id"] == found[1]
    assert best.tags["crossbench.best_pairs_per_s"] == "300"
    assert best.tags["crossbench.best_cell"] == "pytorch fp32 batch=8 concurrency=1"
    tags = client.get_run(found[1]).data.tags
    assert tags["crossbench.model_version"] == f"models:/it's a reranker/{best.version}"


def test_an_existing_model_version_is_used(sweep: Path, tracker: MlflowTracker) -> None:
    client = MlflowClient(tracker.uri)
    client.create_registered_model("mine")
    client.create_model_version("mine", "/somewhere", tags={"crossbench.model_digest": "feedface"})
    registering = replace(tracker, registered_model="mine")
    run_id = registering.open_cell("cell", None, CellRef("s", 0), "bench-1", None)
    registering.finish_cell(run_id, RESULT, sweep / "0")
    (version,) = client.search_model_versions("")
    assert version.tags["crossbench.best_run_id"] == run_id


def crossbench(module: str, *arguments: str, model: ModelFolder) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "CROSSBENCH_CACHE": str(model.path.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sync(*arguments: str, model: ModelFolder) -> list[str]:
    process = crossbench("crossbench.sync", *arguments, model=model)
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return out.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["silent", "byte by byte"])
def test_a_server_that_never_answers_is_asked_once(
    kind: str, sweep: Path, seeded_model: ModelFolder, tmp_path: Path
) -> None:
    """MLflow's own limits are for each part of an answer, and would be reached for each call."""
    shutil.copytree(sweep, sweep.with_name("another"))
    with bad_server(kind) as server:
        words = (f"tracker.uri=http://127.0.0.1:{server.port}", "tracker.timeout_s=0.5")
        process = crossbench(
            "crossbench.sync", f"outputs_dir={tmp_path}", *words, model=seeded_model
        )
        _, errors = process.communicate(timeout=240)
        assert server.connections <= 2
    assert process.returncode == 1
    assert "the tracker did not end its work within 0.5 s" in errors
    assert "2 of 2 sweeps not uploaded: give the same command again later" in errors
    assert "Traceback" not in errors


def the_sweep(outputs: Path) -> Path:
    (state,) = outputs.glob("*/sweep.json")
    return state.parent


@pytest.mark.slow
def test_a_sweep_without_a_tracking_server_is_synced_later(
    outputs: Path, tracker: MlflowTracker, seeded_model: ModelFolder
) -> None:
    overrides = ["-m", "backend=noop", "batch=4", *QUICK, f"outputs_dir={outputs}"]
    uri = f"tracker.uri=http://127.0.0.1:{free_port()}"
    process = crossbench("crossbench", *overrides, uri, model=seeded_model)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "upload those of this run later: python -m crossbench.sync " in " ".join(errors.split())

    folder = the_sweep(outputs)
    here = f"outputs_dir={outputs}"
    assert sync(here, model=seeded_model) == [f"{folder.name}: 1 uploaded, 0 already present"]
    again = upload_sweep(folder, tracker)
    assert (again.uploaded, again.present) == (0, 1)
    parent, cells = parent_and_cells(tracker.uri)
    assert parent.data.params["batch"] == "4"
    assert [run.data.params["batch"] for run in cells] == ["4"]
    assert [run.info.status for run in (parent, *cells)] == ["FINISHED"] * 2


@pytest.mark.slow
def test_a_broken_sweep_does_not_keep_the_others_from_being_uploaded(
    outputs: Path, sweep: Path, tracker: MlflowTracker, seeded_model: ModelFolder
) -> None:
    whole = outputs / "whole"
    for folder in (outputs / "broken", whole):
        shutil.copytree(sweep, folder)
    (outputs / "broken" / "sweep.json").write_text("[" * 100_000)
    process = crossbench("crossbench.sync", f"outputs_dir={outputs}", model=seeded_model)
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    assert out.splitlines() == ["whole: 2 uploaded, 0 already present, 1 without a result"]
    assert "broken/sweep.json cannot be read (it is nested too deeply)" in errors
    assert "Traceback" not in errors


def read_until(process: subprocess.Popen[str], texts: Sequence[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if all(text in line for text in texts):
            return
    raise AssertionError(f"{texts} was not printed")


@pytest.mark.slow
def test_a_tracking_server_that_dies_during_a_sweep_gets_the_rest_later(
    outputs: Path, seeded_model: ModelFolder, migrated_store: Path, tmp_path: Path
) -> None:
    store, port = tmp_path / "server", free_port()
    store.mkdir()
    shutil.copy(migrated_store, store / "mlflow.db")
    uri = f"tracker.uri=http://127.0.0.1:{port}"
    here = f"outputs_dir={outputs}"
    overrides = ["-m", "backend=noop", "batch=4,8,16", *QUICK, "requests=100000", "max_seconds=4"]
    with mlflow_server(store, port) as server:
        process = crossbench("crossbench", *overrides, uri, here, model=seeded_model)
        read_until(process, ("cell 2/3", "measuring"))
        kill(server)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        assert "tracking:" in errors
    with mlflow_server(store, port):
        parent, cells = parent_and_cells(f"http://127.0.0.1:{port}")
        assert [run.info.status for run in (parent, *cells)] == ["RUNNING", "FINISHED", "RUNNING"]
        kept = [run.info.run_id for run in (parent, *cells)]
        folder = the_sweep(outputs)
        assert sync(uri, here, model=seeded_model) == [
            f"{folder.name}: 2 uploaded, 1 already present"
        ]
        assert sync(uri, here, model=seeded_model) == [
            f"{folder.name}: 0 uploaded, 3 already present"
        ]
        parent, cells = parent_and_cells(f"http://127.0.0.1:{port}")
        assert [run.info.status for run in (parent, *cells)] == ["FINISHED"] * 4
        assert [run.info.run_id for run in (parent, *cells)][:3] == kept
        client = MlflowClient(f"http://127.0.0.1:{port}")
        names = {item.path for item in client.list_artifacts(cells[2].info.run_id)}
        assert {"report.md", "result.json", "requests.parquet", "plots"} <= names
