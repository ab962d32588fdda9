"""Texts without tokens are rejected, and a score does not depend on the rest of its batch."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from crossbench.errors import DatasetError, InvalidRequest
from crossbench.load.no_tokens import refuse_no_tokens
from crossbench.models.activation import activation_of
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.serving.client import InferenceClient
from crossbench.serving.pool import Pool
from crossbench.serving.replica import Replica
from crossbench.serving.scheduler import DynamicScheduler
from crossbench.serving.service import ModelService
from crossbench.serving.telemetry import Telemetry
from crossbench.serving.token_cache import TokenCache
from crossbench.serving.tokenizing import Tokenizing
from crossbench.types import Pair, QueryPassages, Task
from tests.helpers.engine_checks import backend
from tests.helpers.serving import noop, serving
from tests.helpers.tiny_seeded import tiny_seeded

NOTHING = "\u200b"  # a zero-width space, which the tokenizer removes
RIVER = "what is a river"


async def refusal(call: object) -> str:
    """Return the error message of a call that the server rejects as invalid."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
    return caught.value.details() or ""


def embedder(folder: Path, pooling: str) -> ModelFolder:
    return tiny_seeded(folder, special_tokens=False, pooling=pooling)


@pytest.mark.parametrize("pooling", ["lasttoken", "mean"])
def test_an_embedder_rejects_a_text_without_tokens(pooling: str, tmp_path: Path) -> None:
    model = embedder(tmp_path, pooling)

    async def run() -> None:
        engine: Any = backend("packed", model, "fp32", tmp_path)
        async with serving([engine]) as address, InferenceClient(address) as client:
            message = await refusal(client.embed(["a", "b", NOTHING, "c"]))
            assert message.startswith("text 2 of texts ('\\u200b') has no tokens")
            assert "Send other text, or omit it" in message
            message = await refusal(client.score(RIVER, ["a", "b", "c", NOTHING]))
            assert message.startswith("text 3 of passages ('\\u200b') has no tokens")
            assert (await refusal(client.score(NOTHING, ["a"]))).startswith("text 0 of query (")
            pairs = [Pair(RIVER, "a"), Pair(RIVER, "b"), Pair(NOTHING, "a")]
            message = await refusal(client.score_pairs(pairs))
            assert message.startswith("text 2 of queries of pairs (")
            pairs[2] = Pair("b", NOTHING)
            message = await refusal(client.score_pairs(pairs))
            assert message.startswith("text 2 of passages of pairs (")
            alone = (await client.embed(["a"])).vectors[0]
            np.testing.assert_allclose(
                (await client.embed(["b", "a"])).vectors[1], alone, atol=1e-5
            )
            assert (await client.metrics()).requests_failed == {"INVALID_ARGUMENT": 5}

    asyncio.run(run())


def test_a_cross_encoder_rejects_only_the_pair_without_tokens(tmp_path: Path) -> None:
    model = tiny_seeded(tmp_path, special_tokens=False)

    async def run() -> None:
        async with serving([noop(model)]) as address, InferenceClient(address) as client:
            message = await refusal(client.score(NOTHING, ["a", NOTHING * 80]))
            assert message.startswith(
                "text 1 of passages ('" + "\\u200b" * 60 + "'…) has no tokens"
            )
            message = await refusal(client.score_pairs([Pair("a", "b"), Pair(NOTHING, NOTHING)]))
            assert message.startswith("text 1 of passages of pairs (")
            # A pair is valid if one of its texts has tokens
            assert (await client.score(RIVER, [NOTHING])).tokens == 4

    asyncio.run(run())


def test_special_tokens_count_as_tokens(tmp_path: Path) -> None:
    model = tiny_seeded(tmp_path)
    cut = dataclasses.replace(model, max_length=3)  # the number of a pair's special tokens

    async def run(model: ModelFolder) -> int:
        async with serving([noop(model)]) as address, InferenceClient(address) as client:
            return (await client.score(NOTHING, [NOTHING, NOTHING])).tokens

    assert asyncio.run(run(model)) == 6
    assert asyncio.run(run(cut)) == 6


def test_cached_tokens_are_checked_too(tmp_path: Path) -> None:
    """With pipeline=infer tokens come from the cache, filled in advance or by the request."""
    model = embedder(tmp_path, "mean")

    async def run() -> None:
        async with service_of(model, tmp_path, "packed", remember=True) as service:
            service.precompute_tokens([(RIVER, NOTHING)])
            for passages in ([NOTHING], ["a", "b", NOTHING * 2]):
                with pytest.raises(InvalidRequest, match=f"text {len(passages) - 1} of passages"):
                    await service.score(RIVER, passages, None)

    asyncio.run(run())


def test_a_data_set_with_a_text_without_tokens_is_rejected_before_sending(tmp_path: Path) -> None:
    plain = tiny_seeded(tmp_path / "plain")
    bare = tiny_seeded(tmp_path / "bare", special_tokens=False)
    vectors = embedder(tmp_path / "vectors", "mean")
    whole = QueryPassages("q1", RIVER, ("p1", "p2"), ("a", "b"))
    passage = dataclasses.replace(whole, passages=("a", NOTHING))
    query = dataclasses.replace(whole, query=NOTHING)
    both = dataclasses.replace(passage, query=NOTHING)
    for model, entry, task in (
        (plain, both, Task.SCORE),  # special tokens count as tokens
        (bare, passage, Task.SCORE),  # the pair still has the query's tokens
        (bare, query, Task.SCORE),
        (vectors, whole, Task.SCORE),
        (vectors, query, Task.EMBED),  # embedding sends no query
    ):
        refuse_no_tokens([whole, entry], model, task)
    for model, entry, task, message in (
        (bare, both, Task.SCORE, "passage p2 of query q1"),
        (vectors, passage, Task.SCORE, "passage p2 of query q1"),
        (vectors, passage, Task.EMBED, "passage p2 of query q1"),
        (vectors, query, Task.SCORE, "query q1"),
    ):
        with pytest.raises(DatasetError, match=rf"^{message} has no tokens \('\\u200b'\)"):
            refuse_no_tokens([whole, entry], model, task)


@asynccontextmanager
async def service_of(
    model: ModelFolder, cache_dir: Path, name: str, *, remember: bool = False
) -> AsyncIterator[ModelService]:
    """Run a service with one engine."""
    engine: Any = backend(name, model, "fp32", cache_dir)
    replica = Replica(engine, engine)
    replica.load()
    scheduler, telemetry = DynamicScheduler("dynamic", 64, 5.0), Telemetry(list)
    pool = Pool(scheduler, [replica], telemetry, "load", 120.0)
    tokenizer = PairTokenizer(model)
    token_cache = TokenCache(tokenizer.encode) if remember else None
    service = ModelService(
        model,
        [replica],
        tokenizer,
        activation_of(model),
        pool,
        Tokenizing(1),
        token_cache=token_cache,
    )
    service.start()
    try:
        yield service
    finally:
        await asyncio.to_thread(service.close)


ODD = [
    "\x00", "\x07", "\x1b[0m", "\x7f", "\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202e",
    "\u0301", "\u0489", "\u3099", "\ufe0f", "😀", "👩‍👩‍👧", "🏳️‍🌈", "\U000e0041", "\ufffd", "\uffff",
    " ", "\t", "\n", "\u00a0", "\u3000", "river", "to", "the", "SEA", "naïve", "川", "ﷺ", "ß", "İ",
    "[SEP]", "[CLS]", "[MASK]", "##s", "...", "a" * 300,
]  # fmt: skip


def odd_texts(count: int, seed: int) -> list[str]:
    """Return texts composed of unusual pieces: one, a few, hundreds, or repetitions of one."""
    random = np.random.default_rng(seed)
    texts = []
    for number in range(count):
        pieces = random.choice(len(ODD), size=(1, 2, 5, 1, 20, 1, 2, 700)[number % 8])
        if random.random() < 0.3:
            pieces[:] = pieces[0]
        joint = str(random.choice(["", " "]))
        texts.append(joint.join(ODD[piece] for piece in pieces))
    return texts


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        *((name, pooling) for name in ("pytorch", "packed") for pooling in (None, "lasttoken")),
        *((name, "mean") for name in ("pytorch", "packed", "openvino", "onnx")),
        ("openvino", None),
        ("onnx", None),
    ],
)
def test_unusual_texts_have_the_same_score_alone_and_in_a_batch(
    name: str, pooling: str | None, tmp_path: Path
) -> None:
    """The embedder's tokenizer adds no special tokens, so some texts are empty and rejected."""
    for library in {"openvino": ["openvino"], "onnx": ["onnx", "onnxruntime"]}.get(name, []):
        pytest.importorskip(library)
    model = tiny_seeded(tmp_path, special_tokens=pooling is None, pooling=pooling)
    texts = odd_texts(16, seed=len(name))
    refused = 0

    async def run() -> None:
        nonlocal refused
        async with service_of(model, tmp_path, name) as service:
            call = service.embed if pooling else scored(service)
            alone = []
            for text in texts:
                try:
                    alone.append((await call([text], None)).values[0])
                except InvalidRequest:
                    refused += 1
                    alone.append(None)
            kept = [index for index, value in enumerate(alone) if value is not None]
            together = (await call([texts[index] for index in kept], None)).values
            assert np.isfinite(together).all()
            for index, value in zip(kept, together, strict=True):
                np.testing.assert_allclose(value, alone[index], atol=1e-5, rtol=0)
            for index in set(range(len(texts))) - set(kept):
                with pytest.raises(InvalidRequest, match=r"text 1 of .* has no tokens"):
                    await call(["river", texts[index]], None)

    asyncio.run(run())
    assert (refused > 0) == (pooling is not None)


def scored(service: ModelService) -> Any:
    return lambda texts, deadline_s: service.score(RIVER, texts, deadline_s)
