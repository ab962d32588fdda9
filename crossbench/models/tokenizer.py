"""Tokenise pairs and texts exactly as transformers does, vectorised over a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder
from crossbench.models.library_facts import Probe, TokenizerFacts
from crossbench.models.text_cache import Encoder, TextCache
from crossbench.models.word_memo import ALL, ID_BYTES, PackedIds, TextEncoder, pack
from crossbench.types import Int32Array, Int64Array, Pair, TokenBatch

_FURTHER = 8  # times as many tokens are read next of texts of which truncation needs more


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Token ids, and the number of sequences that were truncated."""

    batch: TokenBatch
    truncated: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Special tokens of a template: their ids and type ids, as the bytes of int32 arrays."""

    ids: PackedIds
    types: PackedIds


@dataclass(frozen=True, slots=True)
class _Template:
    """The special tokens that the tokenizer's post-processor adds around sequences.

    A pair is parts[0] A parts[1] B parts[2]; a single text is parts[0] A parts[1]. `types` has, for
    A and B, type ids for as many tokens as the model's maximum.
    """

    parts: tuple[_Part, ...]
    types: tuple[PackedIds, ...]

    @property
    def added(self) -> int:
        return sum(len(part.ids) for part in self.parts) // ID_BYTES

    def fill(self, *texts: Sequence[PackedIds]) -> TokenBatch:
        """Return the batch of these texts, already truncated: all A, and for pairs all B."""
        rows, width = len(texts[0]), len(self.parts) + len(texts)
        ids = [b""] * (rows * width)  # row by row: part, A, part, B, part
        types = ids.copy()
        for column, part in enumerate(self.parts):
            ids[2 * column :: width] = [part.ids] * rows
            types[2 * column :: width] = [part.types] * rows
        sizes = [list(map(len, column_texts)) for column_texts in texts]
        for column, column_texts in enumerate(texts):
            column_types = self.types[column]
            ids[2 * column + 1 :: width] = column_texts
            types[2 * column + 1 :: width] = [column_types[:size] for size in sizes[column]]
        added = self.added
        lengths = [added + sum(row) // ID_BYTES for row in zip(*sizes, strict=True)]
        return TokenBatch.from_lengths(_joined(ids), _joined(types), lengths)


class PairTokenizer:
    """The tokenizer of a model folder; it is safe to use from several threads.

    A query is tokenised once and joined with each of its passages. The tokenizers library would
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
        longest = max([self.max_length, *(probe.max_length for probe in facts.probes)])
        self._single = _template(tokenizer, ("a",), facts.uses_type_ids, longest, path)
        self._pair = _template(tokenizer, ("a", "a"), facts.uses_type_ids, longest, path)
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

    def encode_query(
        self, query: str, passages: Sequence[str], use_library: bool = True
    ) -> Tokenized:
        """Encode (query, passage) for each passage, in their order.

        Raises:
            NeedsLibrary: `use_library` is False, and the ids of a text are not in memory.
        """
        firsts, seconds = self._encode_both([self._prompt + query], passages, use_library)
        return self._pairs(firsts * len(seconds), seconds, self.max_length)

    def encode_pairs(self, pairs: Sequence[Pair], use_library: bool = True) -> Tokenized:
        """Encode the pairs in their order; each distinct query is tokenised once.

        Raises:
            NeedsLibrary: as for encode_query().
        """
        queries = list(dict.fromkeys(pair.query for pair in pairs))
        prompted = [self._prompt + query for query in queries]
        passages = [pair.passage for pair in pairs]
        firsts, seconds = self._encode_both(prompted, passages, use_library)
        ids = dict(zip(queries, firsts, strict=True))
        return self._pairs([ids[pair.query] for pair in pairs], seconds, self.max_length)

    def encode(self, sequences: Sequence[tuple[str, ...]], use_library: bool = True) -> Tokenized:
        """Encode sequences that are all pairs (query, passage) or all single texts."""
        if sequences and len(sequences[0]) == 1:
            return self.encode_texts([text for (text,) in sequences], use_library)
        return self.encode_pairs([Pair(*sequence) for sequence in sequences], use_library)

    def encode_texts(self, texts: Sequence[str], use_library: bool = True) -> Tokenized:
        """Encode single texts with special tokens, for embedding.

        Raises:
            NeedsLibrary: as for encode_query().
        """
        encoded = self._encoder.encode(texts, use_library, self._enough)
        return self._singles(encoded, self.max_length)

    def count(self, texts: Sequence[str]) -> Int32Array:
        """Return each text's tokens without special tokens or truncation, int32 (n,)."""
        return _lengths(self._encoder.encode(texts)).astype(np.int32)

    def _encode_both(
        self, queries: Sequence[str], passages: Sequence[str], use_library: bool
    ) -> tuple[list[PackedIds], list[PackedIds]]:
        """Return the ids of queries and passages, as many as truncation needs.

        If query and passage are both longer than the model's maximum, each gets half of it, and
        the longer one an odd token. Only for that one, truncation needs to know which is longer.
        """
        known = self._enough
        firsts = self._encoder.encode(queries, use_library, known)
        seconds = self._encoder.encode(passages, use_library, known)
        if known == ALL or (self.max_length - self._pair.added) % 2 == 0:
            return firsts, seconds
        # Read on until all of one side have ended: a little first, which suffices for most texts
        for further in (known * _FURTHER, ALL):
            if not _longest(firsts) >= known <= _longest(seconds):
                break
            firsts = self._read_on(queries, firsts, known, further, use_library)
            further = further if further != ALL else _longest(firsts) + 1
            seconds = self._read_on(passages, seconds, known, further, use_library)
            known = further
        return firsts, seconds

    def _read_on(
        self,
        texts: Sequence[str],
        encoded: Sequence[PackedIds],
        known: int,
        enough: int,
        use_library: bool,
    ) -> list[PackedIds]:
        """Return at least `enough` ids of each text; those with fewer than `known` have ended."""
        long = [
            text for text, ids in zip(texts, encoded, strict=True) if len(ids) >= known * ID_BYTES
        ]
        more = dict(zip(long, self._encoder.encode(long, use_library, enough), strict=True))
        return [more.get(text, ids) for text, ids in zip(texts, encoded, strict=True)]

    @property
    def _enough(self) -> int:
        """The number of tokens after which the rest of a text is certainly truncated.

        If truncation keeps the end of a text, all tokens are needed.
        """
        return self.max_length + 1 if self._keep_left else ALL

    def _singles(self, texts: Sequence[PackedIds], max_length: int) -> Tokenized:
        room = max(max_length - self._single.added, 0) * ID_BYTES
        truncated = sum(len(ids) > room for ids in texts)
        kept = [self._cut(ids, room) for ids in texts] if truncated else texts
        return Tokenized(self._single.fill(kept), truncated)

    def _pairs(
        self, firsts: Sequence[PackedIds], seconds: Sequence[PackedIds], max_length: int
    ) -> Tokenized:
        room = max_length - self._pair.added
        room_bytes = room * ID_BYTES
        truncated = sum(len(a) + len(b) > room_bytes for a, b in zip(firsts, seconds, strict=True))
        if truncated:
            kept = longest_first(_lengths(firsts), _lengths(seconds), room)
            firsts = self._cut_all(firsts, kept[0])
            seconds = self._cut_all(seconds, kept[1])
        return Tokenized(self._pair.fill(firsts, seconds), truncated)

    def _cut_all(self, texts: Sequence[PackedIds], kept: Int64Array) -> list[PackedIds]:
        sizes = (kept * ID_BYTES).tolist()
        return [self._cut(ids, size) for ids, size in zip(texts, sizes, strict=True)]

    def _cut(self, ids: PackedIds, size: int) -> PackedIds:
        """Return the `size` bytes of `ids` that truncation keeps."""
        return ids[:size] if self._keep_left else ids[max(len(ids) - size, 0) :]

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
            found = self._singles(self._encoder.encode(probe.texts), probe.max_length).batch
        else:
            query, passage = self._encoder.encode(probe.texts)
            found = self._pairs([query], [passage], probe.max_length).batch
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


def _lengths(texts: Sequence[PackedIds]) -> Int64Array:
    """Return the number of tokens of each text, shape (n,)."""
    return np.array([len(ids) for ids in texts], dtype=np.int64) // ID_BYTES


def _longest(texts: Sequence[PackedIds]) -> int:
    """Return the number of tokens of the longest text."""
    return max(map(len, texts), default=0) // ID_BYTES


def _joined(parts: list[PackedIds]) -> Int32Array:
    """Return the parts as one array, which is writable because engines share its memory."""
    return np.frombuffer(bytearray().join(parts), dtype=np.int32)


def _template(
    tokenizer: Any, texts: tuple[str, ...], uses_type_ids: bool, max_length: int, path: str
) -> _Template:
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
    return _Template(
        tuple(_Part(pack(ids), pack(part_types)) for ids, part_types in parts),
        tuple(pack([type_id] * max(max_length, 0)) for type_id in types),
    )
