"""The MLflow tracker: runs are written to a real store and read with MLflow's client."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import OmegaConf

from crossbench.analysis.frames import load_runs
from crossbench.errors import TrackingError
from crossbench.results import RunResult, Status
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.component import Component
from crossbench.settings.places import conf_dir
from crossbench.tracking import mlflow_sqlite
from crossbench.tracking.mlflow_config import flatten_params, stored_config
from crossbench.tracking.mlflow_format import MAX_PARAM, MAX_TAG, shorten
from crossbench.tracking.mlflow_store import MlflowTracker
from crossbench.tracking.protocol import CellRef, NoTracker

RESULT = RunResult(
    status=Status.FINISHED,
    config=CellConfig(
        {
            "backend": {"_target_": "made.Noop", "name": "noop", "threads": None},
            "batch": 32,
            "device": "cpu",
        }
    ),
    cell_id="0123456789ab",
    metrics={
        "throughput/pairs_per_s": 123.5,
        "latency/p50_ms": 7.25,
        "latency/p95_ms": 8.5,
        "correlation/window": float("nan"),
    },
    environment={
        "host": "bench-1",
        "cpu": "Some CPU",
        "git_commit": "c0ffee",
        "gpus": [],
        "versions": {"torch": "2.13.0"},
    },
    series={"time_s": [1.0, 2.0, 2.6], "pairs_per_s": [100.0, 120.0, 110.0]},
    dataset={
        "name": "synthetic",
        "source": "made up",
        "digest": "feedfacefeedface",
        "lists": 10,
        "pairs": 1000,
    },
    warnings=["a thing to know"],
    flags={"client-bound": "the loop was busy.", "disturbed": "others were busy."},
    started_at="2026-01-02T03:04:05+00:00",
)


@pytest.fixture
def tracker(migrated_store: Path, tmp_path: Path) -> MlflowTracker:
    outputs = tmp_path / "out puts"  # a path with a space
    outputs.mkdir()
    shutil.copy(migrated_store, outputs / "mlflow.db")
    node = OmegaConf.load(conf_dir() / "tracker" / "mlflow.yaml")
    config = OmegaConf.create({"outputs_dir": str(outputs), "tracker": node})
    made = Component.of("tracker", OmegaConf.to_container(config, resolve=True)["tracker"]).build()
    assert isinstance(made, MlflowTracker)
    return made


@pytest.fixture
def client(tracker: MlflowTracker) -> MlflowClient:
    return MlflowClient(tracker.uri)


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    folder = tmp_path / "sweep" / "0"
    (folder / "plots").mkdir(parents=True)
    (folder / "plots" / "latency.png").write_bytes(b"png")
    for name in ("report.md", "result.json", "requests.parquet", "config.yaml"):
        (folder / name).write_text(name, "utf-8")
    (folder / "result.json.partial").write_text("not an artifact", "utf-8")
    return folder


@pytest.fixture(autouse=True)
def environment_is_left_clean() -> Iterator[None]:
    yield
    assert "MLFLOW_RUN_ID" not in os.environ


def finished(tracker: MlflowTracker, client: MlflowClient, result: RunResult, cell: Path) -> Run:
    run_id = tracker.start_cell("noop fp32 batch=32 concurrency=1", None, CellRef("sweep", 0))
    assert run_id is not None
    tracker.finish_cell(run_id, result, cell)
    return client.get_run(run_id)


def test_a_finished_cell_has_params_metrics_and_tags(
    tracker: MlflowTracker, client: MlflowClient, cell: Path
) -> None:
    run = finished(tracker, client, RESULT, cell)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "noop fp32 batch=32 concurrency=1"
    assert run.data.params == {
        "backend": "noop",
        "backend.threads": "null",
        "batch": "32",
        "device": "cpu",
    }
    finals = {key: value for key, value in run.data.metrics.items() if not key.startswith("live/")}
    assert finals == {
        "throughput/pairs_per_s": 123.5,
        "latency/p50_ms": 7.25,
        "latency/p95_ms": 8.5,
    }
    tags = run.data.tags
    assert tags["status"] == "finished"
    assert tags["cell_id"] == "0123456789ab"
    assert tags["mlflow.source.git.commit"] == tags["git_commit"] == "c0ffee"
    assert tags["host"] == "bench-1"
    assert tags["cpu"] == "Some CPU"
    assert tags["version.torch"] == "2.13.0"
    assert "error" not in tags
    assert tags["crossbench.flags"] == "client-bound,disturbed"
    assert "| pairs/s | 123.5 |" in tags["mlflow.note.content"]
    assert "a thing to know" in tags["mlflow.note.content"]


def test_live_series_have_seconds_as_steps(
    tracker: MlflowTracker, client: MlflowClient, cell: Path
) -> None:
    run = finished(tracker, client, RESULT, cell)
    history = client.get_metric_history(run.info.run_id, "live/pairs_per_s")
    assert [(point.step, point.value) for point in history] == [(1, 100.0), (2, 120.0), (3, 110.0)]
    start_ms = 1_767_323_045_000
    assert [point.timestamp - start_ms for point in history] == [1000, 2000, 2600]
    assert "live/time_s" not in run.data.metrics


def test_a_long_series_is_written_completely(
    tracker: MlflowTracker, client: MlflowClient, cell: Path
) -> None:
    seconds = [float(second) for second in range(1, 2502)]
    series = {"time_s": seconds, "p50_ms": seconds}
    run = finished(tracker, client, replace(RESULT, series=series), cell)
    assert len(client.get_metric_history(run.info.run_id, "live/p50_ms")) == 2501


def test_the_data_set_is_an_input(
    tracker: MlflowTracker, client: MlflowClient, cell: Path, tmp_path: Path
) -> None:
    entry = finished(tracker, client, RESULT, cell).inputs.dataset_inputs[0]
    assert (entry.dataset.name, entry.dataset.digest) == ("synthetic", "feedfacefeedface")
    assert json.loads(entry.dataset.profile) == {"lists": 10, "pairs": 1000}
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "benchmark")]

    local = {**RESULT.dataset, "source": str(tmp_path), "digest": "other"}
    run = finished(tracker, client, replace(RESULT, dataset=local), cell)
    dataset = run.inputs.dataset_inputs[0].dataset
    assert dataset.source_type == "local"
    assert json.loads(dataset.source) == {"uri": str(tmp_path)}


def test_the_files_of_a_cell_are_artifacts(
    tracker: MlflowTracker, client: MlflowClient, cell: Path, tmp_path: Path
) -> None:
    run = finished(tracker, client, RESULT, cell)
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert names == {"report.md", "result.json", "requests.parquet", "config.yaml", "plots"}
    plots = [item.path for item in client.list_artifacts(run.info.run_id, "plots")]
    assert plots == ["plots/latency.png"]
    copy = client.download_artifacts(run.info.run_id, "report.md", str(tmp_path))
    assert Path(copy).read_text("utf-8") == "report.md"
    assert (tmp_path / "out puts" / "mlartifacts" / run.info.run_id).is_dir()


def test_cells_nest_under_their_sweep(
    tracker: MlflowTracker, client: MlflowClient, cell: Path
) -> None:
    overrides = ["backend=noop,pytorch", "+extra.key=1,2"]
    parent = tracker.start_sweep("2026-01-02_03-04-05", "batch (2026)", overrides)
    assert parent is not None
    children = [
        tracker.start_cell(name, parent, CellRef("sweep", number))
        for number, name in enumerate(("first", "second"))
    ]
    for child in children:
        assert child is not None
        tracker.finish_cell(child, RESULT, cell)
    (cell.parent / "plots").mkdir()
    (cell.parent / "plots" / "b.svg").touch()
    report = (
        "# Sweep\n\n![picture](plots/a b.png) ![other](plots/b.png)\n"
        "<details>\n<summary>Legend</summary>\n\nfolded\n\n</details>\n\n"
        "[0](0/report.md) [7](7/report.md)\n"
        "\n## Next\n\nnext\n\n## Long\n\n" + "long " * 1600 + "\n\n## Last\n\nlast\n"
    )
    (cell.parent / "report.md").write_text(report, "utf-8")
    (cell.parent / "results.csv").write_text("a,b\n", "utf-8")
    tracker.finish_sweep(parent, [RESULT, RESULT], cell.parent, interrupted=False)

    run = client.get_run(parent)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "batch (2026)"
    assert run.data.params == {"backend": "noop,pytorch", "extra.key": "1,2"}
    assert run.data.metrics == {
        "cells/finished": 2,
        "cells/failed": 0,
        "cells/unavailable": 0,
        "cells/unsupported": 0,
        "best/pairs_per_s": 123.5,
        "best/p95_ms": 8.5,
    }
    page = f"#/experiments/{run.info.experiment_id}/runs/{children[0]}"
    assert run.data.tags["mlflow.note.content"] == (
        f"# Sweep\n\n![picture](get-artifact?path=plots%2Fa%20b.png&run_uuid={parent}) "
        f"![other](get-artifact?path=plots%2Fb.svg&run_uuid={parent})\n[0]({page}) 7\n\n"
        "## Next\n\nnext\n\nThe rest is in the artifact report.md."
    )
    assert run.data.tags["host"]
    names = {item.path for item in client.list_artifacts(parent)}
    assert names == {"report.md", "results.csv", "plots"}
    nested = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert {item.info.run_id for item in nested} == set(children)


def test_what_people_type_is_text_in_descriptions(
    tracker: MlflowTracker, client: MlflowClient, cell: Path
) -> None:
    typed = (
        "<script>alert(1)</script> [click](javascript:x) ![](http://away/x.png)\n# Title *b* a|b"
    )
    result = replace(RESULT, status=Status.FAILED, error=typed, warnings=[typed])
    note = finished(tracker, client, result, cell).data.tags["mlflow.note.content"]
    assert note.count("&lt;script&gt;") == 2
    assert note.count(r"\[click\](javascript:x) \!\[\](http://away/x.png) \# Title \*b\* a\|b") == 2

    (cell.parent / "report.md").write_text(f"# Sweep\n\n{typed}\n[0](0/report.md)\n", "utf-8")
    parent = tracker.start_sweep("sweep", "sweep", [])
    assert parent
    tracker.finish_sweep(parent, [], cell.parent, interrupted=False)
    note = client.get_run(parent).data.tags["mlflow.note.content"]
    assert note.startswith(r"# Sweep")
    assert r"&lt;script>alert(1)&lt;/script> \[click\](javascript:x) ![](get-artifact?path=" in note


@pytest.mark.parametrize(
    ("failed", "interrupted", "status"),
    [(True, False, "FAILED"), (False, True, "KILLED"), (True, True, "KILLED")],
)
def test_the_status_of_a_sweep_follows_from_its_cells(
    tracker: MlflowTracker,
    client: MlflowClient,
    tmp_path: Path,
    failed: bool,
    interrupted: bool,
    status: str,
) -> None:
    parent = tracker.start_sweep("sweep", "sweep", [])
    assert parent is not None
    result = replace(RESULT, status=Status.FAILED if failed else Status.FINISHED)
    tracker.finish_sweep(parent, [RESULT, result], tmp_path, interrupted)
    assert client.get_run(parent).info.status == status


@pytest.mark.parametrize("status", [Status.FAILED, Status.UNAVAILABLE, Status.UNSUPPORTED])
def test_a_cell_without_numbers_is_failed_with_its_error(
    tracker: MlflowTracker, client: MlflowClient, tmp_path: Path, status: Status
) -> None:
    result = RunResult(status, CellConfig({"batch": 0}), "ab", error="the reason " + "x" * 9000)
    run = finished(tracker, client, result, tmp_path)
    assert run.info.status == "FAILED"
    assert run.data.tags["status"] == status.value
    assert run.data.tags["error"].startswith("the reason xxx")
    assert run.data.tags["error"].endswith("[9011 characters]")
    assert run.data.params == {"batch": "0"}


def test_an_interrupted_cell_is_killed(
    tracker: MlflowTracker, client: MlflowClient, cell: Path
) -> None:
    run_id = tracker.start_cell("cell", None, CellRef("sweep", 0))
    assert run_id is not None
    result = replace(RESULT, status=Status.FAILED, error="interrupted")
    tracker.finish_cell(run_id, result, cell, interrupted=True)
    assert client.get_run(run_id).info.status == "KILLED"


def test_odd_and_many_config_values(
    tracker: MlflowTracker, client: MlflowClient, cell: Path
) -> None:
    document = {
        "many": {f"value{index}": index for index in range(250)},
        "none": None,
        "empty": "",
        "nothing": {},
        "list": [1, "zwei", None],
        "true": True,
        "long": "ö" * 10_000,
        "k@y": 1,
        "k#y": 2,
        "../up": 3,
        "": 4,
        "x" * 300: 5,
        "store": "postgresql://me:secret@db/runs",
        "lines": "a\nb\t|`",
    }
    config = CellConfig(document)
    run = finished(tracker, client, replace(RESULT, config=config), cell)
    params = run.data.params
    assert params == flatten_params(config)
    assert len(params) == 250 + len(document) - 1
    assert (params["many.value249"], params["none"], params["true"]) == ("249", "null", "true")
    assert (params["empty"], params["nothing"], params["lines"]) == ("", "{}", "a\nb\t|`")
    assert json.loads(params["list"]) == [1, "zwei", None]
    assert len(params["long"]) == MAX_PARAM
    assert (params["k_y"], params["k_y_"], params["_up"], params["_"]) == ("1", "2", "3", "4")
    assert params["store"] == "postgresql://***@db/runs"
    tags = run.data.tags
    assert len(tags["crossbench.config"]) == MAX_TAG  # goes on in others
    assert {"crossbench.config.1", "crossbench.config.2"} <= set(tags)
    assert stored_config(tags, {}) == stored_config({}, params)


def test_the_cells_of_a_sweep_have_what_varies_as_params(
    tracker: MlflowTracker, client: MlflowClient, cell: Path
) -> None:
    """MLflow compares params; the plots of its compare page begin with the first of them."""
    run_id = tracker.start_cell("batch=32", None, CellRef("sweep", 0))
    assert run_id is not None
    tracker.finish_cell(run_id, RESULT, cell, axes=["batch", "repeat"])
    data = client.get_run(run_id).data
    assert data.params == {"batch": "32"}
    assert {key: data.tags[key] for key in ("backend", "batch", "device")} == {
        "backend": "noop", "batch": "32", "device": "cpu",
    }  # fmt: skip
    assert "backend.threads" not in data.tags
    (row,) = load_runs(tracker.uri).to_dict("records")
    assert (row["backend"], row["batch"], row["backend.threads"]) == ("noop", 32, None)
    assert row["cell_id"] == RESULT.config.cell_id

    tracker.finish_cell(run_id, RESULT, cell, axes=["batch"])  # again
    group = tracker.start_cell("noop", None, CellRef("sweep", 1))
    assert group is not None
    tracker.finish_cell(group, RESULT, cell, axes=["backend"])
    assert client.get_run(group).data.params == {"backend": "noop"}  # a choice implies the rest


def test_an_experiment_shows_the_cells_with_their_numbers(
    tracker: MlflowTracker, client: MlflowClient
) -> None:
    path = tracker.view_path()
    tags = client.get_experiment_by_name("crossbench").tags
    assert path == "#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=crossbench"
    assert f"]({path})" in tags["mlflow.note.content"]
    state = view_state(tags)
    assert state["selectedColumns"][0] == "metrics.`throughput/pairs_per_s`"
    assert set(state["selectedColumns"]) < set(state["columnOrder"]) == set(state["columnWidths"])


def view_state(tags: dict[str, str]) -> dict[str, Any]:
    view = json.loads(tags["mlflow.sharedViewState.crossbench"])
    packed = base64.b64decode(view["state"].removeprefix("deflate;"))
    state: dict[str, Any] = json.loads(zlib.decompress(packed))
    return state


@pytest.mark.parametrize(
    ("note", "stays"),
    [("Each parent run is a sweep of crossbench, and so on.", False), ("Our own words", True)],
)
def test_an_experiment_that_exists_gets_the_view_once(
    tracker: MlflowTracker, client: MlflowClient, note: str, stays: bool
) -> None:
    tags = {
        "mlflow.sharedViewState.crossbench": "an old one",
        "mlflow.note.content": note,
        "mlflow.experimentKind": "chosen",
    }
    number = client.create_experiment("crossbench", tags=tags)
    assert tracker.start_cell("cell", None, CellRef("sweep", 0))
    found = client.get_experiment(number).tags
    assert view_state(found)
    assert (found["mlflow.note.content"] == note) is stays
    assert found["mlflow.experimentKind"] == "chosen"

    client.set_experiment_tag(number, "mlflow.sharedViewState.crossbench", "changed in the page")
    assert replace(tracker).start_cell("cell", None, CellRef("sweep", 0))
    changed = client.get_experiment(number).tags
    assert changed["mlflow.sharedViewState.crossbench"] == "changed in the page"


def test_a_second_tracker_shares_the_store(tracker: MlflowTracker, client: MlflowClient) -> None:
    first, second = (
        tracker.start_cell("a", None, CellRef("sweep", 0)),
        replace(tracker).start_cell("b", None, CellRef("sweep", 0)),
    )
    assert first is not None
    assert second is not None
    one, two = client.get_run(first), client.get_run(second)
    assert one.info.experiment_id == two.info.experiment_id


def test_a_failed_write_still_ends_the_run(
    tracker: MlflowTracker, client: MlflowClient, cell: Path, tmp_path: Path
) -> None:
    run_id = tracker.start_cell("cell", None, CellRef("sweep", 0))
    assert run_id is not None
    shutil.rmtree(tmp_path / "out puts" / "mlartifacts", ignore_errors=True)
    (tmp_path / "out puts" / "mlartifacts").write_text("a file where a folder should be", "utf-8")
    with pytest.raises(TrackingError, match="mlartifacts"):
        tracker.finish_cell(run_id, RESULT, cell)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["latency/p50_ms"] == 7.25


def test_a_deleted_experiment_is_reported(tracker: MlflowTracker, client: MlflowClient) -> None:
    run_id = tracker.start_cell("cell", None, CellRef("sweep", 0))
    assert run_id is not None
    client.delete_experiment(client.get_run(run_id).info.experiment_id)
    with pytest.raises(TrackingError, match=r"was deleted: restore it, or choose"):
        replace(tracker).start_cell("cell", None, CellRef("sweep", 0))


def test_an_unreachable_server_is_reported_soon(tracker: MlflowTracker) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        away = replace(tracker, uri=f"http://me:secret@{address}")
        started = time.monotonic()
        with pytest.raises(TrackingError, match=r"tracker=none") as caught:
            away.start_sweep("sweep", "sweep", [])
    assert time.monotonic() - started < 30
    assert address in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["nowhere://x", "postgresql://me:secret@127.0.0.1:9/runs"])
def test_an_unusable_uri_is_reported(tracker: MlflowTracker, uri: str) -> None:
    with pytest.raises(TrackingError, match=r"tracker\.uri") as caught:
        replace(tracker, uri=uri).start_cell("cell", None, CellRef("sweep", 0))
    assert "secret" not in str(caught.value)


def test_none_tracks_nothing(cell: Path) -> None:
    tracker = Component.choice("tracker", "none").build()
    assert isinstance(tracker, NoTracker)
    assert tracker.start_sweep("sweep", "sweep", []) is None
    assert tracker.start_cell("cell", None, CellRef("sweep", 0)) is None
    tracker.finish_cell("", RESULT, cell)
    tracker.finish_sweep("", [], cell, interrupted=False)


CREATE = """
import sys
from crossbench.tracking.mlflow_store import MlflowTracker
from crossbench.tracking.protocol import CellRef
folder, number = sys.argv[1:]
tracker = MlflowTracker("mlflow", f"sqlite:///{folder}/mlflow.db", "crossbench", folder, None, 30)
print(tracker.start_cell("cell", None, CellRef("sweep", int(number))))
"""


@pytest.mark.slow
def test_processes_that_start_at_once_share_one_new_store(tmp_path: Path) -> None:
    draft = tmp_path / "mlflow.db.partial"
    draft.write_text("of a process that was ended while it made the store")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, str(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    ids = set()
    for process in processes:
        out, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        ids.add(out.strip())
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("crossbench")
    found = client.search_runs([experiment.experiment_id])
    assert {run.info.run_id for run in found} == ids
    assert len(ids) == 2
    assert not draft.exists()


def run_in_shell(message: str) -> None:
    """The command at the end of an error message."""
    subprocess.run(["sh", "-c", message.rsplit(": ", 1)[1]], check=True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (["DROP TABLE metrics", "DELETE FROM alembic_version"], "is incomplete: .*contains 0 runs"),
        (["ALTER TABLE runs DROP COLUMN source_name"], "is incomplete"),
        (["UPDATE alembic_version SET version_num = 'cfd24bdc0731'"],
         r"another version of MLflow.* mlflow db upgrade 'sqlite:///\S+ puts/mlflow.db'"),
        ([], "is damaged or not an SQLite file"),
    ],
)  # fmt: skip
def test_a_broken_store_is_reported_with_the_repair_command(
    tracker: MlflowTracker, damage: list[str], words: str
) -> None:
    path = Path(tracker.uri.removeprefix("sqlite:///"))
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for statement in damage:
            database.execute(statement)
    if not damage:
        path.write_text("not a database, and longer than the header of one " * 10)
    path.with_name("mlflow.db-journal").write_text("")
    with pytest.raises(TrackingError, match=words) as caught:
        tracker.start_cell("cell", None, CellRef("sweep", 0))
    run_in_shell(str(caught.value))
    left = {item.name for item in path.parent.iterdir()} - {"mlflow.db.lock"}
    assert {name for name in left if not name.endswith(".broken")} == set()


def test_a_store_that_cannot_be_opened_is_reported_at_once(tracker: MlflowTracker) -> None:
    """SQLite opens it first, because MLflow would retry for over a minute per cell."""
    path = Path(tracker.uri.removeprefix("sqlite:///"))

    def refused(words: str) -> None:
        with pytest.raises(TrackingError, match=words) as caught:
            replace(tracker).start_cell("cell", None, CellRef("sweep", 0))
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError | OSError)

    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("BEGIN EXCLUSIVE")
        refused("database is locked")
    path.unlink()
    path.mkdir()
    refused("Is a directory")


def test_a_draft_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def fail(uri: str) -> Any:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half of it")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        mlflow_sqlite.open_store(tmp_path / "mlflow.db", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db.lock"]


def test_store_paths_are_expanded_from_home_and_the_current_directory(
    tracker: MlflowTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = Path(tracker.uri.removeprefix("sqlite:///")).parent
    monkeypatch.setenv("HOME", str(outputs.parent))
    monkeypatch.chdir(outputs.parent)
    for folder in ("~/out puts", "out puts"):
        here = replace(tracker, uri=f"sqlite:///{folder}/mlflow.db", artifact_location=folder)
        assert here.start_cell("cell", None, CellRef("sweep", 0))
        assert here.find("sweep")
    assert [path.name for path in outputs.parent.iterdir()] == ["out puts"]


def test_a_long_message_keeps_its_end() -> None:
    """The end says what to do."""
    text = shorten("why " * 300 + "do this about it", 600)
    assert len(text) == 600
    assert text.startswith("why why")
    assert "do this about it … [1216 characters]" in text


@pytest.mark.parametrize("length", [0, 49, 50, 51, 1000])
def test_shortened_text_fits(length: int) -> None:
    text = shorten("x" * length, 50)
    assert len(text) == min(length, 50)
