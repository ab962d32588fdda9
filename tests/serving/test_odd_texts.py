"""Unlikely but valid texts get from the server the values that sentence-transformers gives them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from sentence_transformers import CrossEncoder, SentenceTransformer

from benchmarks.known_scores import TOLERANCE
from crossbench.errors import InvalidRequest
from crossbench.models.folder import ModelFolder
from crossbench.serving.client import InferenceClient
from crossbench.types import Float32Array, Pair
from tests.helpers.odd_texts import EMPTY, VALID
from tests.helpers.serving import pytorch, serving
from tests.helpers.tiny_families import FAMILIES
from tests.helpers.tiny_seeded import tiny_seeded

ReplyT = TypeVar("ReplyT")

MAXIMUM = 512  # tokens that the seeded models read
A_MILLION_LETTERS = "x" * 1_000_000
LIBRARY: Any = {"device": "cpu", "model_kwargs": {"dtype": torch.float32}}

# One of each kind of tokenizer: WordPiece, byte-level BPE, and Unigram with two templates
KINDS = ("bert", "roberta", "xlm-roberta", "deberta-v2")

SPACES = " \t\n\r\v\f\u00a0\u1680\u2003\u2028\u202f\u205f\u3000\u200b\ufeff"
MARKS = ".,;:!?-–…'\"“”()[]{}<>/\\|@#$%^&*_=+~`¿。、「」"
JOINING = "\u0301\u0308\u0327\u0345\u20dd\ufe0f\u200d\u0e33\u093f\u1160\u11a8"
WORDS = ("river", "Café", "NAÏVE", "水", "한", "[SEP]", "<mask>", "##s", "ß", "İ", "x" * 120, "10")
PIECES = st.one_of(
    st.sampled_from((*VALID, *WORDS)),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.text(st.sampled_from(MARKS), min_size=1, max_size=8),
    st.text(st.sampled_from(SPACES + JOINING + "a"), min_size=1, max_size=8),
)


def joined(pieces: list[str], gap: str, times: int) -> str:
    return gap.join(pieces * times)


# The library makes, of two texts that are too long, a piece of every pair of pieces: two texts of
# 10,000 letters take gigabytes, which our server does not need
LONGEST_BYTES = 4000
# A few are far longer than the small models read
TEXTS = st.builds(
    joined,
    st.lists(PIECES, min_size=1, max_size=6),
    st.sampled_from(["", *SPACES]),
    st.sampled_from([1] * 9 + [7, 100]),
).filter(lambda text: not text.isspace() and len(text.encode()) <= LONGEST_BYTES)
PAIRS = st.lists(st.builds(Pair, TEXTS, TEXTS), min_size=1, max_size=4)


@dataclass(frozen=True)
class Served:
    """A server with one model, and what the library says about that model."""

    client: InferenceClient
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    library: CrossEncoder | SentenceTransformer

    def check_pairs(self, pairs: Sequence[Pair]) -> None:
        assert isinstance(self.library, CrossEncoder)
        texts = [(pair.query, pair.passage) for pair in pairs]
        expected = np.asarray(self.library.predict(texts, batch_size=1), dtype=np.float32)
        for _ in range(2):  # with new words, then with words from memory
            scores: Float32Array = self.run(self.client.score_pairs(pairs)).scores
            np.testing.assert_allclose(scores, expected, atol=TOLERANCE, rtol=0)

    def check_texts(self, texts: Sequence[str]) -> None:
        assert isinstance(self.library, SentenceTransformer)
        expected = self.library.encode(list(texts), batch_size=1)
        for _ in range(2):
            vectors: Float32Array = self.run(self.client.embed(texts)).vectors
            np.testing.assert_allclose(vectors, expected, atol=TOLERANCE, rtol=0)


@contextlib.contextmanager
def served(model: ModelFolder, cache: Path) -> Iterator[Served]:
    """Run a server with this model on an event loop that runs while it is asked."""
    kind = CrossEncoder if model.embedding is None else SentenceTransformer
    library = kind(str(model.path), **LIBRARY)
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()

        async def start() -> InferenceClient:
            limits = {"max_request_bytes": 16_000_000, "max_text_bytes": 2_000_000}
            address = await stack.enter_async_context(serving([pytorch(model, cache)], **limits))
            return await stack.enter_async_context(InferenceClient(address))

        client = runner.run(start())
        try:
            yield Served(client, runner.run, library)
        finally:
            runner.run(stack.aclose())


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("reranker")
    with served(tiny_seeded(folder), folder) as running:
        yield running


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("embedder")
    with served(tiny_seeded(folder, pooling="mean"), folder) as running:
        yield running


def generated(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def around_the_maximum(special: int) -> Iterator[tuple[int, int]]:
    """Yield numbers of words of a query and a passage that just fit, or just do not."""
    room = MAXIMUM - special
    half = room // 2
    for total in (room - 1, room, room + 1):
        yield 1, total - 1
        yield half, total - half
        yield total - 1, 1
    # Both longer than the maximum: which one is longer decides about one token
    yield from ((600, 600), (600, 601), (601, 600), (5000, 600), (1, 5000), (5000, 1))


def words(count: int) -> str:
    """Return a text of so many words of one token."""
    return " ".join(("the", "river", "water", "city")[number % 4] for number in range(count))


def test_odd_pairs_get_the_librarys_scores(reranker: Served) -> None:
    reranker.check_pairs([Pair(text, "a river") for text in VALID])
    reranker.check_pairs([Pair("a river", text) for text in VALID])
    reranker.check_pairs([Pair("a river", A_MILLION_LETTERS)])


def test_pairs_around_the_maximum_get_the_librarys_scores(reranker: Served) -> None:
    sizes = list(around_the_maximum(special=3))
    reranker.check_pairs([Pair(words(query), words(passage)) for query, passage in sizes])
    # A query longer than the maximum, with passages of all lengths
    query, passages = words(700), [words(count) for count in (1, 253, 254, 255, 508, 509, 700, 701)]
    expected = np.asarray(reranker.library.predict([(query, text) for text in passages]))
    reply = reranker.run(reranker.client.score(query, passages))
    np.testing.assert_allclose(reply.scores, expected, atol=TOLERANCE, rtol=0)


def test_odd_texts_get_the_librarys_vectors(embedder: Served) -> None:
    embedder.check_texts(VALID)
    embedder.check_texts([words(count) for count in (509, 510, 511, 512, 513, 5000)])
    embedder.check_texts([A_MILLION_LETTERS])


def test_generated_pairs_get_the_librarys_scores(reranker: Served) -> None:
    generated(15)(given(PAIRS)(reranker.check_pairs))()


@pytest.mark.slow
@pytest.mark.parametrize("family", KINDS)
def test_many_generated_pairs_get_the_librarys_scores(family: str, tmp_path: Path) -> None:
    with served(FAMILIES[family].make(tmp_path), tmp_path) as running:
        generated(400)(given(PAIRS)(running.check_pairs))()
        running.check_pairs([Pair(text, "a river") for text in VALID])
        running.check_pairs([Pair("a river", text) for text in VALID])


@pytest.mark.slow
def test_many_generated_texts_get_the_librarys_vectors(embedder: Served) -> None:
    texts = st.lists(TEXTS, min_size=1, max_size=4)
    generated(400)(example(list(VALID))(given(texts)(embedder.check_texts)))()


@pytest.mark.parametrize("text", EMPTY)
def test_a_text_without_a_character_is_refused(reranker: Served, text: str) -> None:
    for query, passage, where in ((text, "a", "query"), ("a", text, "passages")):
        with pytest.raises(grpc.aio.AioRpcError, match=f"of {where} is empty: send") as refused:
            reranker.run(reranker.client.score(query, [passage]))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_text_that_is_not_unicode_is_refused_by_the_client(
    reranker: Served, embedder: Served
) -> None:
    half = "half an emoji \ud83d here"
    calls = [
        reranker.client.score(half, ["a"]),
        reranker.client.score("a", ["b", half]),
        reranker.client.score_pairs([Pair("a", half)]),
        embedder.client.embed([half]),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest, match=r"at character 14, near .*\\ud83d.*: replace it"):
            reranker.run(call)
