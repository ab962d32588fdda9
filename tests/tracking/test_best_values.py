"""The best values of a sweep's run in MLflow are of cells that a report could recommend."""

from __future__ import annotations

from dataclasses import replace

from crossbench.measure.catalogue import BEST, CELLS, PAIRS_PER_S
from crossbench.measure.ranking import Verdict
from crossbench.results import RunResult, Status
from crossbench.settings.cell_config import CellConfig
from crossbench.tracking.mlflow_format import sweep_metrics


def cell(pairs_per_s: float, quant: str, verdict: Verdict) -> RunResult:
    return RunResult(
        Status.FINISHED,
        CellConfig({"quant": {"name": quant}}),
        "",
        metrics={PAIRS_PER_S.name: pairs_per_s},
        quality={"verdict": verdict.value},
    )


def best(*cells: RunResult) -> float:
    return sweep_metrics(cells)[BEST[PAIRS_PER_S.name].name]


def test_an_unverified_or_changed_ranking_is_not_the_best() -> None:
    reference = cell(100, "fp32", Verdict.REFERENCE)
    keeps = cell(150, "int8", Verdict.KEEPS)
    unsure = cell(300, "int8", Verdict.UNSURE)
    changes = cell(900, "int8", Verdict.CHANGES)
    assert best(reference, unsure, changes) == 100
    assert best(reference, keeps, unsure) == 150
    assert best(unsure, changes) == 300  # nothing was verified


def test_cells_of_unlike_machines_have_no_best() -> None:
    cells = [cell(rate, "fp32", Verdict.KEEPS) for rate in (100, 200)]
    hosts = [{"host": name, "cpu": "EPYC", "cores_usable": 2} for name in ("a", "b")]
    alike = [replace(item, environment=host) for item, host in zip(cells, hosts, strict=True)]
    assert best(*alike) == 200
    more_cores = {**hosts[1], "cores_usable": 4}
    unlike = [alike[0], replace(alike[1], environment=more_cores)]
    failed = replace(unlike[1], status=Status.FAILED)
    assert best(alike[0], failed) == 100  # only one machine measured
    assert sweep_metrics(unlike) == {
        metric.name: 2.0 * (status == Status.FINISHED) for status, metric in CELLS.items()
    }
