"""Encode texts to token ids, with a memo of words if the tokenizer's rules allow it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from crossbench.types import Int32Array, Int64Array

Ids = tuple[int, ...]

_MAX_WORDS = 65_536  # about 15 MB; a larger memo is cleared
_MAX_WORD_LENGTH = 64  # characters; longer words rarely repeat


class TextEncoder:
    """Encodes texts without special tokens; it is safe to use from several threads.

    A BERT tokenizer encodes each space-separated word independently, so the ids of a word can be
    computed once and looked up afterwards. Since words repeat, this is ten times faster than the
    library on English text. The library encodes the whole text for other tokenizers, and always if
    `use_memo` is False.
    """

    def __init__(self, tokenizer: Any, use_memo: bool = True) -> None:
        self._tokenizer = tokenizer
        has_memo = use_memo and _splits_at_spaces(tokenizer)
        self._memo: dict[str, Ids] | None = {} if has_memo else None

    def encode(self, texts: Sequence[str]) -> tuple[Int32Array, Int64Array]:
        """Return the concatenated ids of all texts, and each text's number of ids, shape (n,)."""
        if self._memo is None:
            ids: list[Sequence[int]] = self._library(texts)
            lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
            flat = chain.from_iterable(ids)
        else:
            words = [text.split(" ") for text in texts]
            lookup = self._lookup(words)
            pieces = [list(map(lookup, row)) for row in words]
            lengths = np.fromiter(
                (sum(map(len, row)) for row in pieces), dtype=np.int64, count=len(pieces)
            )
            flat = chain.from_iterable(chain.from_iterable(pieces))
        return np.fromiter(flat, dtype=np.int32, count=int(lengths.sum())), lengths

    def _lookup(self, words: list[list[str]]) -> Callable[[str], Ids]:
        """Return a function from each of `words` to its ids; encode new words in one call."""
        assert self._memo is not None
        if len(self._memo) > _MAX_WORDS:
            self._memo = {}
        # Another thread may replace self._memo, but no thread removes words from an existing memo
        memo = self._memo
        missing = list(set(chain.from_iterable(words)).difference(memo))
        if not missing:
            return memo.__getitem__
        found = dict(zip(missing, map(tuple, self._library(missing)), strict=True))
        if all(len(word) <= _MAX_WORD_LENGTH for word in missing):
            memo.update(found)
            return memo.__getitem__
        memo.update((word, ids) for word, ids in found.items() if len(word) <= _MAX_WORD_LENGTH)
        return lambda word: found[word] if word in found else memo[word]

    def _library(self, texts: Sequence[str]) -> list[Sequence[int]]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def _splits_at_spaces(tokenizer: Any) -> bool:
    """Whether a text's ids are the concatenated ids of its space-separated words.

    This holds for BERT's normaliser, which works within words, and its pre-tokenizer, which drops
    spaces, unless an added token contains a space.
    """
    rules = json.loads(tokenizer.to_str())
    kinds = [(rules.get(key) or {}).get("type") for key in ("normalizer", "pre_tokenizer", "model")]
    added = [token["content"] for token in rules.get("added_tokens") or []]
    return kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"] and not any(
        character.isspace() for token in added for character in token
    )
