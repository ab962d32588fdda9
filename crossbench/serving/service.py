"""One served model: its tokenizer threads, its scheduler and its worker pool, as coroutines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from crossbench.errors import DeadlineExpired
from crossbench.models.activation import Activation
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer, Tokenized
from crossbench.serving.pool import Pool, Ticket
from crossbench.serving.replica import Replica
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
    """Text in, scores out. `tokenizers` threads tokenise, off the event loop."""

    model: ModelFolder
    replicas: Sequence[Replica]
    tokenizer: PairTokenizer
    activation: Activation
    pool: Pool
    tokenizers: ThreadPoolExecutor

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
        return await self._run(lambda: self.tokenizer.encode_query(query, passages), deadline_s)

    async def score_pairs(self, pairs: Sequence[Pair], deadline_s: float | None) -> Answer:
        """Scores of pairs that may span queries; raises as `score` does."""
        return await self._run(lambda: self.tokenizer.encode_pairs(pairs), deadline_s)

    async def _run(self, tokenize: Callable[[], Tokenized], deadline_s: float | None) -> Answer:
        loop = asyncio.get_running_loop()
        arrived_s = time.perf_counter()
        tokenized = await loop.run_in_executor(self.tokenizers, tokenize)
        tokenize_ms = (time.perf_counter() - arrived_s) * 1e3
        if deadline_s is not None and time.perf_counter() > deadline_s:
            raise DeadlineExpired(f"deadline passed while tokenising ({tokenize_ms:.0f} ms)")
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
        return Answer(
            values=self.activation(ticket.values),
            timing=Timing(tokenize_ms, ticket.queue_ms, ticket.infer_ms),
            tokens=tokenized.batch.total_tokens,
            truncated=tokenized.truncated,
        )


def _resolve(future: asyncio.Future[Ticket], ticket: Ticket) -> None:
    if not future.done():
        future.set_result(ticket)
