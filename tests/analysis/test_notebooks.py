"""Results as data frames, and the notebooks from top to bottom, on a real sweep."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from filelock import FileLock
from mlflow import MlflowClient
from nbclient import NotebookClient

import crossbench
from crossbench.analysis import notebook
from crossbench.errors import ResultError, TrackingError
from crossbench.measure.queueing import queueing
from crossbench.models.folder import ModelFolder
from crossbench.results import load_result, save_quality, save_result
from crossbench.types import RequestRecord, ScoredPair
from tests.helpers.places import REPO

MOST_BYTES = 500_000  # of a notebook with its outputs
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))


@dataclass(frozen=True)
class Ran:
    """A finished sweep over batch=0,4,8, and its MLflow store."""

    folder: Path
    uri: str


@pytest.fixture(scope="module")
def ran(
    migrated_store: Path,
    seeded_model: ModelFolder,
    tmp_path_factory: pytest.TempPathFactory,
    worker_id: str,
    testrun_uid: str,
) -> Ran:
    """Run once for all pytest-xdist processes, which share a parent folder."""
    base = tmp_path_factory.getbasetemp()
    outputs = (base if worker_id == "master" else base.parent) / f"notebooks-{testrun_uid}"
    with FileLock(f"{outputs}.lock"):
        if not outputs.exists():
            outputs.mkdir()
            shutil.copy(migrated_store, outputs / "mlflow.db")
            sweep(outputs, seeded_model)
    return Ran(crossbench.latest_sweep(outputs), f"sqlite:///{outputs}/mlflow.db")


def sweep(outputs: Path, model: ModelFolder) -> None:
    overrides = (
        "backend=noop", "batch=0,4,8", "requests=80", "max_seconds=20",
        "warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed",
        "concurrency=2", "dataset.queries=4", "dataset.passages_per_query=40", "dashboard=none",
        "sweep_name='the sizes of requests'",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "crossbench", "-m", *overrides, f"outputs_dir={outputs}"],
        env={**os.environ, "CROSSBENCH_CACHE": str(model.path.parent)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1, done.stderr  # because batch=0 fails


def test_a_sweep_is_a_frame_of_its_cells(ran: Ran) -> None:
    frame = crossbench.load_sweep(ran.folder)
    assert frame["status"].tolist() == ["failed", "finished", "finished"]
    assert frame["batch"].tolist() == [0, 4, 8]
    assert frame["backend"].tolist() == ["noop"] * 3
    assert frame["scheduler.max_batch_pairs"].dtype.kind == "i"
    assert frame["folder"].tolist() == [str(ran.folder.resolve() / str(cell)) for cell in range(3)]
    assert "batch must be a positive whole number" in frame["error"][0]
    assert pd.isna(frame["throughput/pairs_per_s"][0])
    assert (frame["throughput/pairs_per_s"][1:] > 0).all()
    assert (frame["latency/p50_ms"][1:] <= frame["latency/p99_ms"][1:]).all()
    assert not any(name.startswith(("tracker", "backend._")) for name in frame.columns)

    one = crossbench.load_sweep(ran.folder / "1")
    assert one["cell_id"].tolist() == [frame["cell_id"][1]]


def test_mlflow_gives_the_same_frame(ran: Ran) -> None:
    frame = crossbench.load_sweep(ran.folder)
    runs = crossbench.load_runs(ran.uri, sweep=ran.folder.name)
    assert set(runs.columns) - set(frame.columns) == {"run_id"}
    shared = [name for name in frame.columns if name != "folder"]
    pd.testing.assert_frame_equal(runs[shared], frame[shared], check_dtype=False)
    assert notebook.summary(runs)["pairs/s"].tolist() == notebook.summary(frame)["pairs/s"].tolist()
    assert len(crossbench.load_runs(ran.uri)) == 3
    named = crossbench.load_runs(ran.uri, sweep="the sizes of requests")
    pd.testing.assert_frame_equal(named, runs)


def test_the_runs_of_a_sweep_are_named_after_what_varies(ran: Ran) -> None:
    client = MlflowClient(ran.uri)
    found = client.search_runs(["1"], order_by=["attributes.start_time ASC"])
    names = ["the sizes of requests", "batch=0", "batch=4", "batch=8"]
    assert [run.info.run_name for run in found] == names
    cells = [{"batch": size} for size in ("0", "4", "8")]
    assert [run.data.params for run in found[1:]] == cells


def test_a_sweep_without_measurements_is_a_frame_too(ran: Ran, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    shutil.copytree(ran.folder / "0", sweep / "0")
    (sweep / "1").mkdir()  # a cell that was killed
    frame = crossbench.load_sweep(sweep)
    assert frame["status"].tolist() == ["failed", "failed"]
    assert "did the cell run to its end?" in frame["error"][1]
    assert frame["throughput/pairs_per_s"].isna().all()
    assert len(notebook.summary(frame)) == 2
    assert notebook.comparison_plots(frame).images == {}
    assert notebook.quality_table(frame)["pairs/s"].isna().all()
    with pytest.raises(ResultError, match="no cell finished"):
        notebook.baseline_and_best(frame)
    with pytest.raises(ResultError, match=r"as none was measured"):
        crossbench.load_requests(sweep)


def test_missing_data_is_reported(ran: Ran, tmp_path: Path) -> None:
    with pytest.raises(
        ResultError, match=rf"give one of the sweeps in it, such as {ran.folder.name}"
    ):
        crossbench.load_sweep(ran.folder.parent)
    with pytest.raises(ResultError, match="is not a folder"):
        crossbench.load_sweep(tmp_path / "nowhere")
    with pytest.raises(ResultError, match="run one"):
        crossbench.latest_sweep(tmp_path)
    with pytest.raises(TrackingError, match=rf"no sweep and no run 'x'.*{ran.folder.name}"):
        crossbench.load_runs(ran.uri, sweep="x")
    with pytest.raises(TrackingError, match=r"no experiment 'other'.*crossbench"):
        crossbench.load_runs(ran.uri, experiment="other")
    with pytest.raises(TrackingError, match=r"the MLflow store .* does not exist"):
        crossbench.load_runs(f"sqlite:///{tmp_path}/none.db")
    assert not list(tmp_path.iterdir())


def test_requests_come_back_as_they_were_recorded(ran: Ran) -> None:
    requests = crossbench.load_requests(ran.folder)
    assert requests.groupby("cell").size().to_dict() == {1: 80, 2: 80}
    frame = crossbench.load_sweep(ran.folder)
    p50 = requests.groupby("cell")["latency_ms"].quantile(0.5)
    assert [p50[1], p50[2]] == pytest.approx(frame["latency/p50_ms"][1:].tolist())
    assert notebook.queueing_table(requests)["in flight"].between(1.5, 2.05).all()
    assert notebook.stage_table(requests).loc[(1, "p50"), "latency_ms"] == round(p50[1], 2)


def test_tables_compare_the_cells(ran: Ran) -> None:
    frame = crossbench.load_sweep(ran.folder)
    table = notebook.baseline_and_best(frame)
    assert table.loc["batch", "baseline"] == "4"  # the first finished cell
    best = notebook.by_choice(frame)
    assert best.index.tolist() == ["noop"]
    assert best["pairs/s"].iloc[0] == round(frame["throughput/pairs_per_s"].max(), 2)
    with pytest.raises(ResultError, match="row 0"):
        notebook.baseline_and_best(frame, baseline=0)


def test_quality_is_compared_with_speed(ran: Ran) -> None:
    frame = crossbench.load_runs(ran.uri)
    frame["quality/ndcg_at_10"] = [None, 0.7, 0.71]
    frame["quality/ndcg_at_10_low"] = [None, 0.6, 0.65]
    table = notebook.quality_table(frame)
    assert table["pairs/s"].dropna().is_monotonic_decreasing
    assert set(table["ndcg_at_10"].dropna()) == {0.7, 0.71}
    drawn = notebook.quality_plots(frame, ["quality/ndcg_at_10", "quality/absent"])
    assert list(drawn.images) == ["nDCG@10 against throughput"]
    assert drawn.images["nDCG@10 against throughput"].startswith(b"\x89PNG")


def test_scores_of_the_quality_check_are_a_frame(ran: Ran, tmp_path: Path) -> None:
    assert crossbench.load_quality(ran.folder).empty  # backend=noop runs no model to check
    shutil.copytree(ran.folder / "1", tmp_path / "1")
    save_quality(
        [ScoredPair("q1", "p1", 0.5, 0.25, 2), ScoredPair("q1", "p2", 0.1, None, None)],
        tmp_path / "1",
    )
    scores = crossbench.load_quality(tmp_path)
    assert scores["cell"].tolist() == [1, 1]
    assert scores[["query_id", "passage_id"]].values.tolist() == [["q1", "p1"], ["q1", "p2"]]
    assert (scores["score"] - scores["reference_score"])[0] == pytest.approx(0.25)
    assert pd.isna(scores["relevance"][1])


def test_the_reference_has_its_own_scores(ran: Ran, tmp_path: Path) -> None:
    result = load_result(ran.folder / "1")
    model, other_model = {"digest": "feed", "max_length": 512}, {"digest": "beef"}
    reference = {"check": "sample", "verdict": "reference", "reason": "it is"}
    cells = [(model, reference), (model, {}), (model, {}), (other_model, {})]
    for number, (served, quality) in enumerate(cells):
        (tmp_path / str(number)).mkdir()
        save_result(replace(result, model=served, quality=quality), tmp_path / str(number))
    first, second = ScoredPair("q1", "p1", 0.5, 0.25, 2), ScoredPair("q1", "p2", 0.1, 0.2, None)
    save_quality([first, ScoredPair("q2", "p1", 0.7, None, None)], tmp_path / "1")
    save_quality([first, second], tmp_path / "2")
    save_quality([ScoredPair("q9", "p9", 0.9, 0.9, None)], tmp_path / "3")

    scores = crossbench.load_quality(tmp_path)
    own = scores[scores["cell"] == 0]
    assert own["passage_id"].tolist() == ["p1", "p2"]
    assert own["score"].tolist() == own["reference_score"].tolist() == pytest.approx([0.25, 0.2])
    pd.testing.assert_frame_equal(crossbench.load_quality(tmp_path / "0"), own)
    assert scores.dtypes["score"] == "float32"

    save_quality([ScoredPair("q1", "p1", 0.3, None, 2)], tmp_path / "0")  # where it is judged
    own = crossbench.load_quality(tmp_path / "0")
    assert own["score"].tolist() == own["reference_score"].tolist() == pytest.approx([0.3])


def record(sent_s: float, received_s: float, queue_ms: float, infer_ms: float) -> RequestRecord:
    return RequestRecord(0, sent_s, sent_s, received_s, 8, 80, 0, 0.0, queue_ms, infer_ms, "OK")


def test_littles_law_counts_requests() -> None:
    """Two requests at a time for 10 s. Each takes 1 s: it waits 0.25 s and computes 0.5 s."""
    records = [record(n, n + 1.0, 250.0, 500.0) for n in range(10) for _ in range(2)]
    found = queueing(records)
    assert found is not None
    assert found.requests_per_s == pytest.approx(2)
    assert found.in_flight == pytest.approx(2)
    assert (found.waiting, found.computing) == pytest.approx((0.5, 1.0))
    assert (found.waiting_share, found.variation) == pytest.approx((0.25, 0.0), abs=1e-9)
    assert queueing([]) is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_top_to_bottom(
    ran: Ran, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSBENCH_TRACKING_URI", ran.uri)
    monkeypatch.setenv("CROSSBENCH_SWEEP", str(ran.folder))
    document = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in document.cells), "stored outputs"
    NotebookClient(document, timeout=120, resources={"metadata": {"path": str(REPO)}}).execute()
    shown = [
        output.data
        for cell in document.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert len(shown) == sum(cell.cell_type == "code" for cell in document.cells)
    assert all("text/html" in data for data in shown)
    pictures = re.findall(r"data:image/png;base64,", " ".join(data["text/html"] for data in shown))
    assert pictures or path.stem.startswith("03")  # the sweep had no quality check
    assert len(nbformat.writes(document)) < MOST_BYTES
    plain = [data["text/plain"] for data in shown if data["text/plain"].startswith("Pictures(")]
    assert len(plain) == 1
    assert max(map(len, plain)) < 1000


def test_pandas_is_imported_only_when_a_frame_is_loaded() -> None:
    code = "import sys, crossbench; print([m for m in ('pandas', 'mlflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        _ = crossbench.load_everything  # type: ignore[attr-defined]
