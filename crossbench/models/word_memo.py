"""Text to token ids, remembering words where the tokenizer's rules allow it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from crossbench.types import Int32Array, Int64Array

Ids = tuple[int, ...]

_MOST_WORDS = 65_536  # about 15 MB; beyond it the memo starts afresh
_LONGEST_WORD = 64  # characters; longer ones hardly come again


class TextEncoder:
    """Encodes texts without special tokens; may be called from several threads at once.

    A BERT tokenizer treats what lies between two spaces on its own, so its ids can be looked up
    once per word instead of being worked out per text: ten times faster than the library on
    English, since words come again and again. Other tokenizers, and any where `remembers` is
    False, go to the library as they are.
    """

    def __init__(self, tokenizer: Any, remembers: bool = True) -> None:
        self._tokenizer = tokenizer
        may = remembers and _splits_at_spaces(tokenizer)
        self._memo: dict[str, Ids] | None = {} if may else None

    def encode(self, texts: Sequence[str]) -> tuple[Int32Array, Int64Array]:
        """Ids of all texts end to end, and how many each has, shape (n,)."""
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
        """A function from each of `words` to its ids; encodes those that are new in one call."""
        assert self._memo is not None
        if len(self._memo) > _MOST_WORDS:
            self._memo = {}
        # Other threads may replace self._memo meanwhile, but nobody ever takes words out of one.
        memo = self._memo
        missing = list(set(chain.from_iterable(words)).difference(memo))
        if not missing:
            return memo.__getitem__
        found = dict(zip(missing, map(tuple, self._library(missing)), strict=True))
        if all(len(word) <= _LONGEST_WORD for word in missing):
            memo.update(found)
            return memo.__getitem__
        memo.update((word, ids) for word, ids in found.items() if len(word) <= _LONGEST_WORD)
        return lambda word: found[word] if word in found else memo[word]

    def _library(self, texts: Sequence[str]) -> list[Sequence[int]]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def _splits_at_spaces(tokenizer: Any) -> bool:
    """Whether a text's ids are those of its space-separated words, one after the other.

    So they are by BERT's normaliser, which looks across no space, and its pre-tokenizer, which
    drops spaces, unless an added token has a space in it.
    """
    rules = json.loads(tokenizer.to_str())
    kinds = [(rules.get(key) or {}).get("type") for key in ("normalizer", "pre_tokenizer", "model")]
    added = [token["content"] for token in rules.get("added_tokens") or []]
    return kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"] and not any(
        character.isspace() for token in added for character in token
    )
