"""Pairs to token ids, exactly as transformers makes them, vectorised over a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder
from crossbench.models.library_facts import Probe, TokenizerFacts
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

    A folder's prompt for pairs goes before each query.

    Raises:
        ModelError: max_length leaves no room beside special tokens, or the ids would not be those
            of AutoTokenizer.
    """

    def __init__(self, folder: ModelFolder, cache_tokens: int = 0) -> None:
        facts, path = folder.facts.tokenizer, str(folder.path)
        tokenizer = _load(facts, path)
        self.max_length = folder.max_length
        self._prompt = folder.layout.pair_prompt
        self._keep_left = facts.truncation_side == "right"
        self._single = _template(tokenizer, ("a",), facts.uses_type_ids, path)
        self._pair = _template(tokenizer, ("a", "a"), facts.uses_type_ids, path)
        of_a, least = ("pair", self._pair.added)
        if folder.embedding is not None:
            of_a, least = ("text", self._single.added)
        if self.max_length < least:
            raise ModelError(
                f"max_length {self.max_length} is less than the {least} special tokens of a {of_a} "
                f"in {path}: give at least {least + 2}"
            )
        self._encoder: Encoder = self._checked_encoder(tokenizer, facts, path)
        if cache_tokens:
            self._encoder = TextCache(self._encoder, cache_tokens)

    def encode_query(self, query: str, passages: Sequence[str]) -> Tokenized:
        """(query, passage) for every passage, in their order."""
        places = np.zeros(len(passages), dtype=np.int64)
        return self._encode_pairs([self._prompt + query], places, passages, self.max_length)

    def encode_pairs(self, pairs: Sequence[Pair]) -> Tokenized:
        """The pairs in their order; each distinct query is tokenised once."""
        known: dict[str, int] = {}
        places = np.array(
            [known.setdefault(pair.query, len(known)) for pair in pairs], dtype=np.int64
        )
        queries = [self._prompt + query for query in known]
        passages = [pair.passage for pair in pairs]
        return self._encode_pairs(queries, places, passages, self.max_length)

    def encode(self, sequences: Sequence[tuple[str, ...]]) -> Tokenized:
        """(query, passage) each, or one text each: all of one kind."""
        if sequences and len(sequences[0]) == 1:
            return self.encode_texts([text for (text,) in sequences])
        return self.encode_pairs([Pair(*sequence) for sequence in sequences])

    def encode_texts(self, texts: Sequence[str]) -> Tokenized:
        """Single sequences with their special tokens, for embedding."""
        return self._encode_singles(texts, self.max_length)

    def count(self, texts: Sequence[str]) -> Int32Array:
        """Tokens of each text without special tokens or truncation, int32 of shape (n,)."""
        return self._encoder.encode(texts)[1].astype(np.int32)

    def _encode_singles(self, texts: Sequence[str], max_length: int) -> Tokenized:
        ids, lengths = self._encoder.encode(texts)
        room = max(max_length - self._single.added, 0)
        kept = np.minimum(lengths, room)
        starts = _starts(lengths) if self._keep_left else _starts(lengths) + lengths - kept
        batch = _assemble(self._single, ids, [(starts, kept)])
        return Tokenized(batch, int(np.count_nonzero(lengths > room)))

    def _encode_pairs(
        self, queries: Sequence[str], places: Int64Array, passages: Sequence[str], max_length: int
    ) -> Tokenized:
        """Each passage with the query at its place, `places` being of shape (passages,)."""
        ids, lengths = self._encoder.encode([*queries, *passages])
        room = max_length - self._pair.added
        starts = _starts(lengths)
        first, second = lengths[places], lengths[len(queries) :]
        first_start, second_start = starts[places], starts[len(queries) :]
        kept_first, kept_second = longest_first(first, second, room)
        if not self._keep_left:
            first_start = first_start + first - kept_first
            second_start = second_start + second - kept_second
        batch = _assemble(self._pair, ids, [(first_start, kept_first), (second_start, kept_second)])
        return Tokenized(batch, int(np.count_nonzero(first + second > room)))

    def _checked_encoder(self, tokenizer: Any, facts: TokenizerFacts, path: str) -> Encoder:
        """The fastest encoder that gives the folder's probes the ids that AutoTokenizer does."""
        for remembers in (True, False):
            self._encoder = TextEncoder(tokenizer, remembers)
            differing = [probe for probe in facts.probes if not self._gives(probe, facts)]
            if not differing:
                return self._encoder
        raise ModelError(
            f"{path}: crossbench gives {differing[0].texts} other token ids than AutoTokenizer "
            "does, so its scores would not be the model's own: choose another model"
        )

    def _gives(self, probe: Probe, facts: TokenizerFacts) -> bool:
        if len(probe.texts) == 1:
            found = self._encode_singles(probe.texts, probe.max_length).batch
        else:
            query, passage = probe.texts
            place = np.zeros(1, dtype=np.int64)
            found = self._encode_pairs([query], place, [passage], probe.max_length).batch
        types = probe.types if facts.uses_type_ids else (0,) * len(probe.ids)
        return (tuple(found.input_ids), tuple(found.type_ids)) == (probe.ids, types)


def _load(facts: TokenizerFacts, path: str) -> Any:
    """The tokenizers library's object; it neither cuts nor pads, whatever who saved it has set."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(facts.serialized)
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"{path}: its tokenizer cannot be loaded ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = facts.splits_special_tokens
    return tokenizer


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


def _template(tokenizer: Any, texts: tuple[str, ...], uses_type_ids: bool, path: str) -> _Template:
    """Learn the template from what the post-processor does to sequences of known length.

    Where the model is given no types, all are 0.
    """
    encoding = tokenizer.encode(*texts)
    parts: list[tuple[list[int], list[int]]] = [([], [])]
    types: list[int] = []
    current: int | None = None
    for token, type_id, sequence in zip(
        encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True
    ):
        type_id *= uses_type_ids
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
