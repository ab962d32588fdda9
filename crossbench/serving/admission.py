"""Admission: refuses a request that would wait too long, before its texts are read."""

from __future__ import annotations

from dataclasses import dataclass, field

from crossbench.errors import QueueFull
from crossbench.serving.pool import Pool
from crossbench.serving.server_settings import ServerSettings
from crossbench.serving.tokenizing import Tokenizing
from crossbench.wording import number

FIRST_TOKENS_PER_BYTE = 0.25  # of English text, until answers show how many there are
SMOOTHING = 0.1  # weight of the latest answer in that mean
LEAST_RETRY_S = 0.01


@dataclass
class Admission:
    """Decides which requests of one model are taken. All methods run on the event loop.

    A request is refused if more than `max_queue_pairs` pairs would wait, if it would wait longer
    than `max_queue_ms`, or if it could not be answered before its deadline. The waiting time is
    predicted from the work that has been taken and from the speed of the latest work. A server
    without other work takes every request. `max_length` is the model's maximum number of tokens.
    """

    pool: Pool
    tokenizing: Tokenizing
    settings: ServerSettings
    max_length: int
    _tokens_per_byte: float = field(default=FIRST_TOKENS_PER_BYTE, init=False)

    def check(self, pairs: int, size_bytes: int, deadline_s: float | None, now_s: float) -> None:
        """Check that a request may be taken; `deadline_s` is a time of `time.perf_counter`.

        Raises:
            QueueFull: the request would wait too long.
        """
        tokenizing, settings = self.tokenizing, self.settings
        backlog = self.pool.backlog(now_s, tokenizing.waiting_characters * self._tokens_per_byte)
        wait_s = backlog.wait_s + tokenizing.wait_s()
        waiting = backlog.pairs + tokenizing.waiting_texts
        if waiting and waiting + pairs > settings.max_queue_pairs:
            raise QueueFull(
                f"{waiting} pairs wait, and {pairs} more would exceed the limit of "
                f"{settings.max_queue_pairs}: send fewer requests at once, or raise "
                "server.max_queue_pairs",
                max(wait_s, LEAST_RETRY_S),
            )
        if settings.max_queue_ms is not None and wait_s * 1e3 > settings.max_queue_ms:
            raise QueueFull(
                f"the request would wait for about {number(wait_s * 1e3)} ms, the limit is "
                f"{number(settings.max_queue_ms)} ms: send fewer requests at once, or raise "
                "server.max_queue_ms",
                max(wait_s - settings.max_queue_ms * 1e-3, LEAST_RETRY_S),
            )
        if deadline_s is not None and wait_s > 0:
            tokens = min(size_bytes * self._tokens_per_byte, float(pairs * self.max_length))
            needed_s = wait_s + self.pool.infer_s(tokens)
            if now_s + needed_s > deadline_s:
                raise QueueFull(
                    f"the request would be answered in about {number(needed_s * 1e3)} ms, but its "
                    f"deadline is in {number((deadline_s - now_s) * 1e3)} ms: send fewer requests "
                    "at once, or give them more time",
                    max(wait_s, LEAST_RETRY_S),
                )

    def learn(self, size_bytes: int, tokens: int) -> None:
        """Learn that a request of `size_bytes` had so many tokens."""
        found = tokens / size_bytes
        self._tokens_per_byte += SMOOTHING * (found - self._tokens_per_byte)
