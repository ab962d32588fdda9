"""Tokenise pairs and texts exactly as transformers does, vectorised over a request."""

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
    """Token ids, and the number of sequences that were truncated."""

    batch: TokenBatch
    truncated: int


@dataclass(frozen=True, slots=True)
class _Template:
    """The special tokens that the tokenizer's post-processor adds around sequences.

    A pair is parts[0] A parts[1] B parts[2]; a single text is parts[0] A parts[1]. Each part is
    (ids, type ids). `types` has the type ids of A and of B.
    """

    parts: tuple[tuple[list[int], list[int]], ...]
    types: tuple[int, ...]

    @property
    def added(self) -> int:
        return sum(len(ids) for ids, _ in self.parts)


class PairTokenizer:
    """The tokenizer of a model folder; it is safe to use from several threads.

    A query is tokenised once and joined with its passages in NumPy. The tokenizers library would
    tokenise it again for each passage and return Python objects per token. With `cache_tokens`, up
    to that many ids are cached between calls. The folder's pair prompt is added before each query.

    Raises:
        ModelError: max_length is less than the number of special tokens, or the ids differ from
            AutoTokenizer's.
    """

    def __init__(self, folder: ModelFolder, cache_tokens: int = 0) -> None:
        facts, path = folder.facts.tokenizer, str(folder.path)
        tokenizer = _load(facts, path)
        self.max_length = folder.max_length
        self._prompt = folder.layout.pair_prompt
        self._keep_left = facts.truncation_side == "right"
        self._single = _template(tokenizer, ("a",), facts.uses_type_ids, path)
        self._pair = _template(tokenizer, ("a", "a"), facts.uses_type_ids, path)
        kind, least = ("pair", self._pair.added)
        if folder.embedding is not None:
            kind, least = ("text", self._single.added)
        if self.max_length < least:
            raise ModelError(
                f"model.max_length={self.max_length} is less than the {least} special tokens of a "
                f"{kind} in {path}: give at least {least + 2}"
            )
        self._encoder: Encoder = self._checked_encoder(tokenizer, facts, path)
        if cache_tokens:
            self._encoder = TextCache(self._encoder, cache_tokens)

    def encode_query(self, query: str, passages: Sequence[str]) -> Tokenized:
        """Encode (query, passage) for each passage, in their order."""
        query_indices = np.zeros(len(passages), dtype=np.int64)
        return self._encode_pairs([self._prompt + query], query_indices, passages, self.max_length)

    def encode_pairs(self, pairs: Sequence[Pair]) -> Tokenized:
        """Encode the pairs in their order; each distinct query is tokenised once."""
        indices: dict[str, int] = {}
        query_indices = np.array(
            [indices.setdefault(pair.query, len(indices)) for pair in pairs], dtype=np.int64
        )
        queries = [self._prompt + query for query in indices]
        passages = [pair.passage for pair in pairs]
        return self._encode_pairs(queries, query_indices, passages, self.max_length)

    def encode(self, sequences: Sequence[tuple[str, ...]]) -> Tokenized:
        """Encode sequences that are all pairs (query, passage) or all single texts."""
        if sequences and len(sequences[0]) == 1:
            return self.encode_texts([text for (text,) in sequences])
        return self.encode_pairs([Pair(*sequence) for sequence in sequences])

    def encode_texts(self, texts: Sequence[str]) -> Tokenized:
        """Encode single texts with special tokens, for embedding."""
        return self._encode_singles(texts, self.max_length)

    def count(self, texts: Sequence[str]) -> Int32Array:
        """Return each text's tokens without special tokens or truncation, int32 (n,)."""
        return self._encoder.encode(texts)[1].astype(np.int32)

    def _encode_singles(self, texts: Sequence[str], max_length: int) -> Tokenized:
        ids, lengths = self._encoder.encode(texts)
        room = max(max_length - self._single.added, 0)
        kept = np.minimum(lengths, room)
        starts = _starts(lengths) if self._keep_left else _starts(lengths) + lengths - kept
        batch = _assemble(self._single, ids, [(starts, kept)])
        return Tokenized(batch, int(np.count_nonzero(lengths > room)))

    def _encode_pairs(
        self,
        queries: Sequence[str],
        query_indices: Int64Array,
        passages: Sequence[str],
        max_length: int,
    ) -> Tokenized:
        """Encode each passage with its query; `query_indices` (passages,) points into `queries`."""
        ids, lengths = self._encoder.encode([*queries, *passages])
        room = max_length - self._pair.added
        starts = _starts(lengths)
        first, second = lengths[query_indices], lengths[len(queries) :]
        first_start, second_start = starts[query_indices], starts[len(queries) :]
        kept_first, kept_second = longest_first(first, second, room)
        if not self._keep_left:
            first_start = first_start + first - kept_first
            second_start = second_start + second - kept_second
        batch = _assemble(self._pair, ids, [(first_start, kept_first), (second_start, kept_second)])
        return Tokenized(batch, int(np.count_nonzero(first + second > room)))

    def _checked_encoder(self, tokenizer: Any, facts: TokenizerFacts, path: str) -> Encoder:
        """Return the fastest encoder whose ids for the probes equal AutoTokenizer's."""
        for use_memo in (True, False):
            self._encoder = TextEncoder(tokenizer, use_memo)
            differing = [probe for probe in facts.probes if not self._reproduces(probe, facts)]
            if not differing:
                return self._encoder
        raise ModelError(
            f"{path}: crossbench's token ids for {differing[0].texts} differ from AutoTokenizer's, "
            "so the scores would differ from the model's: choose another model"
        )

    def _reproduces(self, probe: Probe, facts: TokenizerFacts) -> bool:
        if len(probe.texts) == 1:
            found = self._encode_singles(probe.texts, probe.max_length).batch
        else:
            query, passage = probe.texts
            index = np.zeros(1, dtype=np.int64)
            found = self._encode_pairs([query], index, [passage], probe.max_length).batch
        types = probe.types if facts.uses_type_ids else (0,) * len(probe.ids)
        return (tuple(found.input_ids), tuple(found.type_ids)) == (probe.ids, types)


def _load(facts: TokenizerFacts, path: str) -> Any:
    """Load the tokenizers library's object, and disable any saved truncation and padding."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(facts.serialized)
    except Exception as error:  # the library raises bare Exception
        raise ModelError(
            f"{path}: its tokenizer cannot be loaded ({error}): restore its files"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = facts.splits_special_tokens
    return tokenizer


def longest_first(
    first: Int64Array, second: Int64Array, room: int
) -> tuple[Int64Array, Int64Array]:
    """Return how many tokens of each sequence remain if both together may have `room` tokens.

    This is the tokenizers library's strategy `longest_first`: tokens are removed from the longer
    sequence until both are equal. An odd token is left to the longer one (the second if equal).
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
    """Concatenate the parts of the template and slices of `ids`, for each row.

    `sequences` has, for A and if present for B, the start in `ids` and the length of each row's
    slice, both of shape (n,).
    """
    rows = len(sequences[0][0])
    # A single array to gather from: the texts' ids, then the template's parts
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
    indices = np.repeat(starts.ravel() - _starts(flat_lengths), flat_lengths)
    indices += np.arange(len(indices))
    type_ids = np.zeros(len(indices), dtype=np.int32)
    if any(template.types) or any(any(types) for _, types in template.parts):
        # The tokens of a part may have different types, so types are gathered as the ids are
        part_types = list(chain.from_iterable(types for _, types in template.parts))
        type_pool = np.concatenate(
            [np.zeros(len(ids), dtype=np.int32), np.array(part_types, dtype=np.int32)]
        )
        column_types = np.zeros(columns, dtype=np.int32)
        column_types[1::2] = template.types
        type_ids = type_pool[indices] + np.repeat(np.tile(column_types, rows), flat_lengths)
    return TokenBatch.from_lengths(
        pool[indices], type_ids, lengths.sum(axis=1).astype(np.int32, copy=False)
    )


def _starts(lengths: Int64Array) -> Int64Array:
    """Return the start of each of the consecutive slices, shape (n,)."""
    return np.cumsum(lengths) - lengths


def _template(tokenizer: Any, texts: tuple[str, ...], uses_type_ids: bool, path: str) -> _Template:
    """Derive the template from the post-processor's output for texts of one token.

    All type ids are 0 if the model does not use them.
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
                raise ModelError(
                    f"{path}: its tokenizer's template has the sequences in an order that "
                    "crossbench does not support: choose another model"
                )
        current = sequence if sequence is not None else current
    if len(types) != len(texts):
        raise ModelError(
            f"{path}: its tokenizer's template does not have {len(texts)} sequences: choose "
            "another model"
        )
    return _Template(tuple(parts), tuple(types))
