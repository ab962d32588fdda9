"""Pairs to token ids, exactly as transformers makes them, vectorised over a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder
from crossbench.models.json_file import read_json
from crossbench.models.text_cache import Encoder, TextCache
from crossbench.models.word_memo import TextEncoder
from crossbench.types import Int32Array, Int64Array, Pair, TokenBatch


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Token ids, and how many of the sequences lost tokens to the model's maximum length."""

    batch: TokenBatch
    truncated: int


@dataclass(frozen=True, slots=True)
class _Template:
    """What the tokenizer's post-processor puts around sequences.

    For a pair: parts[0] A parts[1] B parts[2]; for a single: parts[0] A parts[1]. Each part is
    (ids, type ids); `types` holds the type id of A and of B.
    """

    parts: tuple[tuple[list[int], list[int]], ...]
    types: tuple[int, ...]

    @property
    def added(self) -> int:
        return sum(len(ids) for ids, _ in self.parts)


class PairTokenizer:
    """The tokenizer of a model folder; its methods may be called from several threads at once.

    A query is tokenised once and spliced with its passages in NumPy: the tokenizers library would
    tokenise it again for each passage and hand back Python objects per token. With `cache_tokens`
    the ids of texts are kept between calls, up to so many.

    Raises:
        ModelError: tokenizer.json is broken, or max_length leaves no room beside special tokens.
    """

    def __init__(self, folder: ModelFolder, cache_tokens: int = 0) -> None:
        path = folder.path / "tokenizer.json"
        tokenizer = _load(path)
        # tokenizer.json may carry the settings of whoever saved it; ours are the only ones.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        encoder = TextEncoder(tokenizer)
        self._encoder: Encoder = TextCache(encoder, cache_tokens) if cache_tokens else encoder
        self.max_length = folder.max_length
        self._keep_left = _truncation_side(folder) == "right"
        self._single = _probe(tokenizer, ("a",), str(path))
        self._pair = _probe(tokenizer, ("a", "a"), str(path))
        if self.max_length < self._pair.added:
            raise ModelError(
                f"max_length {self.max_length} is less than the {self._pair.added} special tokens "
                f"of a pair in {path}: give at least {self._pair.added + 2}"
            )

    @property
    def pair_overhead(self) -> int:
        """Special tokens that a pair gets."""
        return self._pair.added

    def encode_query(self, query: str, passages: Sequence[str]) -> Tokenized:
        """(query, passage) for every passage, in their order."""
        ids, lengths = self._encoder.encode([query, *passages])
        queries = np.zeros(len(passages), dtype=np.int64)
        return self._splice(ids, lengths, queries, np.arange(1, len(passages) + 1))

    def encode_pairs(self, pairs: Sequence[Pair]) -> Tokenized:
        """The pairs in their order; each distinct query is tokenised once."""
        places: dict[str, int] = {}
        queries = np.array(
            [places.setdefault(pair.query, len(places)) for pair in pairs], dtype=np.int64
        )
        ids, lengths = self._encoder.encode([*places, *(pair.passage for pair in pairs)])
        return self._splice(ids, lengths, queries, np.arange(len(places), len(lengths)))

    def encode(self, sequences: Sequence[tuple[str, ...]]) -> Tokenized:
        """(query, passage) each, or one text each: all of one kind."""
        if sequences and len(sequences[0]) == 1:
            return self.encode_texts([text for (text,) in sequences])
        return self.encode_pairs([Pair(*sequence) for sequence in sequences])

    def encode_texts(self, texts: Sequence[str]) -> Tokenized:
        """Single sequences with their special tokens, for embedding."""
        ids, lengths = self._encoder.encode(texts)
        room = max(self.max_length - self._single.added, 0)
        kept = np.minimum(lengths, room)
        starts = _starts(lengths) if self._keep_left else _starts(lengths) + lengths - kept
        batch = _assemble(self._single, ids, [(starts, kept)])
        return Tokenized(batch, int(np.count_nonzero(lengths > room)))

    def count(self, texts: Sequence[str]) -> Int32Array:
        """Tokens of each text without special tokens or truncation, int32 of shape (n,)."""
        return self._encoder.encode(texts)[1].astype(np.int32)

    def _splice(
        self, ids: Int32Array, lengths: Int64Array, queries: Int64Array, passages: Int64Array
    ) -> Tokenized:
        """Pairs of the texts numbered `queries` and `passages`, each of shape (n,)."""
        room = self.max_length - self._pair.added
        first, second = lengths[queries], lengths[passages]
        kept_first, kept_second = longest_first(first, second, room)
        starts = _starts(lengths)
        first_start, second_start = starts[queries], starts[passages]
        if not self._keep_left:
            first_start, second_start = (
                first_start + first - kept_first,
                second_start + second - kept_second,
            )
        batch = _assemble(self._pair, ids, [(first_start, kept_first), (second_start, kept_second)])
        return Tokenized(batch, int(np.count_nonzero(first + second > room)))


def _load(path: Path) -> Any:
    """The tokenizers library's object for a tokenizer.json.

    transformers keeps only the vocabulary of a SentencePiece unigram model and builds the rest from
    the class that the folder names, so there its word is taken: scores are to equal the library's.
    """
    from tokenizers import Tokenizer, models

    try:
        tokenizer = Tokenizer.from_file(str(path))
        if not isinstance(tokenizer.model, models.Unigram):
            return tokenizer
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(path.parent, local_files_only=True).backend_tokenizer
    except Exception as error:  # the libraries raise bare Exception and many other kinds
        raise ModelError(f"{path} is not a tokenizer ({error}): restore the file") from error


def longest_first(
    first: Int64Array, second: Int64Array, room: int
) -> tuple[Int64Array, Int64Array]:
    """How many tokens of each sequence remain where both together get `room`.

    The rule of the tokenizers library, which transformers calls `longest_first`: the longer gives
    up tokens until both are equal, an odd one is left to the longer (to the second if equal).
    """
    shorter, longer = np.minimum(first, second), np.maximum(first, second)
    longer = np.where(shorter > room, shorter, np.maximum(shorter, room - shorter))
    halve = shorter + longer > room
    shorter = np.where(halve, room // 2, shorter)
    longer = np.where(halve, room // 2 + room % 2, longer)
    swapped, cut = first > second, first + second > room
    kept_first = np.where(cut, np.where(swapped, longer, shorter), first)
    kept_second = np.where(cut, np.where(swapped, shorter, longer), second)
    return kept_first, kept_second


def _assemble(
    template: _Template, ids: Int32Array, sequences: list[tuple[Int64Array, Int64Array]]
) -> TokenBatch:
    """Lay parts of the template and slices of `ids` end to end.

    `sequences` gives, for A and where there is one B, the start in `ids` and the length of each
    row's slice, both of shape (n,).
    """
    rows = len(sequences[0][0])
    # One pool to gather from: the texts' ids, then the template's parts.
    pool = np.concatenate([ids, *(np.array(part, dtype=np.int32) for part, _ in template.parts)])
    part_lengths = np.array([len(part) for part, _ in template.parts], dtype=np.int64)
    part_starts = len(ids) + _starts(part_lengths)
    columns = 2 * len(sequences) + 1
    starts = np.empty((rows, columns), dtype=np.int64)
    lengths = np.empty((rows, columns), dtype=np.int64)
    starts[:, 0::2], lengths[:, 0::2] = part_starts, part_lengths
    for index, (start, length) in enumerate(sequences):
        starts[:, 2 * index + 1], lengths[:, 2 * index + 1] = start, length
    flat_lengths = lengths.ravel()
    places = np.repeat(starts.ravel() - _starts(flat_lengths), flat_lengths)
    places += np.arange(len(places))
    type_ids = np.zeros(len(places), dtype=np.int32)
    if any(template.types) or any(any(types) for _, types in template.parts):
        # A part's tokens may differ in type, so parts are looked up in a pool as the ids are.
        part_types = list(chain.from_iterable(types for _, types in template.parts))
        type_pool = np.concatenate(
            [np.zeros(len(ids), dtype=np.int32), np.array(part_types, dtype=np.int32)]
        )
        own = np.zeros(columns, dtype=np.int32)
        own[1::2] = template.types
        type_ids = type_pool[places] + np.repeat(np.tile(own, rows), flat_lengths)
    return TokenBatch.from_lengths(
        pool[places], type_ids, lengths.sum(axis=1).astype(np.int32, copy=False)
    )


def _starts(lengths: Int64Array) -> Int64Array:
    """Where each of the consecutive slices begins, shape (n,)."""
    return np.cumsum(lengths) - lengths


def _probe(tokenizer: Any, texts: tuple[str, ...], path: str) -> _Template:
    """Learn the template from what the post-processor does to sequences of known length."""
    encoding = tokenizer.encode(*texts)
    parts: list[tuple[list[int], list[int]]] = [([], [])]
    types: list[int] = []
    current: int | None = None
    for token, type_id, sequence in zip(
        encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True
    ):
        if sequence is None:
            parts[-1][0].append(token)
            parts[-1][1].append(type_id)
        elif sequence != current:
            types.append(type_id)
            parts.append(([], []))
            if sequence != len(types) - 1:
                raise ModelError(f"{path}: its template puts sequences in an order we cannot build")
        current = sequence if sequence is not None else current
    if len(types) != len(texts):
        raise ModelError(f"{path}: its template does not hold {len(texts)} sequences")
    return _Template(tuple(parts), tuple(types))


def _truncation_side(folder: ModelFolder) -> str:
    path = folder.path / "tokenizer_config.json"
    return str(read_json(path).get("truncation_side", "right")) if path.is_file() else "right"
