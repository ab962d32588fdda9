"""docs/result.schema.json is current, and what cells write fits it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from crossbench.report.result_schema import schema_text
from crossbench.results import RunResult, Status, load_result, save_result
from crossbench.runner.cell import measure_cell
from crossbench.runner.event_stream import EventStream
from crossbench.settings.cell_config import CellConfig
from tests.helpers.measured import measured
from tests.helpers.places import REPO
from tests.helpers.plans import config_of
from tests.helpers.result_schema import SCHEMA, check_result_file, problems, schema

OLD_SWEEP = REPO / "tests" / "data" / "sweep_of_schema_1"
QUICK = (
    "backend=noop", "tracker=none", "dashboard=none", "dataset.queries=4", "stop=fixed",
    "dataset.passages_per_query=40", "max_seconds=20", "warmup_requests=1", "requests=20",
    "warmup_max_seconds=0.2",
)  # fmt: skip


def written(result: RunResult, folder: Path) -> dict[str, Any]:
    save_result(result, folder)
    check_result_file(folder)
    document: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    return document


def test_the_published_schema_is_current() -> None:
    assert SCHEMA.read_text("utf-8") == schema_text(), "run make result-schema"
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize(
    ("overrides", "status"),
    [
        ([], "finished"),
        pytest.param(
            ["load=ramp", "load.levels=[1,2]", "requests=null", "max_seconds=2"],
            "finished",
            marks=pytest.mark.slow,
        ),
        (["batch=0"], "failed"),
        (["backend=pytorch", "quant=int4"], "unsupported"),
    ],
)
def test_results_of_cells_fit_the_schema(
    overrides: list[str], status: str, cache_dir: Path, tmp_path: Path
) -> None:
    config = config_of(*QUICK, f"cache_dir={cache_dir}", *overrides)
    outcome = measure_cell(config, EventStream(io.StringIO()))
    document = written(outcome.result, tmp_path)
    assert (document["status"], document["schema_version"]) == (status, 2)
    assert bool(document["steps"]) == ("load=ramp" in overrides)


def test_results_without_a_measurement_and_with_odd_values_fit_too(tmp_path: Path) -> None:
    written(RunResult(Status.UNAVAILABLE, CellConfig({}), "", error="no such device"), tmp_path)
    odd = {"latency/p95_ms": float("nan"), "latency/p99_ms": float("inf")}
    document = written(RunResult(Status.FINISHED, CellConfig({}), "", metrics=odd), tmp_path)
    assert set(document["metrics"].values()) == {None}


def test_stored_results_fit_once_they_are_read(tmp_path: Path) -> None:
    """Old files have another version and another schema; what is read from them has this one."""
    for cell in sorted(OLD_SWEEP.glob("[0-9]*")):
        old = json.loads((cell / "result.json").read_text("utf-8"))
        assert any("schema_version" in problem for problem in problems(old))
        save_result(load_result(cell), tmp_path)
        assert problems(json.loads((tmp_path / "result.json").read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.update(status="done"), "'done' is not one of"),
        (lambda found: found.pop("cell_id"), "'cell_id' is a required property"),
        (lambda found: found.update(schema_version=3), "2 was expected"),
        (lambda found: found["metrics"].update({"latency/p50_ms": "fast"}), "is not of type"),
        (lambda found: found["flags"].update(odd="x"), "'odd' is not one of"),
        (lambda found: found.update(model={"name": 3}), "3 is not of type 'string'"),
        (lambda found: found.update(steps=[{"label": "1"}]), "'start_s' is a required property"),
        (lambda found: found.update(warnings=[1]), "is not of type 'string'"),
    ],
)
def test_what_is_no_result_is_refused(
    change: Callable[[dict[str, Any]], object], words: str, tmp_path: Path
) -> None:
    save_result(measured(100.0, model=""), tmp_path)
    found = json.loads((tmp_path / "result.json").read_text("utf-8"))
    change(found)
    assert any(words in problem for problem in problems(found))
