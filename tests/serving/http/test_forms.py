"""The APIs of TEI, Cohere, Jina, vLLM and OpenAI: the same scores as gRPC, in each one's form."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from crossbench.models.folder import ModelFolder
from tests.helpers.http import both
from tests.helpers.serving import noop, pytorch
from tests.helpers.tiny_seeded import tiny_seeded

QUERY = "what is deep learning"
TEXTS = ["a river runs", "deep learning is machine learning", "bread", "Café naïve 水", "a river"]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A cross-encoder whose own score is the logit."""
    return tiny_seeded(tmp_path_factory.mktemp("scorer"))


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_seeded(tmp_path_factory.mktemp("embedder"), pooling="mean")


def in_order(results: list[dict[str, Any]], key: str) -> list[float]:
    """Return the scores in the order of the request; check that they came sorted."""
    scores = [result[key] for result in results]
    assert scores == sorted(scores, reverse=True)
    return [result[key] for result in sorted(results, key=lambda result: result["index"])]


def test_every_form_has_the_scores_of_grpc(scorer: ModelFolder, cache_dir: Path) -> None:
    async def run() -> None:
        async with both([pytorch(scorer, cache_dir)]) as served:
            logits = (await served.grpc.score(QUERY, TEXTS)).scores.tolist()
            shares = pytest.approx(expit(logits).tolist(), rel=1e-12)

            ranks = await served.json("/rerank", query=QUERY, texts=TEXTS, raw_scores=True)
            assert in_order(ranks, "score") == logits
            ranks = await served.json("/rerank", query=QUERY, texts=TEXTS, return_text=True)
            assert in_order(ranks, "score") == shares
            assert all(rank["text"] == TEXTS[rank["index"]] for rank in ranks)

            for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
                reply = await served.json(path, model="tiny", query=QUERY, documents=TEXTS)
                assert in_order(reply["results"], "relevance_score") == shares
                assert set(reply["results"][0]) == {"index", "relevance_score"}
                assert reply["model"] == "tiny"
                assert reply["usage"]["total_tokens"] > len(TEXTS)
            best = await served.json(
                "/v1/rerank", query=QUERY, documents=[{"text": TEXTS[0]}, *TEXTS[1:]], top_n=2,
                return_documents=True, raw_scores=True,
            )  # fmt: skip
            order = np.argsort(logits)[::-1]
            assert [(item["index"], item["relevance_score"]) for item in best["results"]] == [
                (at, logits[at]) for at in order[:2]
            ]
            assert best["results"][0]["document"] == {"text": TEXTS[order[0]]}

            for names in (("text_1", "text_2"), ("queries", "documents")):
                reply = await served.json("/score", **{names[0]: QUERY, names[1]: TEXTS})
                assert [item["score"] for item in reply["data"]] == logits
                assert [item["index"] for item in reply["data"]] == list(range(len(TEXTS)))
            each = await served.json("/v1/score", text_1=[QUERY] * 5, text_2=TEXTS)
            found = [item["score"] for item in each["data"]]
            assert found == pytest.approx(logits, abs=1e-6)
            alone = await served.json("/score", text_1=QUERY, text_2=TEXTS[0])
            assert alone["data"][0]["score"] == pytest.approx(logits[0], abs=1e-6)

    asyncio.run(run())


def test_a_model_with_a_sigmoid_has_its_logits_as_raw_scores(
    tmp_path: Path, scorer: ModelFolder, cache_dir: Path
) -> None:
    activation = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    model = tiny_seeded(tmp_path, config={"sentence_transformers": activation})

    async def run() -> None:
        async with (
            both([pytorch(model, cache_dir)]) as served,
            both([pytorch(scorer, cache_dir)]) as plain,
        ):
            logits = (await plain.grpc.score(QUERY, TEXTS)).scores.tolist()
            own = (await served.grpc.score(QUERY, TEXTS)).scores.tolist()
            assert own == pytest.approx(expit(logits), abs=1e-6)
            given: dict[str, Any] = {"query": QUERY, "texts": TEXTS}
            assert in_order(await served.json("/rerank", **given, raw_scores=True), "score") == (
                pytest.approx(logits, rel=1e-6)
            )
            assert in_order(await served.json("/rerank", **given), "score") == pytest.approx(
                expit(logits), rel=1e-6
            )
            reply = await served.json("/score", text_1=QUERY, text_2=TEXTS)
            assert [item["score"] for item in reply["data"]] == own
            reply = await served.json("/score", text_1=QUERY, text_2=TEXTS, use_activation=False)
            assert [item["score"] for item in reply["data"]] == pytest.approx(logits, rel=1e-6)

    asyncio.run(run())


def test_embeddings_are_those_of_grpc(embedder: ModelFolder, cache_dir: Path) -> None:
    async def run() -> None:
        async with both([pytorch(embedder, cache_dir)]) as served:
            vectors = (await served.grpc.embed(TEXTS)).vectors

            reply = await served.json("/v1/embeddings", model="tiny", input=TEXTS)
            found = np.array([item["embedding"] for item in reply["data"]], dtype=np.float32)
            assert (found == vectors).all()
            assert reply["usage"]["prompt_tokens"] == reply["usage"]["total_tokens"] > 0
            reply = await served.json(
                "/v1/embeddings", input=TEXTS, encoding_format="base64", dimensions=32
            )
            read = [
                np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in reply["data"]
            ]
            assert (np.array(read) == vectors).all()

            plain = np.array(await served.json("/embed", inputs=TEXTS, normalize=False))
            assert (plain.astype(np.float32) == vectors).all()
            unit = np.array(await served.json("/embed", inputs=TEXTS))
            assert np.linalg.norm(unit, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
            assert unit == pytest.approx(vectors / np.linalg.norm(vectors, axis=1)[:, None])
            assert len(await served.json("/embed", inputs=TEXTS[0])) == 1

            # A sentence-transformer ranks by similarity, which stays as it is
            similar = (await served.grpc.score(QUERY, TEXTS)).scores.tolist()
            ranks = await served.json("/rerank", query=QUERY, texts=TEXTS)
            assert in_order(ranks, "score") == pytest.approx(similar, abs=1e-6)

            info = (await served.http.get("/info")).json()
            assert info["model_type"] == {"embedding": {"pooling": "mean"}}

    asyncio.run(run())


WRONG: list[tuple[str, dict[str, Any], int, str]] = [
    ("/rerank", {"texts": ["a"]}, 400, 'the request has no "query": send a string'),
    ("/rerank", {"query": 5, "texts": ["a"]}, 400, '"query" is 5: send a string'),
    ("/rerank", {"query": "q", "texts": "a"}, 400, "\"texts\" is the string 'a': send an array"),
    ("/rerank", {"query": "q", "texts": ["a", None]}, 400, '"texts[1]" is null: send a string'),
    ("/rerank", {"query": "q", "texts": []}, 400, "the request contains no texts: send at least"),
    ("/rerank", {"query": "q", "texts": [" "]}, 400, "text 0 of texts is empty"),
    ("/rerank", {"query": " ", "texts": ["a"]}, 400, "text 0 of query is empty"),
    ("/rerank", {"query": "q", "texts": ["a"], "raw_scores": 1}, 400, "send true or false"),
    ("/rerank", {"query": "q", "texts": ["a"], "truncation_direction": "Left"}, 400,
     'does not support "truncation_direction": omit it, or send Right'),
    ("/rerank", {"query": "q", "texts": ["a"] * 65}, 413, "65 texts, the limit is 64: split"),
    ("/rerank", {"query": "q", "texts": ["word " * 600], "truncate": False}, 413,
     "1 of the texts are longer than the 512 tokens that the model reads: shorten them"),
    ("/embed", {"inputs": "a"}, 424, "is a cross-encoder, which scores pairs and cannot embed"),
    ("/embed", {"inputs": {}}, 400, '"inputs" is an object: send a string or an array'),
    ("/v1/rerank", {"query": "q", "documents": ["a"], "model": "gpt"}, 404,
     "this server has no model 'gpt': use one of"),
    ("/v1/rerank", {"query": "q", "documents": ["a"], "model": 1}, 400, '"model" is 1: send a'),
    ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": -1}, 400, '"top_n" is -1: send a'),
    ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": True}, 400, '"top_n" is true'),
    ("/v2/rerank", {"query": "q", "documents": [["a"]]}, 400, '"documents[0]" is an array: send'),
    ("/v2/rerank", {"query": "q", "documents": [{"title": "a"}]}, 400, '{"text": STRING}'),
    ("/v2/rerank", {"query": "q", "documents": ["a"], "rank_fields": ["title"]}, 400,
     'does not support "rank_fields"'),
    ("/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, 400,
     "the request has 2 text_1 and 3 text_2: send one of the first for all of the second"),
    ("/score", {"text_1": "a"}, 400, 'the request has no "text_2"'),
    ("/score", {"text_1": "a", "text_2": ["b"], "truncate_prompt_tokens": 5}, 400, "not support"),
    ("/v1/embeddings", {"input": [1, 2]}, 400, '"input" has token ids: send texts'),
    ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, 400, '"float" or "base64"'),
    ("/v1/embeddings", {"input": "a", "model": "x"}, 404, "this server has no model 'x'"),
    ("/v1/embeddings", {"input": "a"}, 400, "is a cross-encoder"),
]  # fmt: skip


def words_of(path: str, error: dict[str, Any]) -> str:
    """Return the message of an error; check that it has the form of its API."""
    if path in ("/rerank", "/embed"):
        assert set(error) == {"error", "error_type"}
        return str(error["error"])
    if path.endswith("/rerank"):
        assert set(error) <= {"message", "detail"}
        return str(error["message"])
    assert set(error["error"]) == {"message", "type", "param", "code"}
    return str(error["error"]["message"])


def test_wrong_input_is_told_in_the_form_of_each_api(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        async with both([noop(seeded_model)]) as served:
            for path, fields, status, words in WRONG:
                reply = await served.post(path, **fields)
                assert reply.status_code == status, (path, fields, reply.text)
                assert words in words_of(path, reply.json()), (path, fields)
            for body, words in (
                (b"", "no JSON in UTF-8"),
                (b'{"query": "q', "no JSON in UTF-8"),
                (b'{"query": "\xff", "texts": ["a"]}', "no JSON in UTF-8"),
                (b'{"query": "\\ud800", "texts": ["a"]}', "no JSON in UTF-8"),
                (b"[" * 100_000, "more than 512 JSON values"),
                (b"[" * 5000, "no JSON in UTF-8"),
                (b"[]", "the body is an array: send a JSON object"),
                (b"null", "the body is null"),
            ):
                headers = {"content-type": "application/json"}
                reply = await served.http.post("/rerank", content=body, headers=headers)
                assert reply.status_code in (400, 413), body[:20]
                assert words in reply.json()["error"]
            counted = (await served.grpc.metrics()).requests_failed
            assert counted["INVALID_ARGUMENT"] == len(WRONG) - 2 + 8
            assert counted["FAILED_PRECONDITION"] == 2
            assert set(counted) == {"INVALID_ARGUMENT", "FAILED_PRECONDITION"}

            reply = await served.http.post("/rerank", content=b"{}")
            assert (reply.status_code, "send content-type" in reply.text) == (415, True)
            reply = await served.http.get("/rerank")
            assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
            reply = await served.http.post("/info")
            assert (reply.status_code, reply.headers["allow"]) == (405, "GET")
            reply = await served.http.get("/nothing")
            assert reply.status_code == 404
            assert "use one of /rerank, /embed" in reply.json()["error"]

    asyncio.run(run())


def test_the_server_says_what_it_serves_how_it_is_and_what_it_did(
    seeded_model: ModelFolder,
) -> None:
    async def run() -> None:
        async with both([noop(seeded_model)]) as served:
            assert (await served.http.get("/health")).status_code == 200
            info = (await served.http.get("/info")).json()
            assert info["model_id"] == seeded_model.name
            assert info["max_client_batch_size"] == 64
            await served.json("/rerank", query="q", texts=["a", "b"])
            await served.grpc.score("q", ["c"])
            await served.post("/rerank", query="q", texts=[])
            text = (await served.http.get("/metrics")).text
            assert 'crossbench_requests_total{status="OK"} 2.0' in text
            assert 'crossbench_requests_total{status="INVALID_ARGUMENT"} 1.0' in text
            assert "crossbench_pairs_total 3.0" in text
            assert "crossbench_latency_seconds_count 2.0" in text

    asyncio.run(run())
