"""One served model: its tokenizer threads, its scheduler and its worker pool, as coroutines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from crossbench.errors import DeadlineExpired, InvalidRequest, WrongTask
from crossbench.models.activation import Activation
from crossbench.models.embedding import Embedding
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer, Tokenized
from crossbench.serving.finite import check_finite
from crossbench.serving.pool import Pool, Ticket
from crossbench.serving.replica import Replica
from crossbench.serving.token_cache import Texts, TokenCache
from crossbench.types import Float32Array, Pair, Timing

MAX_SHOWN_CHARS = 60  # characters of a text in an error
NameRow = Callable[[int], str]  # what a request calls the text behind a row of its token batch


@dataclass(frozen=True, slots=True)
class Answer:
    """Values float32 (n,) or (n, dim) in the request's order, and what they took."""

    values: Float32Array
    timing: Timing
    tokens: int
    truncated: int


@dataclass(frozen=True)
class ModelService:
    """Text in, scores or vectors out. `tokenizers` threads tokenise, off the event loop.

    A cross-encoder's scores are of its pairs. An embedder's are the similarity of vectors that its
    folder names, the cosine where it names none: every text is embedded once, whatever it is
    compared with. With `runs_model` False every value is 0 and the
    pool gets no work (pipeline=tokenize). With a `memory` token ids come from there, where it has
    them (pipeline=infer).
    """

    model: ModelFolder
    replicas: Sequence[Replica]
    tokenizer: PairTokenizer
    activation: Activation
    pool: Pool
    tokenizers: ThreadPoolExecutor
    runs_model: bool = True
    token_cache: TokenCache | None = None

    def start(self) -> None:
        self.pool.start()

    def close(self) -> None:
        self.tokenizers.shutdown(wait=True, cancel_futures=True)
        self.pool.close()
        for replica in self.replicas:
            replica.close()

    async def score(self, query: str, passages: Sequence[str], deadline_s: float | None) -> Answer:
        """Scores of one query's passages.

        `deadline_s` is on `time.perf_counter`. Cancelling the coroutine drops the work that has
        not started.

        Raises:
            InvalidRequest: a text has no tokens.
            NonFiniteValues, QueueFull, DeadlineExpired, WorkerDied: see their docstrings.
        """
        if self.model.embedding is not None:
            places = [0] * len(passages)
            what = ("query", "passages")
            return await self._similarities(
                self.model.embedding, [query], places, passages, what, deadline_s
            )

        def name(row: int) -> str:
            return _name("passages", row, passages[row])

        if self.token_cache is not None:
            known = [(query, passage) for passage in passages]
            return await self._run_cached(self.token_cache, known, name, deadline_s)
        return await self._run(
            lambda: self.tokenizer.encode_query(query, passages), name, deadline_s
        )

    async def score_pairs(self, pairs: Sequence[Pair], deadline_s: float | None) -> Answer:
        """Scores of pairs that may span queries; raises as `score` does."""
        if self.model.embedding is not None:
            queries: dict[str, int] = {}
            places = [queries.setdefault(pair.query, len(queries)) for pair in pairs]
            passages = [pair.passage for pair in pairs]
            what = ("queries of pairs", "passages of pairs")
            return await self._similarities(
                self.model.embedding, list(queries), places, passages, what, deadline_s
            )

        def name(row: int) -> str:
            return _name("passages of pairs", row, pairs[row].passage)

        if self.token_cache is not None:
            known = [(pair.query, pair.passage) for pair in pairs]
            return await self._run_cached(self.token_cache, known, name, deadline_s)
        return await self._run(lambda: self.tokenizer.encode_pairs(pairs), name, deadline_s)

    async def embed(self, texts: Sequence[str], deadline_s: float | None) -> Answer:
        """One vector per text; raises as `score` does.

        Raises:
            WrongTask: the model is a cross-encoder.
        """
        embedding = self.model.embedding
        if embedding is None:
            raise WrongTask(
                f"{self.model.name} is a cross-encoder, which scores pairs and does not embed: "
                "call Score or ScorePairs, or serve a sentence-transformer (model=all-minilm-l6)"
            )
        prompted = [embedding.prompt + text for text in texts]
        return await self._vectors(
            prompted, lambda row: _name("texts", row, texts[row]), deadline_s
        )

    def precompute_tokens(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Remember the token ids of these (query, passage), where there is a memory."""
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
        places: list[int],
        passages: Sequence[str],
        what: tuple[str, str],
        deadline_s: float | None,
    ) -> Answer:
        """Similarity of each passage with the query at its place, which is embedded once.

        `what` is how errors call the queries and the passages.
        """

        def name(row: int) -> str:
            if row < len(queries):
                return _name(what[0], places.index(row), queries[row])
            return _name(what[1], row - len(queries), passages[row - len(queries)])

        texts = [embedding.query_prompt + query for query in queries]
        texts += [embedding.passage_prompt + passage for passage in passages]
        answer = await self._vectors(texts, name, deadline_s)
        rows = np.arange(len(queries), len(texts))
        scores = embedding.score(answer.values, places, rows)
        self._check_finite(scores)  # finite vectors may still overflow in their product
        return replace(answer, values=scores)

    async def _vectors(
        self, texts: Sequence[str], name: NameRow, deadline_s: float | None
    ) -> Answer:
        if self.token_cache is not None:
            return await self._run_cached(
                self.token_cache, [(text,) for text in texts], name, deadline_s
            )
        return await self._run(lambda: self.tokenizer.encode_texts(texts), name, deadline_s)

    async def _run_cached(
        self,
        token_cache: TokenCache,
        texts: Sequence[Texts],
        name: NameRow,
        deadline_s: float | None,
    ) -> Answer:
        arrived_s = time.perf_counter()
        tokenized = token_cache.get(texts)
        if tokenized is None:
            return await self._run(lambda: token_cache.get_or_add(texts), name, deadline_s)
        _check_tokens(tokenized, name)
        return await self._infer(tokenized, (time.perf_counter() - arrived_s) * 1e3, deadline_s)

    async def _run(
        self, tokenize: Callable[[], Tokenized], name: NameRow, deadline_s: float | None
    ) -> Answer:
        arrived_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        tokenized = await loop.run_in_executor(self.tokenizers, tokenize)
        _check_tokens(tokenized, name)
        return await self._infer(tokenized, (time.perf_counter() - arrived_s) * 1e3, deadline_s)

    async def _infer(
        self, tokenized: Tokenized, tokenize_ms: float, deadline_s: float | None
    ) -> Answer:
        if deadline_s is not None and time.perf_counter() > deadline_s:
            raise DeadlineExpired(f"deadline passed while tokenising ({tokenize_ms:.0f} ms)")
        if not self.runs_model:
            shape = (len(tokenized.batch), self.model.embedding_dim)
            zeros = np.zeros(shape if self.model.embedding else shape[:1], dtype=np.float32)
            return _answer(tokenized, zeros, Timing(tokenize_ms, 0.0, 0.0))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ticket] = loop.create_future()

        def done(ticket: Ticket) -> None:
            loop.call_soon_threadsafe(_resolve, future, ticket)

        ticket = self.pool.submit(tokenized.batch, deadline_s, done)
        try:
            await future
        except asyncio.CancelledError:
            self.pool.cancel(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        assert ticket.values is not None
        # Before the activation: a sigmoid would make 1.0 of an infinite logit
        self._check_finite(ticket.values)
        timing = Timing(tokenize_ms, ticket.queue_ms, ticket.infer_ms)
        embedding = self.model.embedding
        if embedding is None:
            values = self.activation(ticket.values)
        else:
            values = embedding.truncate(ticket.values)
        return _answer(tokenized, values, timing)

    def _check_finite(self, values: Float32Array) -> None:
        check_finite(values, self.model.name, self.replicas[0].backend)


def _name(what: str, number: int, text: str) -> str:
    """What an error calls a text; a long one is cut."""
    shown = repr(text) if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]!r}…"
    return f"text {number} of {what} ({shown})"


def _check_tokens(tokenized: Tokenized, name: NameRow) -> None:
    """Refuse a row without tokens: pooling would read its neighbour, or divide by zero.

    Raises:
        InvalidRequest: naming the first such text.
    """
    empty = np.flatnonzero(tokenized.batch.lengths == 0)
    if len(empty):
        raise InvalidRequest(
            f"{name(int(empty[0]))} has no tokens: the model's tokenizer drops every character of "
            "it and adds none of its own. Send other text, or leave it out"
        )


def _answer(tokenized: Tokenized, values: Float32Array, timing: Timing) -> Answer:
    return Answer(values, timing, tokenized.batch.total_tokens, tokenized.truncated)


def _resolve(future: asyncio.Future[Ticket], ticket: Ticket) -> None:
    if not future.done():
        future.set_result(ticket)
