"""Cache of token ids for pipeline=infer, which measures the model without tokenisation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from crossbench.models.tokenizer import Tokenized
from crossbench.types import Int32Array, TokenBatch

log = logging.getLogger(__name__)

MAX_TOKENS = 32_000_000  # 256 MB of ids and type ids
LEARN_AT_ONCE = 256

# (query, passage) or a single text. A tuple, because hashing the dataclass Pair is much slower
Texts: TypeAlias = tuple[str, ...]
Encode: TypeAlias = Callable[[Sequence[Texts]], Tokenized]


@dataclass(frozen=True, slots=True)
class _Known:
    input_ids: Int32Array
    type_ids: Int32Array
    truncated: int


class TokenCache:
    """Caches tokenised texts, up to `max_tokens` tokens in total. Thread-safe.

    `encode` tokenises texts that are not in the cache. Entries are never removed.
    """

    def __init__(self, encode: Encode, max_tokens: int = MAX_TOKENS) -> None:
        self._encode = encode
        self._room = max_tokens
        self._known: dict[Texts, _Known] = {}

    def get(self, pairs: Sequence[Texts]) -> Tokenized | None:
        """Return the tokens of `pairs` in order, or None if one of them is not in the cache."""
        found: list[_Known] = []
        for pair in pairs:
            known = self._known.get(pair)
            if known is None:
                return None
            found.append(known)
        return _join(found)

    def add(self, pairs: Iterable[Texts]) -> None:
        """Tokenise and cache new pairs until the cache is full."""
        unknown = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        for start in range(0, len(unknown), LEARN_AT_ONCE):
            if self._room <= 0:
                log.warning("the token cache is full: other pairs are tokenised in every request")
                return
            for pair, known in self._tokenize(unknown[start : start + LEARN_AT_ONCE]).items():
                self._known[pair] = known
                self._room -= len(known.input_ids)

    def get_or_add(self, pairs: Sequence[Texts]) -> Tokenized:
        """Return the tokens of `pairs` in order. Caches new ones if there is room."""
        self.add(pairs)
        tokenized = self.get(pairs)
        if tokenized is None:
            tokenized = self._encode(pairs)
        return tokenized

    def _tokenize(self, pairs: Sequence[Texts]) -> dict[Texts, _Known]:
        tokenized = self._encode(pairs)
        batch, longest = tokenized.batch, int(tokenized.batch.lengths.max())
        entries = {}
        for index, pair in enumerate(pairs):
            rows = slice(int(batch.cu_seqlens[index]), int(batch.cu_seqlens[index + 1]))
            truncated = 0
            # `tokenized.truncated` counts all pairs together; only the longest can be truncated
            if tokenized.truncated and rows.stop - rows.start == longest:
                truncated = self._encode([pair]).truncated
            # Copy, since a view would keep the arrays of all pairs in memory
            entries[pair] = _Known(
                batch.input_ids[rows].copy(), batch.type_ids[rows].copy(), truncated
            )
        return entries


def _join(known: Sequence[_Known]) -> Tokenized:
    batch = TokenBatch.from_lengths(
        np.concatenate([entry.input_ids for entry in known]),
        np.concatenate([entry.type_ids for entry in known]),
        [len(entry.input_ids) for entry in known],
    )
    return Tokenized(batch, sum(entry.truncated for entry in known))
