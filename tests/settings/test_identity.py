"""The identity of cells, also of results from older versions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import crossbench
from crossbench.report.summaries import summarise_cells
from crossbench.report.sweep import read_runs, write_sweep_report
from crossbench.results import SCHEMA_VERSION, load_result, save_result
from crossbench.settings.cell_config import CellConfig
from crossbench.sweeps.upload import upload_sweep
from crossbench.tracking.mlflow_store import MlflowTracker
from tests.helpers.places import REPO
from tests.helpers.plans import config_of

OLD = REPO / "tests/data/sweep_of_schema_1"
AS_OLD = ("stop=fixed", "batch=4", "requests=12", "max_seconds=20", "warmup_requests=1")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def changed(config: CellConfig, group: str, **values: Any) -> CellConfig:
    return CellConfig({**config.document, group: {**config.section(group), **values}})


def test_moving_a_class_changes_no_identity() -> None:
    config = config_of("backend=noop")
    assert changed(config, "backend", _target_="elsewhere.Noop").cell_id == config.cell_id


def test_a_new_key_with_null_or_its_old_value_changes_no_identity() -> None:
    config = config_of("backend=noop")
    assert changed(config, "backend", new_key=None).cell_id == config.cell_id
    load = {key: value for key, value in config.section("load").items() if key != "task"}
    assert CellConfig({**config.document, "load": load}).cell_id == config.cell_id
    assert changed(config, "load", task="embed").cell_id != config.cell_id
    assert changed(config, "backend", new_key=1).cell_id != config.cell_id


def test_tracker_and_dashboard_change_no_identity() -> None:
    config = config_of("backend=noop")
    for override in ("tracker=none", "dashboard=none", "outputs_dir=x", "repeat=3", "quality=none"):
        assert config_of("backend=noop", override).cell_id == config.cell_id
    for override in ("batch=8", "quant=bf16", "model.seed=2", "server.max_pairs=2000"):
        assert config_of("backend=noop", override).cell_id != config.cell_id


def test_equal_numbers_have_the_same_identity() -> None:
    whole, real = config_of("max_seconds=15"), config_of("max_seconds=15.0")
    assert whole.cell_id == real.cell_id
    assert whole.cell_id != config_of("max_seconds=15.5").cell_id


def test_the_flat_form_of_frames_has_the_same_identity() -> None:
    config = config_of("backend=onnx", "quant=int8")
    assert CellConfig(config.comparable.flat).cell_id == config.cell_id


def test_old_results_join_new_ones_of_the_same_cell(old: Path) -> None:
    stored = json.loads((old / "0/result.json").read_text("utf-8"))
    assert stored["schema_version"] == 1
    result = load_result(old / "0")
    assert result.cell_id == config_of("backend=noop", *AS_OLD).cell_id != stored["cell_id"]
    # The old result and one measured today are repeats of one cell
    again = old / "2"
    again.mkdir()
    new = config_of("backend=noop", *AS_OLD, "repeat=1")
    kept = {name: getattr(result, name) for name in ("status", "metrics", "model", "quality")}
    save_result(type(result)(config=new, cell_id=new.cell_id, **kept), again)
    joined = summarise_cells(read_runs(old))
    assert sorted(len(cell.runs) for cell in joined) == [1, 2]
    assert (
        json.loads((again / "result.json").read_text("utf-8"))["schema_version"] == SCHEMA_VERSION
    )


def test_old_results_are_reported_and_read_as_before(old: Path) -> None:
    report = write_sweep_report(old).read_text("utf-8")
    assert "pytorch" in report
    assert "856" in report
    frame = crossbench.load_sweep(old)
    assert list(frame["backend"]) == ["noop", "pytorch"]
    assert frame["throughput/pairs_per_s"].round().tolist() == [856, 30]
    assert len(crossbench.load_requests(old)) == 24


def test_old_results_are_uploaded_and_come_back_with_today_s_identity(
    old: Path, tmp_path: Path, migrated_store: Path
) -> None:
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = MlflowTracker("mlflow", uri, "old", str(tmp_path / "artifacts"), None, 10)
    assert upload_sweep(old, tracker).uploaded == 2
    assert upload_sweep(old, tracker).uploaded == 0
    stored: pd.DataFrame = crossbench.load_runs(uri, experiment="old")
    assert list(stored["cell_id"]) == list(crossbench.load_sweep(old)["cell_id"])


def test_tracked_runs_of_an_older_version_have_today_s_identity(
    old: Path, tmp_path: Path, migrated_store: Path
) -> None:
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = MlflowTracker("mlflow", uri, "old", str(tmp_path / "artifacts"), None, 10)
    upload_sweep(old, tracker)
    for run in tracker.cells():
        tracker._connection.client.set_tag(run.info.run_id, "cell_id", "dcdf8cfe9cc2")
    stored = crossbench.load_runs(uri, experiment="old")
    assert list(stored["cell_id"]) == list(crossbench.load_sweep(old)["cell_id"])
