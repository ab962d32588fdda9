"""One served model: its tokenizer threads, its scheduler and its worker pool, as coroutines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from crossbench.errors import DeadlineExpired
from crossbench.models.activation import Activation
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import Tokenized
from crossbench.serving.pool import Pool, Ticket
from crossbench.serving.replica import Replica
from crossbench.serving.token_memory import Texts, Tokenizer, TokenMemory
from crossbench.types import Float32Array, Pair, Timing


@dataclass(frozen=True, slots=True)
class Answer:
    """Values float32 (n,) or (n, dim) in the request's order, and what they took."""

    values: Float32Array
    timing: Timing
    tokens: int
    truncated: int


@dataclass(frozen=True)
class ModelService:
    """Text in, scores out. `tokenizers` threads tokenise, off the event loop.

    With `runs_model` False every score is 0 and the pool gets no work (pipeline=tokenize). With a
    `memory` token ids come from there, where it has them (pipeline=infer).
    """

    model: ModelFolder
    replicas: Sequence[Replica]
    tokenizer: Tokenizer
    activation: Activation
    pool: Pool
    tokenizers: ThreadPoolExecutor
    runs_model: bool = True
    memory: TokenMemory | None = None

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
            QueueFull, DeadlineExpired, WorkerDied: see their docstrings.
        """
        if self.memory is not None:
            return await self._score_known([(query, passage) for passage in passages], deadline_s)
        return await self._run(lambda: self.tokenizer.encode_query(query, passages), deadline_s)

    async def score_pairs(self, pairs: Sequence[Pair], deadline_s: float | None) -> Answer:
        """Scores of pairs that may span queries; raises as `score` does."""
        if self.memory is not None:
            known = [(pair.query, pair.passage) for pair in pairs]
            return await self._score_known(known, deadline_s)
        return await self._run(lambda: self.tokenizer.encode_pairs(pairs), deadline_s)

    async def _score_known(self, texts: Sequence[Texts], deadline_s: float | None) -> Answer:
        memory = self.memory
        assert memory is not None
        arrived_s = time.perf_counter()
        tokenized = memory.recall(texts)
        if tokenized is None:
            return await self._run(lambda: memory.learn_and_recall(texts), deadline_s)
        return await self._infer(tokenized, (time.perf_counter() - arrived_s) * 1e3, deadline_s)

    async def _run(self, tokenize: Callable[[], Tokenized], deadline_s: float | None) -> Answer:
        arrived_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        tokenized = await loop.run_in_executor(self.tokenizers, tokenize)
        return await self._infer(tokenized, (time.perf_counter() - arrived_s) * 1e3, deadline_s)

    async def _infer(
        self, tokenized: Tokenized, tokenize_ms: float, deadline_s: float | None
    ) -> Answer:
        if deadline_s is not None and time.perf_counter() > deadline_s:
            raise DeadlineExpired(f"deadline passed while tokenising ({tokenize_ms:.0f} ms)")
        if not self.runs_model:
            zeros = np.zeros(len(tokenized.batch), dtype=np.float32)
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
        timing = Timing(tokenize_ms, ticket.queue_ms, ticket.infer_ms)
        return _answer(tokenized, self.activation(ticket.values), timing)


def _answer(tokenized: Tokenized, values: Float32Array, timing: Timing) -> Answer:
    return Answer(values, timing, tokenized.batch.total_tokens, tokenized.truncated)


def _resolve(future: asyncio.Future[Ticket], ticket: Ticket) -> None:
    if not future.done():
        future.set_result(ticket)
