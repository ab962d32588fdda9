"""Token ids of single texts, kept between requests up to a bound (`pool.cache_tokens`).

Serves to be faster, so it forgets; serving/token_cache.py holds whole pairs to the end, so that
`pipeline=infer` measures the model alone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from crossbench.types import Int32Array, Int64Array


class Encoder(Protocol):
    """Texts to ids without special tokens: see word_memo.TextEncoder."""

    def encode(self, texts: Sequence[str]) -> tuple[Int32Array, Int64Array]: ...


class TextCache:
    """An Encoder that remembers the texts it saw last, up to `max_tokens` ids of 4 bytes.

    What was used longest ago is forgotten first. May be called from several threads at once.
    """

    def __init__(self, encoder: Encoder, max_tokens: int) -> None:
        self._encoder = encoder
        self._room = max_tokens
        self._known: dict[str, Int32Array] = {}  # a dict's order is that of use: oldest first
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> tuple[Int32Array, Int64Array]:
        """Ids of all texts end to end, and how many each has, shape (n,)."""
        if not texts:
            return self._encoder.encode(texts)
        with self._lock:
            # Taken out and put back at the end, which makes them the last used
            found = {text: self._known.pop(text) for text in set(texts) & self._known.keys()}
            self._known.update(found)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            flat, lengths = self._encoder.encode(missing)
            # Copies: a view would keep the ids of all these texts alive
            new = [part.copy() for part in np.split(flat, np.cumsum(lengths)[:-1])]
            found |= zip(missing, new, strict=True)
            self._keep(missing, new)
        rows = [found[text] for text in texts]
        return np.concatenate(rows), np.fromiter(map(len, rows), np.int64, count=len(rows))

    def _keep(self, texts: Sequence[str], ids: Sequence[Int32Array]) -> None:
        with self._lock:
            for text, row in zip(texts, ids, strict=True):
                if text not in self._known:
                    self._known[text] = row
                    self._room -= len(row)
            while self._room < 0:
                oldest = next(iter(self._known))
                self._room += len(self._known.pop(oldest))
