"""The service of one model: coroutines that tokenise texts and run them in the worker pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from crossbench.errors import DeadlineExpired, InvalidRequest, WrongTask
from crossbench.models.activation import Activation
from crossbench.models.embedding import Embedding
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer, Tokenized
from crossbench.serving.finite import check_finite
from crossbench.serving.pool import Pool
from crossbench.serving.replica import Replica
from crossbench.serving.replies import Replies
from crossbench.serving.ticket import Ticket
from crossbench.serving.token_cache import Texts, TokenCache
from crossbench.serving.tokenizing import Encode, Tokenizing
from crossbench.types import Float32Array, Pair, Timing

MAX_SHOWN_CHARS = 60  # characters of a text that an error message shows
# Returns the description for error messages of the text in a row of the token batch
DescribeRow = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Answer:
    """Values, float32 (n,) or (n, dim), in the order of the request, with timings and counts.

    `logits` are the scores of a cross-encoder before its activation, otherwise the values.
    """

    values: Float32Array
    logits: Float32Array
    timing: Timing
    tokens: int
    truncated: int


@dataclass(frozen=True)
class ModelService:
    """Computes scores or embeddings of texts.

    A cross-encoder scores pairs. A sentence-transformer embeds every text once and scores pairs by
    the similarity function that its folder names, by default the cosine. If `runs_model` is False,
    all values are 0 and the pool is not used (pipeline=tokenize). If there is a `token_cache`,
    token ids come from it (pipeline=infer).
    """

    model: ModelFolder
    replicas: Sequence[Replica]
    tokenizer: PairTokenizer
    activation: Activation
    pool: Pool
    tokenizing: Tokenizing
    runs_model: bool = True
    token_cache: TokenCache | None = None
    replies: Replies = field(default_factory=Replies, init=False)

    def start(self) -> None:
        self.pool.start()

    def close(self) -> None:
        self.tokenizing.close()
        self.pool.close()
        for replica in self.replicas:
            replica.close()

    async def score(self, query: str, passages: Sequence[str], deadline_s: float | None) -> Answer:
        """Score one query's passages.

        `deadline_s` is a time of `time.perf_counter`. Cancelling the coroutine removes its waiting
        work from the queue.

        Raises:
            InvalidRequest: a text has no tokens.
            NonFiniteValues, DeadlineExpired, WorkerDied: see their docstrings.
        """
        if self.model.embedding is not None:
            query_rows = [0] * len(passages)
            what = ("query", "passages")
            return await self._similarities(
                self.model.embedding, [query], query_rows, passages, what, deadline_s
            )

        def describe(row: int) -> str:
            return _describe("passages", row, passages[row])

        if self.token_cache is not None:
            keys = [(query, passage) for passage in passages]
            return await self._run_cached(self.token_cache, keys, describe, deadline_s)
        return await self._run(
            [query, *passages],
            lambda use_library: self.tokenizer.encode_query(query, passages, use_library),
            describe,
            deadline_s,
        )

    async def score_pairs(self, pairs: Sequence[Pair], deadline_s: float | None) -> Answer:
        """Score pairs of one or more queries. Raises the same errors as score()."""
        if self.model.embedding is not None:
            queries: dict[str, int] = {}
            query_rows = [queries.setdefault(pair.query, len(queries)) for pair in pairs]
            passages = [pair.passage for pair in pairs]
            what = ("queries of pairs", "passages of pairs")
            return await self._similarities(
                self.model.embedding, list(queries), query_rows, passages, what, deadline_s
            )

        def describe(row: int) -> str:
            return _describe("passages of pairs", row, pairs[row].passage)

        if self.token_cache is not None:
            keys = [(pair.query, pair.passage) for pair in pairs]
            return await self._run_cached(self.token_cache, keys, describe, deadline_s)
        texts = [text for pair in pairs for text in (pair.query, pair.passage)]
        return await self._run(
            texts,
            lambda use_library: self.tokenizer.encode_pairs(pairs, use_library),
            describe,
            deadline_s,
        )

    async def embed(self, texts: Sequence[str], deadline_s: float | None) -> Answer:
        """Embed every text.

        Raises:
            WrongTask: the model is a cross-encoder.
            InvalidRequest, …: as for score().
        """
        embedding = self.model.embedding
        if embedding is None:
            raise WrongTask(
                f"{self.model.name} is a cross-encoder, which scores pairs and cannot embed texts: "
                "score pairs, or serve a sentence-transformer (model=all-minilm-l6)"
            )
        prompted = [embedding.prompt + text for text in texts]
        return await self._vectors(
            prompted, lambda row: _describe("texts", row, texts[row]), deadline_s
        )

    def precompute_tokens(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Cache the token ids of these (query, passage), if there is a token cache."""
        if self.token_cache is None:
            return
        embedding = self.model.embedding
        if embedding is None:
            self.token_cache.add(pairs)
            return
        texts: dict[Texts, None] = {}
        for query, passage in pairs:
            texts[embedding.query_prompt + query,] = None
            texts[embedding.passage_prompt + passage,] = None
        self.token_cache.add(texts)

    async def _similarities(
        self,
        embedding: Embedding,
        queries: Sequence[str],
        query_rows: list[int],
        passages: Sequence[str],
        what: tuple[str, str],
        deadline_s: float | None,
    ) -> Answer:
        """Return the similarity of passage i and `queries[query_rows[i]]`, for every i.

        Each query is embedded once. `what` names queries and passages in error messages.
        """

        def describe(row: int) -> str:
            if row < len(queries):
                return _describe(what[0], query_rows.index(row), queries[row])
            return _describe(what[1], row - len(queries), passages[row - len(queries)])

        texts = [embedding.query_prompt + query for query in queries]
        texts += [embedding.passage_prompt + passage for passage in passages]
        answer = await self._vectors(texts, describe, deadline_s)
        passage_rows = np.arange(len(queries), len(texts))
        scores = embedding.score(answer.values, query_rows, passage_rows)
        self._check_finite(scores)  # the product of finite vectors may overflow
        return replace(answer, values=scores, logits=scores)

    async def _vectors(
        self, texts: Sequence[str], describe: DescribeRow, deadline_s: float | None
    ) -> Answer:
        if self.token_cache is not None:
            return await self._run_cached(
                self.token_cache, [(text,) for text in texts], describe, deadline_s
            )
        return await self._run(
            texts,
            lambda use_library: self.tokenizer.encode_texts(texts, use_library),
            describe,
            deadline_s,
        )

    async def _run_cached(
        self,
        token_cache: TokenCache,
        keys: Sequence[Texts],
        describe: DescribeRow,
        deadline_s: float | None,
    ) -> Answer:
        arrived_s = time.perf_counter()
        tokenized = token_cache.get(keys)
        if tokenized is None:
            characters = sum(len(text) for texts in keys for text in texts)
            tokenized = await self.tokenizing.in_thread(
                len(keys), characters, partial(token_cache.get_or_add, keys)
            )
        return await self._infer(tokenized, arrived_s, describe, deadline_s)

    async def _run(
        self,
        texts: Sequence[str],
        encode: Encode,
        describe: DescribeRow,
        deadline_s: float | None,
    ) -> Answer:
        arrived_s = time.perf_counter()
        tokenized = await self.tokenizing.run(texts, encode)
        return await self._infer(tokenized, arrived_s, describe, deadline_s)

    async def _infer(
        self,
        tokenized: Tokenized,
        arrived_s: float,
        describe: DescribeRow,
        deadline_s: float | None,
    ) -> Answer:
        _check_tokens(tokenized, describe)
        now_s = time.perf_counter()
        tokenize_ms = (now_s - arrived_s) * 1e3
        if deadline_s is not None and now_s > deadline_s:
            raise DeadlineExpired(
                f"the deadline passed during tokenisation, which took {tokenize_ms:.0f} ms"
            )
        if not self.runs_model:
            shape = (len(tokenized.batch), self.model.embedding_dim)
            zeros = np.zeros(shape if self.model.embedding else shape[:1], dtype=np.float32)
            return _answer(tokenized, zeros, zeros, Timing(tokenize_ms, 0.0, 0.0))
        future: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        ticket = self.pool.submit(tokenized.batch, deadline_s, partial(self.replies.add, future))
        try:
            await future
        except asyncio.CancelledError:
            self.pool.cancel(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        assert ticket.values is not None
        # Check before the activation, since a sigmoid turns an infinite logit into 1.0
        self._check_finite(ticket.values)
        timing = Timing(tokenize_ms, ticket.queue_ms, ticket.infer_ms)
        embedding = self.model.embedding
        if embedding is None:
            return _answer(tokenized, self.activation(ticket.values), ticket.values, timing)
        vectors = embedding.truncate(ticket.values)
        return _answer(tokenized, vectors, vectors, timing)

    def _check_finite(self, values: Float32Array) -> None:
        check_finite(values, self.model.name, self.replicas[0].backend)


def _describe(what: str, number: int, text: str) -> str:
    """Describe a text in an error message."""
    return f"text {number} of {what} ({shortened(text)})"


def shortened(text: str) -> str:
    """Return a text in quotes for an error message."""
    return repr(text) if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]!r}…"


def _check_tokens(tokenized: Tokenized, describe: DescribeRow) -> None:
    """Check that every row has tokens: without any, pooling would give a wrong result.

    Raises:
        InvalidRequest: a text has no tokens.
    """
    lengths = tokenized.batch.lengths
    if not lengths.all():
        raise InvalidRequest(
            f"{describe(int(lengths.argmin()))} has no tokens: the model's tokenizer drops all its "
            "characters and adds no special tokens. Send other text, or omit it"
        )


def _answer(
    tokenized: Tokenized, values: Float32Array, logits: Float32Array, timing: Timing
) -> Answer:
    return Answer(values, logits, timing, tokenized.batch.total_tokens, tokenized.truncated)
