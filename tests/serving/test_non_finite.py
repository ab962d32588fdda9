"""NaN and infinite values are rejected by the server, the client, the statistics and the cell."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient

from crossbench.errors import ModelError, NonFiniteValues
from crossbench.load.datasets import LoadedDataset
from crossbench.load.lengths import summarise as summarise_lengths
from crossbench.load.requests import RequestOptions
from crossbench.load.stop import End, Fixed, Limits
from crossbench.measure.bootstrap import bootstrap_interval, bootstrap_means
from crossbench.measure.correlation import pearson
from crossbench.measure.intervals import mean_interval, percentile_interval
from crossbench.measure.ranking_metrics import ScoredList, kendall_tau, query_qualities, ranking
from crossbench.models.activation import activation_of
from crossbench.models.attention import GroupedAttention
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.quality.check import ServedScores, compare, evaluate_scores, score_sample
from crossbench.quality.score_cache import ReferenceCache
from crossbench.results import Status, load_records
from crossbench.runner.compose import build_reference
from crossbench.runner.event_stream import EventStream
from crossbench.runner.load import Traffic
from crossbench.runner.measure import measure
from crossbench.runner.result import CellData, Measured, to_result
from crossbench.serving import inference_pb2 as pb
from crossbench.serving import inference_pb2_grpc as pb_grpc
from crossbench.serving.client import InferenceClient
from crossbench.serving.finite import NON_FINITE
from crossbench.serving.pool import Pool
from crossbench.serving.replica import Replica
from crossbench.serving.scheduler import DynamicScheduler
from crossbench.serving.service import Answer, ModelService
from crossbench.serving.telemetry import Telemetry
from crossbench.serving.tokenizing import Tokenizing
from crossbench.settings.cell_config import CellConfig
from crossbench.system.json_cache import load_cached, write_cached
from crossbench.types import Float32Array, Quant, QueryPassages, RequestRecord
from tests.helpers.commands import crossbench, results, the_sweep
from tests.helpers.engine_checks import backend
from tests.helpers.plans import plan_with
from tests.helpers.quality_samples import LISTS, a_check, info_of, settings
from tests.helpers.serving import closed_loop, in_process, pytorch, serving, until
from tests.helpers.tiny_seeded import Weights, bad_word, overflowing, tiny_seeded

BAD = "a volcano by the sea"
GOOD = "a river runs down to the sea"
NAN = math.nan


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A cross-encoder that returns NaN for every pair with the word `volcano`."""
    return tiny_seeded(tmp_path_factory.mktemp("bad"), change=bad_volcano)


def bad_volcano(weights: Weights) -> Weights:
    return bad_word(3873)(weights)


def scores(*values: float) -> Float32Array:
    return np.array(values, dtype=np.float32)


async def failure(call: object) -> str:
    """Return the error message of a call that fails because of non-finite values."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code() is NON_FINITE, caught.value.details()
    return caught.value.details() or ""


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_a_non_finite_score_fails_the_request_with_a_message(
    processes: bool, model: ModelFolder, tmp_path: Path
) -> None:
    async def run() -> None:
        engine = pytorch(model, tmp_path)
        replica = in_process(engine) if processes else Replica(engine, engine)
        async with serving([replica]) as address, InferenceClient(address) as client:
            message = await failure(client.score("what is a river", [GOOD, BAD, GOOD]))
            assert "1 of 3 scores of model tiny are NaN or infinite" in message
            assert "backend=pytorch quant=fp32" in message
            assert "check that the weights are complete" in message
            reply = await client.score("what is a river", [GOOD])
            assert np.isfinite(reply.scores).all()
            metrics = await client.metrics()
            assert (metrics.requests_ok, metrics.requests_failed) == (1, {"DATA_LOSS": 1})

    asyncio.run(run())


def test_vectors_and_their_cosines_are_checked_too(tmp_path: Path) -> None:
    embedder = tiny_seeded(tmp_path, change=bad_volcano, pooling="mean")

    async def run() -> None:
        engine = pytorch(embedder, tmp_path)
        async with serving([engine]) as address, InferenceClient(address) as client:
            message = await failure(client.embed([GOOD, BAD]))
            assert "32 of 64 numbers in 1 of 2 vectors of model tiny" in message
            assert "1 of 2 vectors" in await failure(client.score(BAD, [GOOD]))
            assert np.isfinite((await client.score(GOOD, [GOOD])).scores).all()

    asyncio.run(run())


def test_an_activation_does_not_hide_an_infinite_logit(tmp_path: Path) -> None:
    def infinite(weights: Weights) -> Weights:
        return {**weights, "classifier.bias": np.full(1, np.inf, dtype=np.float32)}

    sigmoid = {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}
    broken = tiny_seeded(tmp_path, change=infinite, config=sigmoid)

    async def run() -> None:
        async with (
            serving([pytorch(broken, tmp_path)]) as address,
            InferenceClient(address) as client,
        ):
            assert "1 of 1 score " in await failure(client.score("a river", [GOOD]))

    asyncio.run(run())


@pytest.mark.parametrize("name", ["pytorch", "packed"])
def test_a_bad_text_fails_only_its_own_request(
    name: str, model: ModelFolder, tmp_path: Path
) -> None:
    engine: Any = backend(name, model, "fp32", tmp_path)
    requests = [[GOOD], [GOOD + " and back", BAD], [GOOD * 3, "a"]]

    async def run(requests: Sequence[list[str]]) -> tuple[list[Answer | BaseException], int]:
        """Send all requests before the pool starts, so that they share a micro-batch."""
        telemetry = Telemetry(list)
        replica = Replica(engine, engine)
        replica.load()
        pool = Pool(DynamicScheduler("dynamic", 64, 5000.0), [replica], telemetry, "load", 120.0)
        service = ModelService(
            model,
            [replica],
            PairTokenizer(model),
            activation_of(model),
            pool,
            Tokenizing(1),
        )
        tasks = [asyncio.create_task(service.score("a river", texts, None)) for texts in requests]
        await until(lambda: pool.waiting == sum(map(len, requests)))
        service.start()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(pool.close)
        return answers, telemetry.snapshot().batches

    (first, bad, last), batches = asyncio.run(run(requests))
    assert batches == 1
    assert isinstance(bad, NonFiniteValues)
    for found, texts in ((first, requests[0]), (last, requests[2])):
        (alone,), _ = asyncio.run(run([texts]))
        assert isinstance(found, Answer)
        assert isinstance(alone, Answer)
        np.testing.assert_allclose(found.values, alone.values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bad", range(4))
def test_grouped_attention_does_not_spread_nan_through_padding(bad: int) -> None:
    """One group has sequences of unequal length, so masked padding multiplies NaN by zero."""
    lengths = [5, 6, 7, 8]
    ends = np.cumsum([0, *lengths])
    qkv = torch.randn(sum(lengths), 3 * 32, generator=torch.Generator().manual_seed(0))
    qkv[ends[bad] : ends[bad + 1]] = NAN
    attention = GroupedAttention(lengths, 2, torch.float32, torch.device("cpu"), overhead=1e6)
    full = attention.full(qkv).isnan().any(1)
    assert [bool(full[start]) for start in ends[:-1]] == [place == bad for place in range(4)]
    queries = torch.ones(4, 32)
    assert attention.cls(queries, qkv[:, :64]).isnan().any(1).nonzero().tolist() == [[bad]]


class Foreign(pb_grpc.InferenceServicer):
    """Another or an older server, which does not check its values."""

    def __init__(self, values: Sequence[float], infer_ms: float) -> None:
        self._values = values
        self._timings = pb.StageTimings(infer_ms=infer_ms)

    async def Score(self, request: object, context: object) -> pb.ScoreResponse:  # noqa: N802
        return pb.ScoreResponse(scores=self._values, timings=self._timings)

    async def Embed(self, request: object, context: object) -> pb.EmbedResponse:  # noqa: N802
        return pb.EmbedResponse(values=self._values, dim=2, timings=self._timings)


def test_int8_rejects_non_finite_weights(tmp_path: Path) -> None:
    model = tiny_seeded(tmp_path, change=bad_word(1000))
    with pytest.raises(ModelError, match=r"NaN or infinite values in .*word_embeddings"):
        pytorch(model, tmp_path, Quant.INT8)


@pytest.mark.parametrize(
    ("values", "infer_ms", "wrong"),
    [
        ((1.0, NAN), 1.0, "1 of 2"),
        ((-math.inf, NAN), 1.0, "2 of 2"),
        ((1.0, 2.0), NAN, "the stage timings"),
    ],
)
def test_the_client_rejects_non_finite_values_of_any_server(
    values: tuple[float, float],
    infer_ms: float,
    wrong: str,
    model: ModelFolder,
    tmp_path: Path,
) -> None:
    async def run() -> ServedScores:
        server = grpc.aio.server()
        servicer = Foreign(values, infer_ms)
        pb_grpc.add_InferenceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with InferenceClient(f"127.0.0.1:{port}") as client:
                assert wrong in await failure(client.score("a river", [GOOD, GOOD]))
                assert wrong in await failure(client.embed([GOOD]))
                return await sample(client, LISTS, info_of(model), tmp_path)
        finally:
            await server.stop(None)

    served = asyncio.run(run())
    assert wrong in served.non_finite
    assert "the server failed: DATA_LOSS" in served.skip_reason


@pytest.mark.parametrize("values", [(), (1.0,), (1.0, 2.0, 3.0)])
def test_the_client_rejects_a_reply_with_the_wrong_size(values: tuple[float, ...]) -> None:
    """The test requests two scores, and one vector of two numbers."""

    async def run() -> None:
        server = grpc.aio.server()
        servicer = Foreign(values, 1.0)
        pb_grpc.add_InferenceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with InferenceClient(f"127.0.0.1:{port}") as client:
                for call in (client.score("a river", [GOOD, GOOD]), client.embed([GOOD])):
                    with pytest.raises(grpc.aio.AioRpcError, match="the server answered") as caught:
                        await call
                    assert caught.value.code() is grpc.StatusCode.INTERNAL
        finally:
            await server.stop(None)

    asyncio.run(run())


async def sample(
    client: InferenceClient,
    lists: Sequence[QueryPassages],
    info: pb.ServerInfo,
    cache_dir: Path,
) -> ServedScores:
    return await score_sample(
        client,
        a_check(),
        lists,
        info,
        settings(cache_dir),
        asyncio.Event(),
        lambda stage: None,
    )


def test_statistics_and_verdicts_reject_non_finite_values() -> None:
    good, bad = scores(3, 2, 1), scores(3, NAN, 1)
    ids = ("a", "b", "c")
    for served, reference in ((bad, good), (good, bad), (scores(math.inf, 2, 1), good)):
        with pytest.raises(NonFiniteValues, match="1 of 3"):
            query_qualities([ScoredList("q7", ids, served, reference, (1, 0, 0))])
        with pytest.raises(NonFiniteValues):
            kendall_tau(served, reference)
    with pytest.raises(NonFiniteValues):
        ranking(ids, bad)
    with pytest.raises(NonFiniteValues):
        bootstrap_means(np.array([[1.0], [NAN]]), 0)
    with pytest.raises(NonFiniteValues):
        bootstrap_interval(np.array([1.0, NAN]), 2)
    assert pearson([1, 2, NAN, 4], [1, 2, 3, 4]) is None
    assert mean_interval([1, 2, NAN, 4, 5]) is None
    assert percentile_interval([*range(40), NAN], 50) is None


def test_non_finite_scores_give_no_verdict() -> None:
    entry = LISTS[1]
    served = ServedScores("sample", (entry,), (scores(1, NAN, 2),), 1)
    checked = evaluate_scores(served, [scores(1, 2, 3)], 0)
    assert checked.summary["verdict"] == "not checked"
    assert "1 of 3 scores of query q1 are NaN or infinite" in checked.summary["reason"]
    assert (checked.metrics, checked.pairs) == ({}, [])


def test_the_cache_neither_stores_nor_returns_non_finite_scores(
    model: ModelFolder, tmp_path: Path
) -> None:
    cache, entry = ReferenceCache(tmp_path, model), LISTS[1]
    bad = scores(1, NAN, 3)
    with pytest.raises(NonFiniteValues, match="query q1"):
        cache.save(entry, bad)
    assert not list(tmp_path.iterdir())
    cache.save(entry, scores(1, 2, 3))
    (file,) = tmp_path.iterdir()
    write_cached(file, bad.tolist())
    assert load_cached(file) is not None
    assert cache.load(entry) is None


def test_another_version_of_tokenizers_has_its_own_reference(
    model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ReferenceCache(tmp_path / "cache", model)
    cache.save(LISTS[0], scores(1, 2))
    assert cache.load(LISTS[0]) is not None
    other = tmp_path / "site/tokenizers-99.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: tokenizers\nVersion: 99.0\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert cache.load(LISTS[0]) is None


def test_a_non_finite_reference_gives_no_verdict(model: ModelFolder, tmp_path: Path) -> None:
    entry = dataclasses.replace(LISTS[1], passages=(GOOD, BAD, GOOD))
    served = ServedScores("sample", (entry,), (scores(1, 2, 3),), 1)
    cache = ReferenceCache(tmp_path, model)

    checked = compare(
        served,
        a_check(),
        cache,
        lambda: build_reference(plan_with(settings(tmp_path)), model),
        0,
        lambda stage: None,
    )
    assert checked.summary["verdict"] == "not checked"
    assert "the reference failed: DATA_LOSS: 1 of 3 scores" in checked.summary["reason"]
    assert "\n" not in checked.summary["reason"]
    assert cache.load(entry) is None


def a_list(number: int, *passages: str) -> QueryPassages:
    ids = tuple(f"p{number}-{place}" for place in range(len(passages)))
    return QueryPassages(f"q{number}", "what is a river", ids, passages)


@pytest.mark.parametrize(
    ("bad_lists", "where"),
    [((0,), "the warm-up"), ((1,), "one of four requests"), ((4,), "the quality check's sample")],
)
def test_a_non_finite_value_in_any_phase_fails_the_cell(
    bad_lists: tuple[int, ...], where: str, model: ModelFolder, tmp_path: Path
) -> None:
    """The warm-up sends one list, the measurement three, and the sample contains all of them."""
    lists = [a_list(i, GOOD, BAD if i in bad_lists else f"number {i}") for i in range(5)]
    lengths = summarise_lengths([4] * 10)
    data = CellData(LoadedDataset("made", "here", "0", tuple(lists)), lengths, lengths)
    values = dataclasses.replace(settings(tmp_path), requests=3, warmup_requests=1, concurrency=1)
    stop = Fixed("fixed", Limits(values.requests, values.max_seconds))
    traffic = Traffic(closed_loop(values), RequestOptions("score", 30.0, None, None), stop)
    info = info_of(model)
    events, interrupted = EventStream(io.StringIO()), asyncio.Event()

    async def run() -> Measured:
        async with (
            serving([pytorch(model, tmp_path)]) as address,
            InferenceClient(address) as client,
        ):
            measured = await measure(
                client, traffic, info, plan_with(values), data, interrupted, events
            )
            served = await sample(client, lists, info, tmp_path)
        assert served.non_finite, "the sample has every list"
        if measured.non_finite:
            return measured
        return dataclasses.replace(measured, served=served, non_finite=served.non_finite)

    measured = asyncio.run(run())
    config = CellConfig(
        {"backend": {"name": "onnx"}, "quant": {"name": "int8"}, "model": {"name": "tiny"}}
    )
    result = to_result(plan_with(settings(tmp_path), config), "", model.digest, data, measured)
    failed = sum(not record.ok for record in measured.records)
    assert failed == (1 if where == "one of four requests" else 0)
    assert result.status is Status.FAILED
    assert "the model's values are not finite (DATA_LOSS: 1 of 2 scores" in (result.error or "")
    assert f"{failed} of 3 measured requests failed, their records are kept" in str(result.error)


def test_non_finite_server_metrics_are_omitted(model: ModelFolder, tmp_path: Path) -> None:
    lengths = summarise_lengths([4])
    data = CellData(LoadedDataset("made", "here", "0", (a_list(0, GOOD),)), lengths, lengths)
    record = RequestRecord(0, 0.0, 0.0, 0.5, 1, 9, 0, 1.0, 1.0, 1.0, "OK")
    metrics = {"memory/rss_peak_mb": NAN, "throughput/pairs_per_s": 2.0}
    info, end = info_of(model), End.REQUESTS
    measured = Measured([record], metrics, info, {}, "", False, "", {}, end, "", None, ())
    config = CellConfig(
        {"backend": {"name": "onnx"}, "quant": {"name": "int8"}, "model": {"name": "tiny"}}
    )
    result = to_result(plan_with(settings(tmp_path), config), "", model.digest, data, measured)
    per_day = 2.0 * 24 * 3600 / 1e6
    assert result.metrics == {
        "throughput/pairs_per_s": 2.0,
        "throughput/million_pairs_per_day": pytest.approx(per_day),
    }
    assert [word for word in result.warnings if word.startswith("memory/rss_peak_mb: ")]


def trec_folder(folder: Path) -> Path:
    """Return twelve judged queries with four candidates each."""
    folder.mkdir()
    queries, collection, run, qrels = [], [], [], []
    for query in range(12):
        queries.append(f"q{query}\twhat is river number {query}")
        for place in range(4):
            name = f"p{query}-{place}"
            collection.append(f"{name}\triver {query} runs {'far ' * place}to the sea")
            run.append(f"q{query} Q0 {name} {place + 1} {9 - place} made")
            qrels.append(f"q{query} 0 {name} {place % 2}")
    files = {"queries.tsv": queries, "collection.tsv": collection}
    for file, lines in {**files, "run.txt": run, "qrels.txt": qrels}.items():
        (folder / file).write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
def test_an_overflowing_precision_fails_its_cell_and_the_sweep_continues(
    outputs: Path, tmp_path: Path
) -> None:
    large = tiny_seeded(tmp_path, change=overflowing)
    done = crossbench(
        "-m", "backend=pytorch", "quant=fp16,fp32", "model=local", f"model.path={large.path}",
        "dataset=trec", f"dataset.path={trec_folder(tmp_path / 'trec')}", "batch=4", "requests=5",
        "warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed", outputs=outputs,
        environment={**os.environ, "CROSSBENCH_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    sweep = the_sweep(outputs)
    half, full = (dict[str, Any](result) for result in results(sweep))
    assert (half["status"], full["status"]) == ("failed", "finished")
    assert "4 of 4 scores of model tiny are NaN or infinite" in half["error"]
    assert "backend=pytorch quant=fp16" in half["error"]
    assert "use quant=bf16 or quant=fp32" in half["error"]
    assert half["quality"]["verdict"] == "not checked"
    assert "not finite" in half["quality"]["reason"]
    assert not [name for name in half["metrics"] if name.startswith("quality/")]
    assert full["quality"]["verdict"] == "reference"
    assert 0 < full["metrics"]["quality/ndcg_at_10"] < 1
    assert [record.status for record in load_records(sweep / "0")] == ["DATA_LOSS"] * 5
    for report in (sweep / "report.md", sweep / "0/report.md"):
        text = report.read_text()
        assert "NaN or infinite" in text
        assert "keeps" not in text.split("## Ranking quality")[0]
        assert "ranking is kept" not in text
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    tracked = client.search_runs([item.experiment_id for item in client.search_experiments()])
    (cell,) = (run for run in tracked if run.data.tags.get("status") == "failed")
    assert (cell.info.status, cell.data.tags["quality"]) == ("FAILED", "not checked")
