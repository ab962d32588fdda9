"""An LRU cache of the token ids of texts, limited by `pool.cache_tokens`.

It makes tokenising repeated texts faster. serving/token_cache.py is different: it keeps the ids of
all pairs, so that `pipeline=infer` measures the model alone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from crossbench.types import Int32Array, Int64Array


class Encoder(Protocol):
    """Encodes texts to ids without special tokens: see word_memo.TextEncoder."""

    def encode(self, texts: Sequence[str]) -> tuple[Int32Array, Int64Array]: ...


class TextCache:
    """An Encoder that caches the most recently used texts, up to `max_tokens` ids of 4 bytes.

    It evicts the least recently used text first and is safe to use from several threads.
    """

    def __init__(self, encoder: Encoder, max_tokens: int) -> None:
        self._encoder = encoder
        self._free_tokens = max_tokens
        self._cache: dict[str, Int32Array] = {}  # in order of use, least recently used first
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> tuple[Int32Array, Int64Array]:
        """Return the concatenated ids of all texts, and each text's number of ids, shape (n,)."""
        if not texts:
            return self._encoder.encode(texts)
        with self._lock:
            # Remove them and add them at the end, which marks them as most recently used
            found = {text: self._cache.pop(text) for text in set(texts) & self._cache.keys()}
            self._cache.update(found)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            flat, lengths = self._encoder.encode(missing)
            # Copy, because a view would keep the ids of all missing texts in memory
            new = [part.copy() for part in np.split(flat, np.cumsum(lengths)[:-1])]
            found |= zip(missing, new, strict=True)
            self._store(missing, new)
        rows = [found[text] for text in texts]
        return np.concatenate(rows), np.fromiter(map(len, rows), np.int64, count=len(rows))

    def _store(self, texts: Sequence[str], ids: Sequence[Int32Array]) -> None:
        with self._lock:
            for text, row in zip(texts, ids, strict=True):
                if text not in self._cache:
                    self._cache[text] = row
                    self._free_tokens -= len(row)
            while self._free_tokens < 0:
                oldest = next(iter(self._cache))
                self._free_tokens += len(self._cache.pop(oldest))
