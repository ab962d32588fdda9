"""Tests of sentence-transformers: vectors, similarity scores, and cells that embed."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from crossbench.backends.base import Backend
from crossbench.errors import ModelError
from crossbench.load.datasets import TrecDataset
from crossbench.load.requests import Requests
from crossbench.models.embedding import POOLING_MODES, cosines
from crossbench.models.folder import ModelFolder
from crossbench.models.reading import read_folder
from crossbench.models.sources import LocalModel
from crossbench.models.tokenizer import PairTokenizer
from crossbench.serving.client import InferenceClient
from crossbench.types import Float32Array, Pair, Quant, QueryPassages, Task
from tests.helpers import engine_checks as checks
from tests.helpers.commands import crossbench, results, the_sweep
from tests.helpers.engines import backend
from tests.helpers.serving import noop, serving

TOLERANCE = 1e-4
WORDS = ["ab", "ba ca da", "aa ab ac ad ae af ag", "ca", "zz ab zz ba " * 60]
TEXTS = [
    "what is a river",
    "A river is water that runs. " * 40,  # more than the 256 tokens of all-MiniLM-L6-v2
    "L'été, la rivière coule – 30 °C. 川は海へ流れる。😀",
    "a",
]


def library_vectors(folder: ModelFolder, texts: list[str]) -> Float32Array:
    """Return the vectors of SentenceTransformer.encode, one text at a time without padding."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder.path), device="cpu")
    return np.asarray(model.encode(texts, batch_size=1), dtype=np.float32)


def vectors(engine: Backend, texts: list[str]) -> Float32Array:
    return engine.infer(PairTokenizer(engine.deployment.model).encode_texts(texts).batch).values


@pytest.fixture(scope="module")
def minilm(shared: Path, cache_dir: Path) -> ModelFolder:
    path = str(shared / "models/all-minilm-l6-v2")
    return LocalModel("all-minilm-l6", path, None).fetch(cache_dir)


def tiny_embedder(folder: Path, modes: Any, normalize: bool, **library: Any) -> ModelFolder:
    """Create a random two-layer sentence-transformer, saved by the library itself."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    inner = folder / "inner"
    inner.mkdir()
    checks.tiny_model(inner)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    (inner / "tokenizer_config.json").write_text(json.dumps(config))
    encoder = Transformer(str(inner), max_seq_length=100)
    modules = [encoder, Pooling(64, pooling_mode=modes), *([Normalize()] if normalize else [])]
    SentenceTransformer(modules=modules, device="cpu", **library).save(str(folder / "whole"))
    return LocalModel(None, str(folder / "whole"), None).fetch(folder)


@pytest.mark.parametrize("name", ["pytorch", "packed", "openvino", "onnx"])
def test_vectors_equal_the_librarys(name: str, minilm: ModelFolder, cache_dir: Path) -> None:
    for library in {"openvino": ["openvino"], "onnx": ["onnx", "onnxruntime"]}.get(name, []):
        pytest.importorskip(library)
    engine = backend(name, minilm, cache_dir)
    expected = library_vectors(minilm, TEXTS)
    together = vectors(engine, TEXTS)
    np.testing.assert_allclose(together, expected, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(vectors(engine, TEXTS[:1])[0], together[0], atol=1e-5, rtol=0)
    assert minilm.max_length == 256
    engine.close()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("modes", [*POOLING_MODES, ("cls", "mean")], ids=str)
def test_every_pooling_mode_equals_the_librarys(
    modes: Any, normalize: bool, tmp_path: Path
) -> None:
    model = tiny_embedder(tmp_path, modes, normalize)
    assert model.embedding is not None
    assert model.max_length == 100
    expected = library_vectors(model, WORDS)
    assert model.embedding_dim == expected.shape[1]
    for name in ("pytorch", "packed"):
        found = vectors(backend(name, model, tmp_path), WORDS)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_graphs_pool_by_cls_and_mean_and_refuse_other_modes(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime" if name == "onnx" else name)
    (tmp_path / "a").mkdir()
    both = tiny_embedder(tmp_path / "a", ("cls", "mean"), normalize=False)
    found = vectors(backend(name, both, tmp_path), WORDS)
    np.testing.assert_allclose(found, library_vectors(both, WORDS), atol=TOLERANCE, rtol=1e-4)
    (tmp_path / "b").mkdir()
    last = tiny_embedder(tmp_path / "b", "lasttoken", normalize=False)
    with pytest.raises(ModelError, match="supports the pooling modes cls and mean"):
        backend(name, last, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_int8_vectors_are_close(name: str, minilm: ModelFolder, cache_dir: Path) -> None:
    """The cosine with fp32 exceeds 0.98: int8 adds about 1 % noise per linear layer."""
    pytest.importorskip("onnxruntime" if name == "onnx" else name)
    engine = backend(name, minilm, cache_dir, Quant.INT8)
    found = vectors(engine, TEXTS)
    expected = library_vectors(minilm, TEXTS)
    both = np.concatenate([found, expected])
    indices = np.arange(len(TEXTS))
    similarity = cosines(both, indices, indices + len(TEXTS))
    assert similarity.min() > 0.98
    assert similarity.min() < 0.99999  # it really is int8
    engine.close()


def test_mlx_refuses_a_sentence_transformer(minilm: ModelFolder, cache_dir: Path) -> None:
    pytest.importorskip("mlx")
    with pytest.raises(ModelError, match="does not support embeddings"):
        backend("mlx", minilm, cache_dir)


def test_the_server_embeds_and_scores_by_cosine(minilm: ModelFolder, cache_dir: Path) -> None:
    expected = library_vectors(minilm, TEXTS)

    async def run() -> None:
        engine = backend("packed", minilm, cache_dir)
        async with serving([engine]) as address, InferenceClient(address) as client:
            reply = await client.embed(TEXTS)
            np.testing.assert_allclose(reply.vectors, expected, atol=TOLERANCE, rtol=0)
            assert reply.truncated == 1
            assert reply.tokens == int(PairTokenizer(minilm).encode_texts(TEXTS).batch.total_tokens)
            await client.reset_metrics()
            scored = await client.score(TEXTS[0], TEXTS[1:])
            wanted = expected[1:] @ expected[0]
            np.testing.assert_allclose(scored.scores, wanted, atol=TOLERANCE, rtol=0)
            metrics = await client.metrics()
            assert (metrics.pairs, metrics.batch_pairs) == (3, 4)  # the query is embedded once
            pairs = [Pair(TEXTS[0], TEXTS[1]), Pair(TEXTS[3], TEXTS[2]), Pair(TEXTS[0], TEXTS[2])]
            spanning = await client.score_pairs(pairs)
            wanted = [expected[0] @ expected[1], expected[3] @ expected[2], scored.scores[1]]
            np.testing.assert_allclose(spanning.scores, wanted, atol=TOLERANCE, rtol=0)

    asyncio.run(run())


def test_invalid_embed_requests_get_an_error_message(minilm: ModelFolder) -> None:
    async def run() -> None:
        engine = noop(minilm)
        async with serving([engine]) as address, InferenceClient(address) as client:
            for texts, text in (([], "no texts"), (["a", " "], "text 1 of texts is empty")):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await client.embed(texts)
                assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
                assert text in (raised.value.details() or "")
            assert (await client.embed(["a", "b"])).vectors.shape == (2, 384)

    asyncio.run(run())


def test_prompts_are_added_before_texts(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    prompts = {"query": "aa ab ", "document": "ba ", "other": "ca da "}
    model = tiny_embedder(
        tmp_path, "mean", normalize=True, prompts=prompts, default_prompt_name="other"
    )
    library = SentenceTransformer(str(model.path), device="cpu")
    query, passages = WORDS[0], WORDS[1:4]
    expected = library.encode_document(passages) @ library.encode_query(query)

    async def run() -> None:
        engine = backend("packed", model, tmp_path)
        async with serving([engine]) as address, InferenceClient(address) as client:
            scored = await client.score(query, passages)
            np.testing.assert_allclose(scored.scores, expected, atol=TOLERANCE)
            embedded = await client.embed(passages)
            np.testing.assert_allclose(
                embedded.vectors, library.encode(passages), atol=TOLERANCE, rtol=0
            )

    asyncio.run(run())


def test_error_for_unsupported_modules_lists_them(tmp_path: Path) -> None:
    model = tiny_embedder(tmp_path, "mean", normalize=True)
    file = model.path / "modules.json"
    modules = json.loads(file.read_text())
    dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    file.write_text(json.dumps([*modules, dense]))
    with pytest.raises(ModelError, match="Transformer, Pooling, Normalize, Dense"):
        read_folder(model.path, "dense", 100)
    file.unlink()
    with pytest.raises(ModelError, match="neither a complete cross-encoder"):
        read_folder(model.path, "bare", 100)


def test_requests_cycle_through_the_texts() -> None:
    lists = [
        QueryPassages("1", "q", ("a", "b"), ("one", "two")),
        QueryPassages("2", "r", ("c",), ("three",)),
    ]
    requests = Requests(lists, 2, Task.EMBED)
    assert [list(requests.take().texts) for _ in range(3)] == [
        ["one", "two"],
        ["three", "one"],
        ["two", "three"],
    ]


def ndcg_at_10(order: list[int], relevance: tuple[int | None, ...], judged: list[int]) -> float:
    """Return nDCG@10 with gains 2^grade - 1; the ideal ranking uses all judged passages."""

    def dcg(grades: list[int]) -> float:
        return sum((2**grade - 1) / np.log2(rank + 2) for rank, grade in enumerate(grades[:10]))

    return dcg([relevance[index] or 0 for index in order]) / dcg(sorted(judged, reverse=True))


@pytest.mark.slow
def test_reranking_beats_bm25(minilm: ModelFolder, shared: Path, cache_dir: Path) -> None:
    """Rerank BM25's top 100 for 12 queries of TREC DL 2019; wrong pooling would lower nDCG."""
    folder = shared / "data/msmarco-dl19"
    dataset = TrecDataset("trec", str(folder), None, None, None, None, limit=12)
    lists = dataset.load(PairTokenizer(minilm), 0)
    judged: dict[str, list[int]] = {}
    for line in (folder / "qrels.txt").read_text().splitlines():
        query, _, _, grade = line.split()
        judged.setdefault(query, []).append(int(grade))
    engine = backend("packed", minilm, cache_dir)
    gains = []
    for entry in lists.lists:
        found = vectors(engine, [entry.query, *entry.passages])
        count = len(entry.passages)
        scores = cosines(found, [0] * count, np.arange(1, count + 1))
        assert entry.relevance is not None
        gains.append([
            ndcg_at_10(order, entry.relevance, judged[entry.query_id])
            for order in (list(range(count)), np.argsort(-scores, kind="stable").tolist())
        ])  # fmt: skip
    bm25, reranked = np.mean(gains, axis=0)
    assert reranked > bm25
    assert reranked == pytest.approx(0.652, abs=0.01)  # as sentence-transformers ranks these lists


def test_a_cell_that_embeds(shared: Path, outputs: Path, cache_dir: Path) -> None:
    """Run two cells: one calls Embed; the other, a cross-encoder, is refused before loading."""
    path = shared / "models/all-minilm-l6-v2"
    environment = {**os.environ, "CROSSBENCH_CACHE": str(cache_dir)}
    small = (
        "max_seconds=1",
        "warmup_requests=1",
        "warmup_max_seconds=0.2",
        "stop=fixed",
        "dataset.queries=2",
        "batch=4",
        "load.task=embed",
        "quality=none",
        "tracker=none",
    )
    done = crossbench(
        "-m", "model=local", f"model.path={path},{shared / 'models/minilm-l6-dl19'}",
        "backend=packed", *small, "dataset.passages_per_query=20",
        outputs=outputs, environment=environment,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    sweep = the_sweep(outputs)
    embeds, refused = results(sweep)
    assert refused["status"] == "failed"
    assert "is a cross-encoder" in str(refused["error"])
    metrics: Any = embeds["metrics"]
    assert embeds["status"] == "finished"
    assert metrics["throughput/texts_per_s"] > 0
    assert metrics["batching/texts_per_batch"] == 4
    assert not [name for name in metrics if "pairs" in name]
    model: Any = embeds["model"]
    assert (model["encoder"], model["embedding_dim"]) == ("packed", 384)
    assert "texts/s" in done.stderr
    for report in (sweep / "report.md", sweep / "0/report.md"):
        text = report.read_text()
        assert "texts/s" in text
        assert "pairs/s" not in text
