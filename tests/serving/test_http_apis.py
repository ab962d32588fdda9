"""The wire forms of other people's servers, as their documentation has them, and bad replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from crossbench.serving.http_apis import APIS, BadReply, cosines, to_scores, to_vectors
from crossbench.types import Pair

QUERY, TEXTS = "what is a panda", ("hi", "a bear", "a giant panda")
# For each API: the body of a request, and a reply, from the published schema or its examples
EXCHANGES: Mapping[str, tuple[dict[str, Any], Any]] = {
    "tei": (  # huggingface/text-embeddings-inference: RerankRequest, RerankResponse
        {"query": QUERY, "texts": [*TEXTS], "truncate": True, "raw_scores": False},
        [{"index": 2, "score": 0.99}, {"index": 1, "score": 0.5}, {"index": 0, "score": 0.01}],
    ),
    "cohere": (  # docs.cohere.com, v2/rerank
        {"query": QUERY, "documents": [*TEXTS], "top_n": 3},
        {
            "results": [
                {"index": 2, "relevance_score": 0.99},
                {"index": 1, "relevance_score": 0.5},
                {"index": 0, "relevance_score": 0.01},
            ],
            "id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf",
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        },
    ),
    "jina": (  # api.jina.ai, /v1/rerank; vLLM's /rerank replies alike
        {"query": QUERY, "documents": [*TEXTS], "top_n": 3, "return_documents": False},
        {
            "model": "jina-reranker-v2-base-multilingual",
            "usage": {"total_tokens": 15},
            "results": [
                {"index": 2, "relevance_score": 0.99},
                {"index": 1, "document": {"text": "a bear"}, "relevance_score": 0.5},
                {"index": 0, "relevance_score": 0.01},
            ],
        },
    ),
    "infinity": (  # michaelfeil/infinity: RerankInput, ReRankResult
        {"query": QUERY, "documents": [*TEXTS], "top_n": 3, "return_documents": False},
        {
            "object": "rerank",
            "results": [
                {"relevance_score": 0.99, "index": 2, "document": None},
                {"relevance_score": 0.5, "index": 1, "document": None},
                {"relevance_score": 0.01, "index": 0, "document": None},
            ],
            "model": "model",
            "usage": {"prompt_tokens": 30, "total_tokens": 30},
            "id": "infinity-1",
            "created": 1,
        },
    ),
    "vllm_score": (  # docs.vllm.ai, Score API
        {"text_1": QUERY, "text_2": [*TEXTS]},
        {
            "id": "score-1",
            "object": "list",
            "created": 693447,
            "model": "BAAI/bge-reranker-v2-m3",
            "data": [
                {"index": 0, "object": "score", "score": 0.01},
                {"index": 1, "object": "score", "score": 0.5},
                {"index": 2, "object": "score", "score": 0.99},
            ],
            "usage": {},
        },
    ),
    "nim": (  # docs.nvidia.com, NeMo Retriever Text Reranking NIM, /v1/ranking
        {
            "query": {"text": QUERY},
            "passages": [{"text": text} for text in TEXTS],
            "truncate": "END",
        },
        {
            "rankings": [
                {"index": 2, "logit": 0.99},
                {"index": 1, "logit": 0.5},
                {"index": 0, "logit": 0.01},
            ],
            "usage": {"prompt_tokens": 20, "total_tokens": 20},
        },
    ),
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_recorded_exchanges(name: str) -> None:
    """The scores come back in the order of the texts, however the reply is sorted."""
    api, (body, reply) = APIS[name], EXCHANGES[name]
    assert api.ask is not None
    assert api.ask(QUERY, TEXTS) == body
    assert to_scores(api.values(reply, 3)) == pytest.approx([0.01, 0.5, 0.99])


def test_embeddings_of_openai() -> None:
    """platform.openai.com, create embeddings."""
    api = APIS["openai_embeddings"]
    assert api.ask_texts is not None
    assert api.ask_texts(TEXTS) == {"input": [*TEXTS], "encoding_format": "float"}
    reply = {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": [0.0, 2.0], "index": 1},
            {"object": "embedding", "embedding": [1.0, 1.0], "index": 0},
            {"object": "embedding", "embedding": [3.0, 0.0], "index": 2},
        ],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }
    vectors = to_vectors(api.values(reply, 3))
    assert vectors.tolist() == [[1, 1], [0, 2], [3, 0]]
    assert cosines(vectors) == pytest.approx([0.5**0.5, 0.5**0.5])


def test_pairs_of_several_queries() -> None:
    ask = APIS["vllm_score"].ask_pairs
    assert ask is not None
    assert ask([Pair("a", "b"), Pair("c", "d")]) == {"text_1": ["a", "c"], "text_2": ["b", "d"]}
    assert [name for name, api in APIS.items() if api.ask_pairs] == ["vllm_score"]


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ([{"index": 0, "score": 1}], "1 of 2 results are missing, the first of index 1"),
        ([{"index": 0, "score": 1}, {"index": 0, "score": 2}], "two results have the index 0"),
        ([{"index": 2, "score": 1}], "a result has the index 2, but 2 texts were sent"),
        ([{"index": -1, "score": 1}], "a result has the index -1"),
        ([{"index": True, "score": 1}], "has no index"),
        ([{"score": 1}], "has no index"),
        ([0.5, 0.6], "the result 0.5 has no index"),
        ([{"index": 0}], "the result of index 0 has no score"),
        ({"results": []}, "is no list of results"),
        (None, "the reply None is no list of results"),
    ],
)
def test_a_reply_of_another_form_is_refused(reply: Any, fault: str) -> None:
    with pytest.raises(BadReply, match=fault):
        APIS["tei"].values(reply, 2)


def test_a_reply_without_the_list_is_refused() -> None:
    with pytest.raises(BadReply, match=r"the reply \{'error': 'no'\} has no results"):
        APIS["cohere"].values({"error": "no"}, 2)
    with pytest.raises(BadReply, match="'results' is no list of results"):
        APIS["cohere"].values({"results": "results"}, 2)


@pytest.mark.parametrize("value", ["0.5", None, True, [1.0], {}])
def test_a_score_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(BadReply, match=r"the score of index 1 is .* which is no number"):
        to_scores([0.5, value])


def test_numbers_of_every_size() -> None:
    assert not np.isfinite(to_scores([1e300, float("nan"), float("inf")])).any()
    with pytest.raises(BadReply, match="a number is too large"):
        to_scores([10**400])


@pytest.mark.parametrize(
    ("vectors", "fault"),
    [
        ([[1.0], 2.0], "the vector of index 1 is 2.0, which is no list"),
        ([[1.0], [1.0, 2.0]], "the vectors have 1 and 2 numbers"),
        ([[1.0], ["1"]], "the vector of index 1 has values that are no numbers"),
        ([[], []], "is no list"),
    ],
)
def test_a_vector_of_another_form_is_refused(vectors: Any, fault: str) -> None:
    with pytest.raises(BadReply, match=fault):
        to_vectors(vectors)
