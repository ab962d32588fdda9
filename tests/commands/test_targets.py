"""Sweeps over servers that run already: crossbench's own, and those of other people."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crossbench.analysis.frames import load_runs, load_sweep
from tests.helpers.commands import QUICK, crossbench, results, runs, served, the_sweep
from tests.helpers.http_servers import rerankers, scorer_of
from tests.helpers.tiny_seeded import tiny_seeded


@pytest.mark.slow
def test_a_sweep_over_our_running_server(tmp_path: Path, environment: dict[str, str]) -> None:
    """Cells that differ in the load reuse it; one that needs another server says so."""
    sweep = ("-m", "backend=noop,packed", "batch=4,8", "tracker=none", *QUICK)
    with served("backend=noop", outputs=tmp_path, environment=environment) as (address, _):
        done = crossbench(
            *sweep, f"server.address={address}",
            outputs=tmp_path, environment=environment, module="crossbench.client",
        )  # fmt: skip
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
    gone = crossbench(
        *sweep, f"server.address={address}", "target.connect_timeout_s=1",
        outputs=tmp_path / "gone", environment=environment, module="crossbench.client",
    )  # fmt: skip
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"crossbench: no crossbench server answered at {address}")
    assert not (tmp_path / "gone").exists()  # nothing was started


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


@dataclass(frozen=True)
class Served:
    """Where servers of a model and an embedder are: ours with both ports, and one of NIM's API."""

    model: Path
    embedder: Path
    address: str
    http: str
    nim: str


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[Served]:
    """Ours speaks every API but NIM's, which the other server speaks over the same model."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "e").mkdir()
    model, embedder = tiny_seeded(folder), tiny_seeded(folder / "e", pooling="mean")
    environment = {**os.environ, "CROSSBENCH_CACHE": str(cache_dir)}
    with (
        served(
            "server.http.port=0", "backend=packed", "model=local", f"model.path={model.path}",
            f"pool.models={{embedder:{{base:local,path:{embedder.path}}}}}",
            outputs=folder, environment=environment,
        ) as (address, url),
        rerankers(scorer_of(model, cache_dir)) as nim,
    ):  # fmt: skip
        assert url is not None
        yield Served(model.path, embedder.path, address, url, nim.url)


# How the scores of each API relate to the reference's logits or cosines; None for our own servers
SCALES = {
    "inprocess": None, "process": None, "remote": None, "tei": "sigmoid", "cohere": "sigmoid",
    "jina": "sigmoid", "vllm_score": "same", "nim": "same", "infinity": "sigmoid",
    "openai_embeddings": "same",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("target", SCALES)
def test_a_sweep_of_every_target(
    target: str, everything: Served, outputs: Path, cache_dir: Path
) -> None:
    """Two cells with report, MLflow runs, and a quality check that finds the same order."""
    model = everything.model
    module, given = "crossbench", ["target=http", f"target.api={target}"]
    if target in ("inprocess", "process"):
        given = [f"target={target}", "backend=packed"]
    elif target == "remote":
        module, given = "crossbench.client", [f"server.address={everything.address}"]
    elif target == "nim":
        given += [f"target.url='{everything.nim}'", f"target.scrape='{everything.nim}/metrics'"]
    else:
        url = everything.http
        given += [f"target.url='{url}'", f"target.scrape='{url}/metrics'"]
    if target == "openai_embeddings":
        model = everything.embedder
        given += ["target.model=embedder", "load.task=embed"]
    done = crossbench(
        "-m", *given, "batch=4,8", "model=local", f"model.path={model}", "stop=fixed",
        "requests=6", "warmup_requests=1", "warmup_max_seconds=0.2", "dataset.queries=12",
        "dataset.passages_per_query=12", "quality=sample", "quality.unjudged_queries=12",
        outputs=outputs, environment={**os.environ, "CROSSBENCH_CACHE": str(cache_dir)},
        module=module,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sweep = the_sweep(outputs)
    cells: list[Any] = results(sweep)
    report = (sweep / "report.md").read_text("utf-8")
    is_ours = SCALES[target] is None
    assert ("Score parity: its scores " in report) is not is_ours
    assert (f"(target.api={target})" in report) is not is_ours
    assert [cell["status"] for cell in cells] == ["finished", "finished"]
    for cell in cells:
        assert cell["quality"]["verdict"] == "same order"
        assert cell["quality"]["same_scores"]
        assert cell["quality"].get("scale") == SCALES[target]
        assert cell["metrics"]["quality/kendall_tau"] == pytest.approx(1)
        assert cell["metrics"]["quality/max_abs_diff"] < 1e-4
        assert any(name.startswith("scrape/") for name in cell["metrics"]) is not is_ours
    parents = [run for run in runs(outputs) if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs(outputs) if "mlflow.parentRunId" in run.data.tags]
    assert len(parents) == 1
    assert len(children) == 2
    logged = [run.data.metrics["quality/kendall_tau"] for run in children]
    assert logged == pytest.approx([1, 1])
    rate = "throughput/texts_per_s" if "load.task=embed" in given else "throughput/pairs_per_s"
    assert {run.data.metrics[rate] for run in children} == {cell["metrics"][rate] for cell in cells}
