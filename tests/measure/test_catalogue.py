"""The catalogue of metrics is complete, the only place with metric names, and easy to extend."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from crossbench.measure import catalogue
from crossbench.measure.correlation import correlation_intervals, correlation_metrics
from crossbench.measure.cost import throughput_costs
from crossbench.measure.frequency import FrequencyRange
from crossbench.measure.harness import HarnessMeter
from crossbench.measure.metric import Better, Kind, View
from crossbench.measure.ranking_metrics import ScoredList, quality_metrics, query_qualities
from crossbench.measure.rate_windows import throughput_interval
from crossbench.measure.statistics import summarise, windows
from crossbench.models.folder import ModelFolder
from crossbench.report.columns import metric_text, text_with_unit
from crossbench.report.metrics_doc import metrics_doc
from crossbench.results import Status, cell_folders, load_result
from crossbench.runner.result import server_metrics
from crossbench.serving import inference_pb2 as pb
from crossbench.tracking.mlflow_format import sweep_metrics
from crossbench.types import RequestRecord, Task
from tests.helpers.places import REPO

KNOWN = catalogue.BY_NAME.keys()
STORED = REPO / "tests" / "data" / "sweep_of_schema_1"
# Files that compute or describe metrics
DESCRIBED = [REPO / "crossbench" / "measure" / name for name in ("catalogue.py", "metric.py")]
COMPUTED = [
    *(path for path in (REPO / "crossbench" / "measure").glob("*.py") if path not in DESCRIBED),
    *(REPO / "crossbench" / "runner" / name for name in ("measure.py", "result.py")),
]
TYPED = re.compile(r"[a-z]+/[a-z0-9_]+")


def records() -> list[RequestRecord]:
    """Return fifty requests over five seconds with varying lengths, one of which failed."""
    rng = np.random.default_rng(0)
    times = [(number / 10, number / 10 + rng.uniform(0.05, 0.2)) for number in range(50)]
    return [
        RequestRecord(
            number, sent, sent, received, pairs=8, tokens=int(rng.integers(400, 800)),
            truncated=1, tokenize_ms=1.0, queue_ms=2.0, infer_ms=5.0,
            status="UNAVAILABLE" if number == 7 else "OK",
        )
        for number, (sent, received) in enumerate(times)
    ]  # fmt: skip


def many_records() -> list[RequestRecord]:
    """Return three hundred requests of a steady server, enough for every interval."""
    rng = np.random.default_rng(1)
    records, now_s = [], 0.0
    for number in range(300):
        sent_s, now_s = now_s, now_s + rng.uniform(0.05, 0.07)
        records.append(
            RequestRecord(
                number, sent_s, sent_s, now_s, pairs=8, tokens=int(rng.integers(400, 800)),
                truncated=1, tokenize_ms=1.0, queue_ms=2.0, infer_ms=45.0, status="OK",
            )
        )  # fmt: skip
    return records


def lists() -> list[ScoredList]:
    """Return twelve judged lists of twelve passages, with noisy scores."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(12):
        reference = rng.normal(size=12).astype(np.float32)
        noise = rng.normal(size=12).astype(np.float32)
        ids = tuple(f"p{place}" for place in range(12))
        grades = (1, *[0] * 11)
        found.append(ScoredList(f"q{number}", ids, reference + noise, reference, grades))
    return found


def harness_metrics(cpus: Path) -> dict[str, float]:
    """Return what the meter measures on this system with a folder `cpus` like that of Linux."""
    for name in ("cpufreq/scaling_cur_freq", "thermal_throttle/core_throttle_count"):
        path = cpus / "cpu0" / name
        path.parent.mkdir(parents=True)
        path.write_text("1000\n", "ascii")

    async def measured() -> dict[str, float]:
        meter = HarnessMeter(None, frequency=FrequencyRange(cpus))
        async with meter.watch([]):
            await asyncio.sleep(0.1)
        return meter.metrics()

    return asyncio.run(measured())


def test_all_computed_metrics_are_in_the_catalogue(tmp_path: Path) -> None:
    startup = pb.Startup(rss_load_peak_mb=1.0)
    info = pb.ServerInfo(models=[pb.ModelInfo(model_mb=1.0)], startup=startup)
    after = pb.Metrics(
        batches=2, batch_pairs=8, batch_tokens=80, tokens_computed=100, device_memory_peak_mb=1.0
    )
    emitted = {*harness_metrics(tmp_path)}
    for task in Task:
        emitted |= {
            *summarise(records(), task),
            *correlation_metrics(records()),
            *throughput_costs(summarise(records(), task), task.unit, price_per_hour=1.2),
            *correlation_intervals(many_records()),
            *throughput_interval(
                many_records(), catalogue.throughput(task.unit), summarise(many_records(), task)
            ),
            *quality_metrics(query_qualities(lists()), seed=0),
            *server_metrics(info, pb.Metrics(), after, 1.0, task),
        }
        series = windows(records()).series(task).keys() - {"time_s"}
        assert {catalogue.live_name(name) for name in series} <= KNOWN
    assert emitted <= KNOWN
    # Every metric of the catalogue is emitted; runner/measure.py emits these three
    assert {metric.name for metric in catalogue.METRICS} - emitted == {
        "startup/warmup_s",
        "harness/cores_used",
        "compile/recompilations",
        *(() if sys.platform == "linux" else ("harness/cpu_pressure", "harness/cpu_steal")),
    }


def test_all_metrics_of_stored_results_are_in_the_catalogue() -> None:
    results = [load_result(folder) for folder in cell_folders(STORED)]
    assert len(results) == 2
    for result in results:
        assert result.metrics
        assert result.metrics.keys() <= KNOWN
        assert {catalogue.live_name(name) for name in result.series if name != "time_s"} <= KNOWN
    found = {metric.name for metric in (*catalogue.CELLS.values(), *catalogue.BEST.values())}
    # No cell has enough requests for a p95 that can be compared
    assert sweep_metrics(results).keys() == found - {"best/p95_ms"}


def test_metric_names_in_the_code_that_computes_them_are_in_the_catalogue() -> None:
    """This includes metrics that this machine never emits: device memory, recompilations."""
    found = 0
    for path in COMPUTED:
        for line, template in templates(ast.parse(path.read_text("utf-8"))):
            if TYPED.match(template.replace(ANY, "a")):
                pattern = re.escape(template).replace(ANY, ".+")
                place = f"{path.name}:{line} types {template!r}"
                assert any(re.fullmatch(pattern, name) for name in KNOWN), place
                found += 1
    assert found > 40


def test_the_catalogue_is_consistent() -> None:
    assert len(KNOWN) == len(catalogue.ALL)
    assert catalogue.CELLS.keys() == {status.value for status in Status}
    assert tuple(task.unit for task in Task) == catalogue.UNITS
    for metric in catalogue.ALL:
        assert TYPED.fullmatch(metric.name)
        assert metric.about.endswith(".")
        assert metric.title
    for view in View:
        assert catalogue.shown(view), f"nothing is shown in {view}"
    # These two tables show only these metrics
    assert set(catalogue.shown(View.CELL_STAGES)) == set(catalogue.STAGE.values())
    assert {m.family for m in catalogue.shown(View.CELL_LATENCY)} == {"latency", "service"}
    for metric in catalogue.shown(View.MLFLOW_BEST):
        assert metric.better is not Better.NEITHER


def test_formatting_of_values() -> None:
    p95, change = catalogue.P95_LATENCY, catalogue.NDCG_AT_10_CHANGE
    assert (p95.heading, p95.label) == ("p95 (ms)", "p95 latency (ms)")
    assert (catalogue.PAIRS_PER_S.heading, catalogue.PAIRS_PER_S.label) == (
        "pairs/s",
        "throughput (pairs/s)",
    )
    few = {p95.name: 12.34, catalogue.REQUESTS_OK.name: 99.0}
    assert metric_text(p95, few) == "~12.3 (n=99)"
    assert text_with_unit(p95, {**few, catalogue.REQUESTS_OK.name: 100.0}) == "12.3 ms"
    assert metric_text(p95, {}) == "–"
    assert catalogue.REQUESTS_OK.text(12345.0) == "12,345"
    assert catalogue.PADDING_WASTE.text(0.1234) == "12.3"
    assert catalogue.PADDING_WASTE.heading == "padding waste (%)"
    values = {change.name: -0.012, change.low: -0.02, change.high: 0.003}
    assert metric_text(change, values) == "-1.2 % (-2.0 % … +0.3 %)"
    assert change.kind is Kind.CHANGE
    assert change.heading == "nDCG@10 vs fp32"
    assert catalogue.KENDALL_TAU.text(float("nan")) == "–"
    assert Better.LOWER.pick([3.0, 2.0]) == 2.0
    assert Better.HIGHER.pick([3.0, 2.0]) == 3.0


def test_the_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys; import crossbench.measure.catalogue; "
        "print(sorted({'numpy', 'pandas', 'scipy', 'hydra', 'grpc'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, check=True)
    assert done.stdout.strip() == "[]"


def test_the_generated_page_of_metrics_is_up_to_date() -> None:
    page = (REPO / "docs" / "metrics.md").read_text("utf-8")
    assert page == metrics_doc(), "docs/metrics.md is not current: run make metrics-doc"
    for name in KNOWN:
        assert page.count(f"| `{name}` ") == 1


# Detection of metric names in string literals

ANY = "\0"  # placeholder for the fields of an f-string


def templates(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of all strings except docstrings, with ANY for f-string fields."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            parts = [
                str(part.value) if isinstance(part, ast.Constant) else ANY for part in node.values
            ]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [(node.lineno, node.value)] * (id(node) not in skipped)


def is_name(template: str) -> bool:
    """Return whether a string contains, starts, ends or builds the name of a metric."""
    literals = [part for part in template.split(ANY) if part]
    words = re.compile(r"(?<![\w/.])[a-z]+/[a-z0-9_]+(?![\w/])")
    if any(found in KNOWN for part in literals for found in words.findall(part)):
        return True
    if template.endswith("/s"):  # a unit
        return False
    if literals == [template]:
        begins = "/" in template and any(name.startswith(template) for name in KNOWN)
        ends = len(template) > 1 and template[0] == "/"
        return begins or (ends and any(name.endswith(template) for name in KNOWN))
    if literals in (["_low"], ["_high"]):
        return True
    told = "".join(literals)
    if "/" not in told or told == "/":
        return False
    pattern = re.escape(template).replace(ANY, "[a-z0-9_]+")
    return any(re.fullmatch(pattern, name) for name in KNOWN)


@pytest.mark.parametrize(
    ("source", "is_one"),
    [
        ('x["latency/p95_ms"]', True),
        ('x[f"latency/p{q}_ms"]', True),
        ('x[f"{kind}/{name}_ms"]', True),
        ('x[f"cells/{status}"]', True),
        ('x.startswith("live/")', True),
        ('x = "quality/" + name', True),
        ('x = kind + "/p50_ms"', True),
        ('x = "metrics.`memory/model_mb`"', True),
        ('x = f"metrics.`memory/model_mb` {y}"', True),
        ('x = f"{name}_low"', True),
        ('"latency/p95_ms"', False),
        ('x = "hydra/help=sync"', False),
        ('x = "requests/s"', False),
        ('x = f"{unit}/s"', False),
        ('x = f"{study}/{run}"', False),
        ('x = f"outputs/{name}_ms.png"', False),
    ],
)
def test_detection_of_metric_names(source: str, is_one: bool) -> None:
    assert any(is_name(text) for _, text in templates(ast.parse(source))) is is_one


def test_metric_names_occur_only_where_they_are_computed_and_described() -> None:
    files = [
        path
        for folder in ("crossbench", "benchmarks", "hydra_plugins")
        for path in (REPO / folder).rglob("*.py")
        if path not in (*COMPUTED, *DESCRIBED)
    ]
    assert len(files) > 100
    found = [
        f"{path.relative_to(REPO)}:{line}: {text.replace(ANY, '{…}')!r}"
        for path in files
        for line, text in templates(ast.parse(path.read_text("utf-8")))
        if is_name(text)
    ]
    assert not found, "take these names from crossbench.measure.catalogue"


# The worked example of CONTRIBUTING.md

EXAMPLE = "requests/tokens_mean"
ASK = f"""
import json
from pathlib import Path
from crossbench import load_sweep
from crossbench.report.metrics_doc import metrics_doc
from crossbench.tracking.mlflow_format import LEADING_METRICS
(sweep,) = [path for path in Path("outputs").iterdir() if (path / "results.csv").exists()]
print(json.dumps({{
    "frame": load_sweep(sweep)["{EXAMPLE}"].tolist(),
    "first in MLflow": "{EXAMPLE}" in LEADING_METRICS,
    "page": metrics_doc(),
}}))
"""


def apply(diff: str, root: Path) -> None:
    """Insert the lines marked with `+` after the line before them, which must be unique."""
    path, *lines = diff.removeprefix("--- ").splitlines()
    before = "".join(f"{line[1:]}\n" for line in lines if line.startswith(" "))
    added = "".join(f"{line[1:]}\n" for line in lines if line.startswith("+"))
    assert added
    text = (root / path).read_text("utf-8")
    assert text.count(before) == 1, f"{path} has changed: CONTRIBUTING.md's example does not fit it"
    (root / path).write_text(text.replace(before, before + added), "utf-8")


@pytest.mark.slow
def test_a_new_metric_takes_two_files_and_is_shown(
    tmp_path: Path, outputs: Path, seeded_model: ModelFolder
) -> None:
    for folder in ("crossbench", "conf"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPO / folder, tmp_path / folder, ignore=ignored)
    text = (REPO / "CONTRIBUTING.md").read_text("utf-8")
    diffs = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)
    assert {diff.split()[1] for diff in diffs} == {
        "crossbench/measure/statistics.py",
        "crossbench/measure/catalogue.py",
    }
    for diff in diffs:
        apply(diff, tmp_path)

    def run(*arguments: str) -> str:
        path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
        cache = str(seeded_model.path.parent)
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "CROSSBENCH_CACHE": cache},
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    told = run(
        "-m", "crossbench", "-m", "backend=noop", "batch=4", "max_seconds=1",
        "warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed",
        "dashboard=none", "dataset.queries=4", f"outputs_dir={outputs}",
    )  # fmt: skip
    assert "tokens per request" in told  # the table in the terminal
    (csv,) = outputs.glob("*/results.csv")
    sweep = csv.parent
    value = json.loads((sweep / "0" / "result.json").read_text())["metrics"][EXAMPLE]
    assert value > 4
    assert EXAMPLE in csv.read_text("utf-8").splitlines()[0]
    written = catalogue.TOKENS_PER_S.text(value)
    table = (sweep / "report.md").read_text("utf-8").split("## All cells")[1].split("##")[0]
    assert re.search(rf"\| +tokens per request +\|.*\n.*\n.*\| +{re.escape(written)} +\|", table)
    assert f"| tokens per request | {written} |" in re.sub(
        " +", " ", (sweep / "0" / "report.md").read_text("utf-8")
    )
    client = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}")
    runs = client.search_runs([item.experiment_id for item in client.search_experiments()])
    assert value in [run.data.metrics.get(EXAMPLE) for run in runs]
    answer = json.loads(run("-c", ASK))
    assert answer["frame"] == [value]
    assert answer["first in MLflow"] is True
    assert f"| `{EXAMPLE}` " in answer["page"]
