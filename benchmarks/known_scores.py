"""Requests whose scores are known beforehand, to see whether an answer was lost or mixed up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossbench.serving.client import InferenceClient
from crossbench.types import Float32Array

# The other texts of a micro-batch change the last digits of a score
TOLERANCE = 2e-4
_WORDS = [
    "river",
    "water",
    "forest",
    "city",
    "mountain",
    "harbour",
    "engine",
    "letter",
    "garden",
    "window",
    "market",
    "bridge",
    "silver",
    "winter",
    "music",
    "doctor",
    "island",
    "copper",
    "museum",
    "planet",
    "tunnel",
    "valley",
    "orchard",
    "lantern",
    "compass",
    "runs",
    "flows",
    "grows",
    "sings",
    "falls",
    "builds",
    "carries",
    "opens",
    "closes",
    "measures",
    "the",
    "a",
    "of",
    "to",
    "in",
    "from",
]


@dataclass(frozen=True)
class Known:
    """A query, its passages and their scores, float32 of shape (passages,)."""

    query: str
    passages: tuple[str, ...]
    scores: Float32Array

    def difference(self, scores: Float32Array) -> float:
        """Return the largest difference to the known scores; infinity for another number."""
        if scores.shape != self.scores.shape:
            return float("inf")
        return float(np.abs(scores - self.scores).max())


def texts(seed: int, requests: int, passages: int) -> list[tuple[str, tuple[str, ...]]]:
    """Return `requests` queries with up to `passages` passages of 2 to 60 words each."""
    rng = random.Random(seed)

    def words(most: int) -> str:
        return " ".join(rng.choices(_WORDS, k=rng.randint(2, most)))

    return [
        (words(8), tuple(words(60) for _ in range(rng.randint(1, passages))))
        for _ in range(requests)
    ]


async def take(
    client: InferenceClient, asked: Sequence[tuple[str, tuple[str, ...]]]
) -> tuple[Known, ...]:
    """Return the scores that a quiet server gives these texts, one request at a time.

    Raises:
        ValueError: two scores are too close to notice that they were exchanged.
    """
    known = []
    for query, passages in asked:
        reply = await client.score(query, passages)
        known.append(Known(query, passages, reply.scores))
    scores = np.sort(np.concatenate([item.scores for item in known]))
    close = int((np.diff(scores) < 2 * TOLERANCE).sum())
    if close > len(scores) / 10:
        raise ValueError(f"{close} of {len(scores)} known scores are too close to tell apart")
    return tuple(known)
