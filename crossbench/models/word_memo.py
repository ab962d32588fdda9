"""Encode texts to token ids, with a memo of words if the tokenizer's rules allow it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from crossbench.models.text_start import SHORTEST, text_start_of

# Token ids as the bytes of an int32 array: joining them needs no Python object per token
PackedIds: TypeAlias = bytes
ID_BYTES = 4
ALL = -1  # encode the whole text

_MAX_WORDS = 65_536  # about 10 MB; a larger memo is cleared
_MAX_WORD_LENGTH = 128  # characters; longer words, such as Chinese sentences, rarely repeat
# For so few characters, waking the library's threads takes longer than encoding
_ONE_BY_ONE = 1024


class NeedsLibrary(Exception):
    """The texts cannot be encoded from memory: the tokenizers library has to encode a part."""


class TextEncoder:
    """Encodes texts without special tokens; it is safe to use from several threads.

    A BERT tokenizer encodes each space-separated word independently, so the ids of a word can be
    computed once and looked up afterwards. Since words repeat, this is much faster than the library
    on English text. The library encodes the whole text for other tokenizers, and always if
    `use_memo` is False.
    """

    def __init__(self, tokenizer: Any, use_memo: bool = True) -> None:
        self._tokenizer = tokenizer
        self._starts = text_start_of(tokenizer)
        has_memo = use_memo and _splits_at_spaces(tokenizer)
        self._memo: dict[str, PackedIds] | None = {} if has_memo else None

    def encode(
        self, texts: Sequence[str], use_library: bool = True, enough: int = ALL
    ) -> list[PackedIds]:
        """Return the ids of each text, or at least the first `enough` of them.

        Raises:
            NeedsLibrary: `use_library` is False, and a word is not in the memo.
        """
        if self._memo is None:
            if not use_library:
                raise NeedsLibrary
            return self._library(texts, enough)
        # Another thread may replace self._memo, but no thread removes words from an existing memo
        memo = self._memo
        encoded: list[PackedIds] = []
        unknown: list[int] = []
        for index, text in enumerate(texts):
            try:
                encoded.append(_look_up(memo, text, enough))
            except KeyError:
                if not use_library:
                    raise NeedsLibrary from None
                encoded.append(b"")
                unknown.append(index)
        # With few tokens per text, most texts need their first words only
        words = enough if enough > 0 else ALL
        while unknown:
            rows = [texts[index].split(" ", words) for index in unknown]
            is_whole = [words < 0 or len(row) <= words for row in rows]
            heads = [row if whole else row[:-1] for row, whole in zip(rows, is_whole, strict=True)]
            for index, ids in zip(unknown, self._learn(heads, enough), strict=True):
                encoded[index] = ids
            unknown = [
                index
                for index, whole in zip(unknown, is_whole, strict=True)
                if not whole and len(encoded[index]) < enough * ID_BYTES
            ]
            words *= 4
        return encoded

    def _learn(self, rows: Sequence[list[str]], enough: int) -> list[PackedIds]:
        """Return the ids of each row of words. Encode new words in one call, and keep them.

        A very long word may have only its first `enough` ids.
        """
        assert self._memo is not None
        if len(self._memo) > _MAX_WORDS:
            self._memo = {}
        memo = self._memo
        missing = list(set(chain.from_iterable(rows)).difference(memo))
        new = dict(zip(missing, self._library(missing, enough), strict=True))
        memo.update((word, ids) for word, ids in new.items() if len(word) <= _MAX_WORD_LENGTH)
        return [
            b"".join([new[word] if word in new else memo[word] for word in words]) for words in rows
        ]

    def _library(self, texts: Sequence[str], enough: int) -> list[PackedIds]:
        if enough > 0 and max(map(len, texts), default=0) > SHORTEST:
            return [self._first_ids(text, enough) for text in texts]
        if sum(map(len, texts)) <= _ONE_BY_ONE:
            encodings = [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]
        else:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [pack(encoding.ids) for encoding in encodings]

    def _first_ids(self, text: str, enough: int) -> PackedIds:
        """Return the ids of the shortest start of `text` that has `enough`, or of all of it."""
        ids: list[int] = []
        for part in self._starts.parts(text, enough):
            ids = self._tokenizer.encode(part, add_special_tokens=False).ids
            if len(ids) >= enough:
                break
        return pack(ids)


def _look_up(memo: Mapping[str, PackedIds], text: str, enough: int) -> PackedIds:
    """Return the ids of a text, or at least `enough` of them, if they are in so many words.

    Raises:
        KeyError: one of these words is not in the memo.
    """
    words = text.split(" ", enough)
    rest = words.pop() if 0 <= enough < len(words) else ""
    ids = b"".join(map(memo.__getitem__, words))
    if rest and len(ids) < enough * ID_BYTES:
        ids += b"".join(map(memo.__getitem__, rest.split(" ")))
    return ids


def pack(ids: Sequence[int]) -> PackedIds:
    return np.array(ids, dtype=np.int32).tobytes()


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
