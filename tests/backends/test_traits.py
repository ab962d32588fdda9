"""Tests that code uses the traits of backends and studies and not their names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from crossbench.backends.availability import Missing, Supported
from crossbench.backends.base import Traits
from crossbench.backends.noop import NoopBackend
from crossbench.models.folder import ModelFolder
from crossbench.report.advice.bottlenecks import bottlenecks
from crossbench.report.advice.candidates import select_candidates
from crossbench.report.cells import Run
from crossbench.report.suite import STUDY_FILE, SUITE_FILE, write_suite_report
from crossbench.report.summaries import summarise_cells
from crossbench.report.verdicts import sweep_verdicts
from crossbench.results import RunResult, Status, save_result
from crossbench.runner.compose import build_reference, build_server
from crossbench.serving import inference_pb2 as pb
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.places import conf_dir
from crossbench.settings.plan import make_plan
from crossbench.suite import skip_reason
from crossbench.types import Quant
from tests.helpers.plans import config_of, plan_of, with_nodes


@pytest.mark.parametrize(
    ("overrides", "computes_scores", "is_reference"),
    [
        (["backend=noop"], False, False),
        (["backend=packed"], True, False),
        (["backend=pytorch", "device=cpu"], True, True),
        (["backend=pytorch", "device=cpu", "quant=int8"], True, False),
        (["backend=pytorch", "device=cpu", "pipeline=tokenize"], False, False),
    ],
)
def test_server_info_has_the_traits_of_its_scores(
    overrides: list[str], computes_scores: bool, is_reference: bool, seeded_model: ModelFolder
) -> None:
    plan = plan_of(*overrides, "pool.workers=1", cache_dir=seeded_model.path.parent)
    server = build_server(plan, seeded_model)
    served: pb.ModelInfo = server.info.models[0]
    assert served.HasField("computes_scores")
    assert (served.computes_scores, served.is_reference) == (computes_scores, is_reference)


def test_the_reference_server_is_marked_as_reference(seeded_model: ModelFolder) -> None:
    plan = plan_of("backend=noop", cache_dir=seeded_model.path.parent)
    server = build_reference(plan, seeded_model)
    assert server.info.models[0].is_reference


@dataclass
class SlowOnCpu(NoopBackend):
    supported: ClassVar[Supported] = {Quant.FP32: ("mps", "cpu")}
    traits: ClassVar[Traits] = Traits(too_slow_on=("cpu",))

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        return None if device == "cpu" else Missing("there is no GPU", "buy one")


def test_a_suite_skips_a_backend_on_a_device_that_is_too_slow() -> None:
    node = {"_target_": f"{__name__}.SlowOnCpu", "name": "slow"}
    reason = str(skip_reason(make_plan(with_nodes(config_of(), backend=node))))
    assert reason.startswith(
        "backend=slow finds no device=mps, and is too slow to measure on device=cpu"
    )
    assert skip_reason(make_plan(with_nodes(config_of("device=cpu"), backend=node))) is None


def run(backend: str, pairs_per_s: float, model: dict[str, Any], **config: Any) -> Run:
    result = RunResult(
        status=Status.FINISHED,
        config=CellConfig({"backend": {"name": backend}, "batch": 8, "concurrency": 1, **config}),
        cell_id=backend,
        metrics={
            "throughput/pairs_per_s": pairs_per_s,
            "latency/p95_ms": 8e3 / pairs_per_s,
            "requests/ok": 500,
        },
        model={"name": "m", "backend": backend, **model},
    )
    return Run(backend, result)


def test_a_backend_without_a_model_is_never_recommended_but_shows_the_harness_limit() -> None:
    no_model = run("sleepy", 1000, {"computes_scores": False})
    joined = summarise_cells([no_model, run("onnx", 500, {"computes_scores": True})])
    assert select_candidates(joined).excluded == {"sleepy": "runs no model"}
    found = bottlenecks(joined, ["backend"], sweep_verdicts(joined))
    evidence = " ".join(found.evidence)
    assert "50 % of the throughput of backend=sleepy is reached" in evidence


def test_noop_is_recognised_in_old_results_without_traits() -> None:
    joined = summarise_cells([run("noop", 1000, {}), run("onnx", 500, {})])
    assert select_candidates(joined).excluded == {"noop": "runs no model"}


def test_a_suite_compares_the_marked_studies(tmp_path: Path) -> None:
    """It takes the first of each role that has results, whatever the studies' names and order."""
    marks = {
        "any": {},
        "plain": {"baseline": 2},
        "broken": {"baseline": 1},
        "tuned": {"optimum": 2},
        "best": {"optimum": 1},
    }
    speeds = {"any": 900, "plain": 100, "broken": 0, "tuned": 300, "best": 400}
    for name, report in marks.items():
        folder = tmp_path / name / "0"
        folder.mkdir(parents=True)
        (tmp_path / name / STUDY_FILE).write_text('{"exit_status": 0}')
        if speeds[name]:
            save_result(run(name, speeds[name], {}, report=report).result, folder)
        else:
            broken = RunResult(
                Status.UNAVAILABLE, CellConfig({"report": report}), name, error="no GPU"
            )
            save_result(broken, folder)
    state = {"studies": list(marks), "overrides": [], "skipped": {}}
    (tmp_path / SUITE_FILE).write_text(json.dumps(state))
    text = write_suite_report(tmp_path).read_text("utf-8")
    section = text.split("## Baseline against production optimum")[1].split("\n## ")[0]
    assert "baseline: plain, plain" in section
    assert "optimum: best, best" in section
    assert "+300 %" in section


def test_which_studies_are_marked() -> None:
    marked = {}
    for path in (conf_dir() / "experiment").glob("*.yaml"):
        report = config_of(f"+experiment={path.stem}").section("report")
        places = {role: report[role] for role in ("baseline", "optimum")}
        marked |= {(role, place): path.stem for role, place in places.items() if place}
    assert marked == {
        ("baseline", 1): "02_backend_mps",
        ("baseline", 2): "01_backend_pytorch",
        ("optimum", 1): "15_production_optimal",
        ("optimum", 2): "14_optimized_production",
    }
