"""An LRU cache of the token ids of texts, limited by `pool.cache_tokens`.

It makes tokenising repeated texts faster. serving/token_cache.py is different: it keeps the ids of
all pairs, so that `pipeline=infer` measures the model alone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from crossbench.models.word_memo import ALL, ID_BYTES, PackedIds

LONGEST = 16_384  # characters of a text that is cached


class Encoder(Protocol):
    """Encodes texts to ids without special tokens: see word_memo.TextEncoder."""

    def encode(
        self, texts: Sequence[str], use_library: bool = True, enough: int = ALL
    ) -> list[PackedIds]: ...


class TextCache:
    """An Encoder that caches the most recently used texts, up to `max_tokens` ids of 4 bytes.

    It evicts the least recently used text first and is safe to use from several threads.
    """

    def __init__(self, encoder: Encoder, max_tokens: int) -> None:
        self._encoder = encoder
        self._free_bytes = max_tokens * ID_BYTES
        self._cache: dict[str, PackedIds] = {}  # in order of use, least recently used first
        self._lock = threading.Lock()

    def encode(
        self, texts: Sequence[str], use_library: bool = True, enough: int = ALL
    ) -> list[PackedIds]:
        """Return all ids of each text, since a cached text may be needed as a whole later.

        Very long texts are not cached, and may have only their first `enough` ids.

        Raises:
            NeedsLibrary: `use_library` is False, and the encoder needs it for a text.
        """
        with self._lock:
            # Remove them and add them at the end, which marks them as most recently used
            found = {text: self._cache.pop(text) for text in set(texts) & self._cache.keys()}
            self._cache.update(found)
        long = [text for text in set(texts) if len(text) > LONGEST]
        if long:
            found |= zip(long, self._encoder.encode(long, use_library, enough), strict=True)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            new = self._encoder.encode(missing, use_library)
            found |= zip(missing, new, strict=True)
            self._store(missing, new)
        return [found[text] for text in texts]

    def _store(self, texts: Sequence[str], ids: Sequence[PackedIds]) -> None:
        with self._lock:
            for text, row in zip(texts, ids, strict=True):
                if text not in self._cache:
                    self._cache[text] = row
                    self._free_bytes -= len(row)
            while self._free_bytes < 0:
                oldest = next(iter(self._cache))
                self._free_bytes += len(self._cache.pop(oldest))
