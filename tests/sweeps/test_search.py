"""`hydra/sweeper=optuna`: what a search counts, refuses, measures and reports."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from crossbench.errors import ConfigError
from crossbench.measure.catalogue import BY_NAME
from crossbench.results import Flag, RunResult, Status, load_result, save_result
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.stored_plan import read_plan
from crossbench.sweeps.objective import Objective, read_objective
from crossbench.sweeps.search import Counted, best_cell
from tests.helpers.commands import crossbench, results, runs, the_sweep
from tests.helpers.without_plugins import run_without

STORED = Path(__file__).resolve().parents[1] / "data" / "sweep_of_schema_1" / "1"
RATE, P95 = "throughput/pairs_per_s", "latency/p95_ms"
FASTEST, LOWEST = Objective(BY_NAME[RATE], True), Objective(BY_NAME[P95], False)
SEARCH = ("-m", "hydra/sweeper=optuna", "backend=noop", "quality=none")


def asked(objective: str | None, direction: str | None = None) -> Objective | None:
    given = {"objective": objective, "hydra": {"sweeper": {"direction": direction}}}
    return read_objective(OmegaConf.create(given))


def bounded(result: RunResult, bound_ms: float) -> RunResult:
    report = {**result.config.section("report"), "latency_bound_ms": bound_ms}
    return replace(result, config=CellConfig({**result.config.document, "report": report}))


def test_the_direction_is_that_of_the_metric_unless_it_is_given() -> None:
    assert asked(None) is None
    assert asked(RATE) == FASTEST
    assert asked(P95) == LOWEST
    assert asked(P95, "maximize") == Objective(BY_NAME[P95], True)
    assert asked("startup/warmup_s", "minimize") == Objective(BY_NAME["startup/warmup_s"], False)


@pytest.mark.parametrize(
    ("objective", "direction", "message"),
    [
        ("throughput/pair_per_s", None, "Did you mean throughput/pairs_per_s? Give one of docs/"),
        ("live/pairs_per_s", None, "objective=live/pairs_per_s is not a metric of a cell"),
        ("startup/warmup_s", None, "give hydra.sweeper.direction=maximize or minimize"),
        (RATE, "up", "hydra.sweeper.direction=up is not a direction"),
    ],
)
def test_an_objective_that_cannot_be_used_is_refused(
    objective: str, direction: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        asked(objective, direction)


def test_a_cell_that_nobody_would_serve_has_the_worst_value() -> None:
    cell = load_result(STORED)
    p95_ms = cell.metrics[P95]
    assert FASTEST.value(cell) == cell.metrics[RATE]
    assert FASTEST.value(bounded(cell, 2 * p95_ms)) == cell.metrics[RATE]
    without = {name: value for name, value in cell.metrics.items() if name != P95}
    for worst, why in (
        (replace(cell, status=Status.FAILED, error="killed", metrics={}), "failed: killed"),
        (replace(cell, flags={Flag.OVER_SATURATED: "too fast"}), "it is over-saturated"),
        (replace(cell, quality={"verdict": "changes"}), "it changes the ranking"),
        (bounded(cell, p95_ms / 2), "report.latency_bound_ms="),
        (bounded(replace(cell, metrics=without), p95_ms), "it has no p95"),
    ):
        assert why in FASTEST.disqualified(worst)
        assert FASTEST.value(worst) == -math.inf
        assert LOWEST.value(worst) == math.inf
    assert "it has no latency/p95_ms" in LOWEST.disqualified(replace(cell, metrics=without))


def saved(result: RunResult, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    save_result(result, folder)


def with_ranking(result: RunResult, quant: str, verdict: str | None, rate: float) -> RunResult:
    return replace(
        result,
        config=CellConfig({**result.config.document, "quant": {"name": quant}}),
        quality={} if verdict is None else {"verdict": verdict},
        metrics={**result.metrics, RATE: rate},
    )


def test_an_unverified_precision_counts_only_while_no_cell_ranks_safely(tmp_path: Path) -> None:
    """As in reports: `advice/candidates.py` leaves it out too."""
    cell = load_result(STORED)
    unverified = with_ranking(cell, "int8", "cannot say", 30.0)
    others = [tmp_path / name for name in ("0", "1", "2")]
    others[0].mkdir()  # a cell that is still running
    for folder, other in zip(
        others[1:],
        (
            with_ranking(cell, "int8", None, 20.0),
            replace(with_ranking(cell, "fp32", None, 20.0), metrics={}),
        ),
        strict=True,
    ):
        saved(other, folder)
    assert FASTEST.value(unverified, others) == 30.0
    for quant, verdict in (("fp32", None), ("fp32", "cannot say"), ("int8", "same order")):
        safe = with_ranking(cell, quant, verdict, 10.0)
        assert FASTEST.value(safe, others) == 10.0
        saved(safe, others[2])
        why = "its ranking is not verified, but that of another cell is safe"
        assert FASTEST.disqualified(unverified, others) == why
        assert FASTEST.value(unverified, others) == -math.inf


def test_the_best_cell_ranks_safely_if_one_does(tmp_path: Path) -> None:
    """An unverified precision that was measured first has a value, but is not the best."""
    cell = load_result(STORED)
    found = [Counted(30.0, 0, {}), Counted(10.0, 1, {}), Counted(20.0, 2, {})]
    for counted, quant in zip(found, ("int8", "fp32", "fp32"), strict=True):
        saved(with_ranking(cell, quant, None, counted.value), tmp_path / str(counted.number))
    assert best_cell(FASTEST, found, tmp_path) == found[2]
    assert best_cell(replace(FASTEST, maximize=False), found, tmp_path) == found[1]
    assert best_cell(FASTEST, found[:1], tmp_path) is None
    for number in ("1", "2"):
        saved(with_ranking(cell, "int8", None, 1.0), tmp_path / number)
    assert best_cell(FASTEST, found, tmp_path) == found[0]
    assert best_cell(FASTEST, [], tmp_path) is None


def test_without_the_plugin_the_message_says_what_to_install(tmp_path: Path) -> None:
    missing = ("hydra_plugins", "optuna")
    done = run_without(missing, *SEARCH, f"objective={RATE}", "batch=4,8", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("crossbench: hydra/sweeper=optuna needs the package hydra-optuna")
    assert "pip install 'crossbench[optuna]'" in done.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*SEARCH, "batch=4,8"], "needs an objective: give objective=throughput/pairs_per_s"),
        pytest.param(
            [*SEARCH, f"objective={RATE}"], "a search needs values to choose from",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [*SEARCH, f"objective={RATE}", "batch=4,8", "repeats=3"],
            "repeats needs the sweeper of crossbench", marks=pytest.mark.slow,
        ),
        pytest.param(
            [*SEARCH, f"objective={RATE}", "backend=noop,no"],
            "there is no choice backend=no", marks=pytest.mark.slow,
        ),
        pytest.param(
            [*SEARCH, "objective=throughput/texts_per_s", "batch=4,8"],
            "no cell of this search has it: give objective=throughput/pairs_per_s",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [*SEARCH, "objective=quality/ndcg_at_10", "batch=4,8"],
            "leave out quality=none", marks=pytest.mark.slow,
        ),
        pytest.param(
            [*SEARCH, f"objective={RATE}", "batch=4,8", "hydra/sweeper/sampler=grid"],
            "measures every combination", marks=pytest.mark.slow,
        ),
        pytest.param(
            ["-m", "backend=noop", f"objective={RATE}", "batch=4,8"],
            "is for a search, but this sweep measures every combination", marks=pytest.mark.slow,
        ),
        pytest.param(
            [f"objective={RATE}"], "give -m hydra/sweeper=optuna", marks=pytest.mark.slow
        ),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_made_is_refused_before_it_starts(
    overrides: list[str], message: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    done = crossbench(*overrides, outputs=tmp_path, environment=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("crossbench: ")
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


QUICK_CELLS = (
    "stop=fixed", "requests=6", "warmup_requests=1", "warmup_max_seconds=0.2",
    "dataset.queries=4", "dataset.passages_per_query=40",
)  # fmt: skip


@pytest.mark.slow
def test_a_search_measures_reports_and_tracks_its_cells(
    outputs: Path, environment: dict[str, str]
) -> None:
    """Each pair takes 10 ms, so requests of 64 break the bound, on a busy machine too."""
    done = crossbench(
        *SEARCH, *QUICK_CELLS, f"objective={RATE}", "hydra.sweeper.n_trials=9",
        "backend.service_us_per_pair=10000", "backend.service_kind=sleep",
        "report.latency_bound_ms=400", "batch=0,2,64", "concurrency=interval(1,2)",
        outputs=outputs, environment=environment,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr  # the cells with batch=0 failed
    assert "Traceback" not in done.stderr
    sweep = the_sweep(outputs)
    found = {
        (cell["config"]["batch"], cell["config"]["concurrency"]): cell["status"]  # type: ignore[index]
        for cell in results(sweep)
    }
    assert len(found) == 6  # every combination, each once, though nine were asked for
    assert {batch for (batch, _), status in found.items() if status == "failed"} == {0}
    counted = re.findall(r"not counted, because its p95 is [\d.,]+ ms, and .*=400", done.stderr)
    assert len(counted) == 2
    (best,) = re.findall(r"the best value of 6 cells is .* in cell (\d) \(batch=2 ", done.stderr)
    written = OmegaConf.load(sweep / "optimization_results.yaml")
    assert written.best_params.batch == 2
    metrics = json.loads((sweep / str(int(best) - 1) / "result.json").read_text("utf-8"))["metrics"]
    assert written.best_value == metrics[RATE]
    assert (sweep / "report.md").is_file()
    assert (sweep / "results.csv").read_text("utf-8").count("\n") == 7
    plan = read_plan(sweep)
    assert plan is not None
    assert len(plan.runs) == 6
    tracked = runs(outputs)
    assert len(tracked) == 7
    (parent,) = (run for run in tracked if "mlflow.parentRunId" not in run.data.tags)
    assert parent.info.status == "FAILED"  # as of every sweep with failed cells
