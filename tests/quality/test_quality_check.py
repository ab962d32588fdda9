"""The parts of the quality check with real servers, and a complete cell from the command line."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from crossbench.errors import ConfigError
from crossbench.models.activation import activation_of
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.quality.check import ServedScores, compare, reason_not_checked, score_sample
from crossbench.quality.reference_scores import reference_scores
from crossbench.quality.sample import NoCheck
from crossbench.quality.score_cache import ReferenceCache
from crossbench.quality.scoring import ScoringOptions, score_lists
from crossbench.results import load_quality
from crossbench.runner.compose import build_reference
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient
from crossbench.serving.server import Server
from crossbench.types import Pipeline
from tests.helpers.engine_checks import reference, tiny_model
from tests.helpers.plans import plan_with
from tests.helpers.quality_samples import LISTS, a_check, info_of, settings
from tests.helpers.result_schema import check_result_file
from tests.helpers.serving import noop, serving


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def no_server() -> Server:
    raise AssertionError("everything was in the cache, and the reference was computed again")


def test_the_sample_ignores_the_order_and_a_smaller_one_is_its_start() -> None:
    judged = LISTS[1:]
    chosen = a_check(queries=3).choose(LISTS)
    assert len(chosen) == 3
    assert chosen == a_check(queries=3).choose(LISTS[::-1])
    assert a_check(queries=None).choose(LISTS)[:3] == chosen
    assert {entry.query_id for entry in a_check().choose(LISTS)} == {e.query_id for e in judged}


def test_passages_below_the_depth_still_count_as_judged() -> None:
    (entry,) = a_check(depth=2).choose(LISTS[4:])
    assert entry.passage_ids == ("q4-0", "q4-1")
    assert (entry.relevance, entry.other_grades) == ((0, 1), (2, 0, 1, 2))


def test_the_sample_is_smaller_without_judgements_and_empty_without_a_check() -> None:
    unjudged = [dataclasses.replace(entry, relevance=None) for entry in LISTS]
    assert len(a_check(unjudged_queries=2).choose(unjudged)) == 2
    assert NoCheck("none").choose(LISTS) == ()


@pytest.mark.parametrize("key", ["queries", "depth", "min_queries", "max_seconds", "timeout_s"])
def test_an_empty_check_is_rejected(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"quality\.{key}=0"):
        a_check(**{key: 0})


def test_the_cache_key_contains_all_inputs_of_the_scores(
    model: ModelFolder, tmp_path: Path
) -> None:
    cache, entry = ReferenceCache(tmp_path, model), LISTS[1]
    scores = np.array([0.1, -2.5, 1e-7], dtype=np.float32)
    assert cache.load(entry) is None
    cache.save(entry, scores)
    found = cache.load(entry)
    assert found is not None
    assert found.tobytes() == scores.tobytes()
    assert cache.load(dataclasses.replace(entry, query="another")) is None
    assert cache.load(dataclasses.replace(entry, passages=entry.passages[:2])) is None
    assert cache.load(dataclasses.replace(entry, query_id="only a name")) is not None
    shorter = dataclasses.replace(model, max_length=64)
    assert ReferenceCache(tmp_path, shorter).load(entry) is None
    (file,) = tmp_path.iterdir()
    whole = file.read_text()
    for broken in (whole[:-9], whole.replace("-2.5", "-2.4"), "", "[]"):
        file.write_text(broken)
        assert cache.load(entry) is None


def test_an_unwritable_cache_does_not_prevent_the_check(
    model: ModelFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "reference"
    in_the_way.write_text("a file where the cache's folder should be")
    cache = ReferenceCache(in_the_way, model)

    def make() -> Server:
        return build_reference(plan_with(settings(tmp_path)), model)

    found = asyncio.run(reference_scores(make, cache, a_check(), LISTS[:2]))
    assert [len(scores) for scores in found] == [len(entry.passages) for entry in LISTS[:2]]
    assert "scores cannot be cached" in caplog.text


def test_another_model_has_its_own_reference(model: ModelFolder, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other", seed=1)
    cache = tmp_path / "cache"
    ReferenceCache(cache, model).save(LISTS[0], np.zeros(2, dtype=np.float32))
    assert ReferenceCache(cache, other).load(LISTS[0]) is None


def test_the_reference_is_the_transformers_forward_and_computed_once(
    model: ModelFolder, tmp_path: Path
) -> None:
    cache, check = ReferenceCache(tmp_path / "reference", model), a_check()

    def make() -> Server:
        return build_reference(plan_with(settings(tmp_path)), model)

    found = asyncio.run(reference_scores(make, cache, check, LISTS))
    tokenizer, activation = PairTokenizer(model), activation_of(model)
    for entry, scores in zip(LISTS, found, strict=True):
        batch = tokenizer.encode_query(entry.query, entry.passages).batch
        assert np.allclose(scores, activation(reference(model, batch)), atol=1e-5)
    again = asyncio.run(reference_scores(no_server, cache, check, LISTS))
    assert [scores.tolist() for scores in again] == [scores.tolist() for scores in found]
    broken = next(cache.folder.iterdir())
    broken.write_text("half")
    mended = asyncio.run(reference_scores(make, cache, check, LISTS))
    assert [scores.tolist() for scores in mended] == [scores.tolist() for scores in found]


def test_lists_are_scored_completely_until_the_time_limit(seeded_model: ModelFolder) -> None:
    async def score(max_seconds: float, min_lists: int = 1, longest_s: float = 60) -> list[int]:
        async with serving([noop(seeded_model)]) as address, InferenceClient(address) as client:
            found = await score_lists(
                client,
                LISTS,
                ScoringOptions(2, 2, max_seconds, min_lists, longest_s, timeout_s=10),
                asyncio.Event(),
            )
            alone = await client.score(LISTS[0].query, LISTS[0].passages)
            assert found[0].tolist() == alone.scores.tolist()
            return [len(scores) for scores in found]

    assert asyncio.run(score(60.0)) == [2, 3, 4, 5, 6]
    assert asyncio.run(score(1e-9)) == [2]
    assert asyncio.run(score(1e-9, min_lists=3)) == [2, 3, 4]
    assert asyncio.run(score(1e-9, min_lists=3, longest_s=1e-9)) == [2]


@pytest.mark.parametrize(
    ("fields", "pipeline", "message"),
    [
        ({"computes_scores": False}, Pipeline.FULL, "runs no model"),
        (
            {"device": "none"},
            Pipeline.FULL,
            "runs no model",
        ),  # an older server, which does not report computes_scores
        ({"digest": "another"}, Pipeline.FULL, "is not the model of this config"),
        ({}, Pipeline.TOKENIZE, "pipeline=tokenize"),
    ],
)
def test_a_skipped_check_gives_its_reason(
    fields: dict[str, Any], pipeline: Pipeline, message: str, model: ModelFolder, tmp_path: Path
) -> None:
    (served_model,) = info_of(model, **fields).models
    reason = reason_not_checked(a_check(), pipeline, served_model, model.digest)
    assert reason is not None
    assert message in reason
    served = ServedScores("sample", skip_reason=reason)
    checked = compare(served, a_check(), ReferenceCache(tmp_path, model), no_server, 0, print)
    assert checked.summary["verdict"] == "not checked"
    assert message in checked.summary["reason"]


def test_an_unreachable_server_fails_only_the_check(model: ModelFolder, tmp_path: Path) -> None:
    served = ask("127.0.0.1:1", info_of(model), tmp_path)
    assert "the server failed: UNAVAILABLE" in served.skip_reason


def test_the_reference_itself_is_judged_but_not_compared(
    seeded_model: ModelFolder, tmp_path: Path
) -> None:
    info = info_of(seeded_model, is_reference=True)

    async def run() -> ServedScores:
        async with serving([noop(seeded_model)]) as address:
            return await asyncio.to_thread(ask, address, info, tmp_path)

    served = asyncio.run(run())
    cache = ReferenceCache(tmp_path, seeded_model)
    checked = compare(served, a_check(), cache, no_server, 0, print)
    assert checked.summary["verdict"] == "reference"
    assert "quality/ndcg_at_10" in checked.metrics
    assert "quality/max_abs_diff" not in checked.metrics
    assert {pair.reference_score for pair in checked.pairs} == {None}


def ask(
    address: str,
    info: pb.ServerInfo,
    cache_dir: Path,
) -> ServedScores:
    async def run() -> ServedScores:
        async with InferenceClient(address) as client:
            return await score_sample(
                client,
                a_check(),
                LISTS,
                info,
                settings(cache_dir),
                asyncio.Event(),
                lambda stage: None,
            )

    return asyncio.run(run())


@pytest.mark.slow
def test_a_complete_cell_with_int8(shared: Path, outputs: Path, cache_dir: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    command = [sys.executable, "-m", "crossbench", "backend=onnx", "quant=int8", "model=local"]
    command += [f"model.path={shared}/models/minilm-l6-dl19", "dataset=trec"]
    command += [f"dataset.path={shared}/data/msmarco-dl19", f"outputs_dir={outputs}"]
    command += ["batch=8", "requests=2", "warmup_requests=0", "dashboard=none"]
    command += ["quality.queries=4", "quality.depth=12", "quality.max_seconds=100"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "CROSSBENCH_CACHE": str(cache_dir)},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = outputs.glob("2*/0")
    check_result_file(folder)
    result = json.loads((folder / "result.json").read_text())
    metrics, quality = result["metrics"], result["quality"]
    assert (metrics["quality/queries"], metrics["quality/pairs"]) == (4, 48)
    assert 0 < metrics["quality/mean_abs_diff"] < 0.1
    assert 0.85 < metrics["quality/kendall_tau"] < 1
    assert metrics["quality/ndcg_at_10"] > 0.2
    assert -0.1 < metrics["quality/ndcg_at_10_change"] < 0.1
    assert metrics["memory/model_mb"] < 75  # 91 at fp32
    assert quality["verdict"] == "cannot say"
    assert "too few queries: 4" in quality["reason"]
    pairs = load_quality(folder)
    assert len(pairs) == 48
    assert len({pair.query_id for pair in pairs}) == 4
    drift = [abs(pair.score - (pair.reference_score or 0)) for pair in pairs]
    assert max(drift) == pytest.approx(metrics["quality/max_abs_diff"], rel=1e-5)
    assert {pair.relevance for pair in pairs} & {1, 2, 3}
    report = (folder / "report.md").read_text()
    assert "## Ranking quality" in report
    assert "It is unclear whether the ranking is kept" in report
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.data.tags["quality"] == "cannot say"
    assert run.data.metrics["quality/kendall_tau"] == metrics["quality/kendall_tau"]
    assert "quality.parquet" in {item.path for item in client.list_artifacts(run.info.run_id)}
