"""Generator of deterministic English-like text whose token lengths follow MS MARCO's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossbench.load.lengths import PASSAGES, QUERIES
from crossbench.models.tokenizer import PairTokenizer
from crossbench.models.wordpiece import inflect, read_word_list
from crossbench.types import Int64Array, QueryPassages

# Shares of word classes. With these, BERT's tokenizer produces about 1.36 tokens per word, as it
# does for MS MARCO. Rare words are composed of stems, so they split into several tokens.
_PASSAGE_MIX = (0.45, 0.455, 0.065, 0.03)  # function, content, rare, number
_QUERY_MIX = (0.38, 0.57, 0.04, 0.01)
_RARE_WORDS = 3000
_ROUNDS = 4  # correction rounds, for tokenizers whose counts per word do not add up


def make_lists(
    tokenizer: PairTokenizer,
    seed: int,
    queries: int,
    passages_per_query: int,
    passage_tokens: Sequence[int] | None = None,
) -> tuple[QueryPassages, ...]:
    """Generate `queries` lists of `passages_per_query` passages with token lengths as in MS MARCO.

    If `passage_tokens` is given, the lengths of the passages cycle through it instead. The passages
    of each list follow the length distribution, and so do the lists of any consecutive queries, so
    that a measurement that ends early has sent representative lengths too.
    """
    rng = np.random.default_rng(seed)
    writer = _Writer(tokenizer, rng)
    query_lengths = QUERIES.inverse_cdf(_spread(_golden_order(queries), queries))
    if passage_tokens is None:
        probabilities = _passage_probabilities(rng, queries, passages_per_query)
        passage_lengths = PASSAGES.inverse_cdf(probabilities)
    else:
        passage_lengths = np.resize(np.array(passage_tokens), queries * passages_per_query)
    query_texts = writer.texts(query_lengths, _QUERY_MIX, sentences=False)
    passages = writer.texts(passage_lengths, _PASSAGE_MIX, sentences=True)
    return tuple(
        QueryPassages(
            query_id=f"q{index}",
            query=query,
            passage_ids=tuple(f"q{index}p{rank}" for rank in range(passages_per_query)),
            passages=tuple(passages[index * passages_per_query :][:passages_per_query]),
        )
        for index, query in enumerate(query_texts)
    )


def _spread(ranks: Int64Array, count: int) -> NDArray[np.float64]:
    """Map ranks 0 … count - 1 to probabilities from 0 to 1, and a single rank to the median."""
    return ranks / (count - 1) if count > 1 else np.full(len(ranks), 0.5)


def _golden_order(count: int) -> Int64Array:
    """Return a permutation in which every range of consecutive items is evenly spread."""
    fractions = np.arange(count) * 0.6180339887498949 % 1
    ranks: Int64Array = np.argsort(np.argsort(fractions))
    return ranks


def _passage_probabilities(
    rng: np.random.Generator, queries: int, passages: int
) -> NDArray[np.float64]:
    """Return probabilities of shape (queries * passages,), with one per stratum in each list.

    Over all lists they are evenly spaced and include 0 and 1.
    """
    strata = rng.permuted(np.tile(np.arange(passages), (queries, 1)), axis=1)
    ranks = strata * queries + _golden_order(queries)[:, None]
    return _spread(ranks.ravel(), queries * passages)


class _Writer:
    """Writes texts with exact token counts, from words whose token counts it has measured."""

    def __init__(self, tokenizer: PairTokenizer, rng: np.random.Generator) -> None:
        self._tokenizer, self._rng = tokenizer, rng
        words = read_word_list()
        content = [form for word in words["content"] for form in (word, inflect(word)[0])]
        self._classes = (
            list(words["function"]),
            content,
            self._rare_words(words),
            [str(number) for number in (*range(2, 100), *range(100, 1000, 50), *range(1900, 2025))],
        )
        # Only words of one token can fill up a text to its exact length
        candidates = [word for word in words["content"] if len(word) > 2]
        single = self._counts(candidates) == 1
        self._fillers = [word for word, one in zip(candidates, single, strict=True) if one]
        if not self._fillers:  # a character tokenizer
            self._fillers = ["a"]

    def texts(self, lengths: Int64Array, mix: Sequence[float], *, sentences: bool) -> list[str]:
        """Return one text per length (tokens without special tokens)."""
        stop = 1 if sentences else 0  # for the full stop at the end of a passage
        stream, counts = self._stream(int(lengths.sum()) + 200, mix, sentences)
        ends = np.cumsum(counts)
        texts: list[list[str]] = []
        position = 0
        for length in lengths:
            before = int(ends[position - 1]) if position else 0
            end = int(np.searchsorted(ends, before + length - stop, side="right"))
            words = stream[position:end]
            used = int(ends[end - 1]) - before if end > position else 0
            if sentences and words and words[-1][-1] in ".,":
                words[-1], used = words[-1][:-1], used - 1
            texts.append(words + self._filling(int(length) - stop - used))
            position = end
        return self._corrected(texts, lengths, sentences)

    def _stream(
        self, tokens: int, mix: Sequence[float], sentences: bool
    ) -> tuple[list[str], Int64Array]:
        """Return a sequence of words with at least `tokens` tokens, and the tokens of each."""
        rng, size = self._rng, tokens
        kinds = rng.choice(len(mix), size=size, p=np.array(mix) / sum(mix))
        vocabulary: list[str] = []
        picks = np.empty(size, dtype=np.int64)
        for kind, words in enumerate(self._classes):
            mask = kinds == kind
            # A power of a uniform variable approximates the frequency distribution of words
            ranks = (len(words) * rng.random(int(mask.sum())) ** 2.5).astype(np.int64)
            picks[mask] = len(vocabulary) + ranks
            vocabulary += words
        counts = self._counts(vocabulary)[picks]
        stream = [vocabulary[pick] for pick in picks.tolist()]
        if sentences:
            ends = np.cumsum(rng.integers(9, 24, size=size // 9 + 1))
            for end in ends[ends < size - 1].tolist():
                stream[end] += "."
                stream[end + 1] = stream[end + 1].capitalize()
                counts[end] += 1
            for place in (ends[ends < size - 1] - 5)[::2].tolist():
                if place > 0 and stream[place][-1] != ".":
                    stream[place] += ","
                    counts[place] += 1
        return stream, counts

    def _corrected(self, texts: list[list[str]], lengths: Int64Array, sentences: bool) -> list[str]:
        """Join the words, and correct texts whose token count is not the sum of their words'."""
        joined = [_join(words, sentences) for words in texts]
        for _ in range(_ROUNDS):
            excess = self._tokenizer.count(joined) - lengths
            wrong = np.flatnonzero(excess)
            if not len(wrong):
                break
            for index in wrong.tolist():
                words, surplus = texts[index], int(excess[index])
                while surplus > 0 and len(words) > 1:
                    surplus -= max(int(self._counts([words.pop()])[0]), 1)
                texts[index] = words + self._filling(-surplus)
                joined[index] = _join(texts[index], sentences)
        return joined

    def _filling(self, count: int) -> list[str]:
        if count <= 0:
            return []
        return [self._fillers[i] for i in self._rng.integers(len(self._fillers), size=count)]

    def _counts(self, words: Sequence[str]) -> Int64Array:
        """Return the token count of each word inside a text, which differs for a first word."""
        alone = self._tokenizer.count(["the"])[0]
        counts = self._tokenizer.count([f"the {word}" for word in words]) - alone
        return np.asarray(counts, dtype=np.int64)

    def _rare_words(self, words: dict[str, tuple[str, ...]]) -> list[str]:
        prefixes, stems, suffixes = words["prefix"], words["stem"], words["suffix"]
        rng, count = self._rng, _RARE_WORDS
        parts = zip(
            rng.integers(len(prefixes), size=count),
            rng.integers(len(stems), size=count),
            rng.integers(len(suffixes), size=count),
            strict=True,
        )
        return [prefixes[first] + stems[second] + suffixes[third] for first, second, third in parts]


def _join(words: list[str], sentences: bool) -> str:
    text = " ".join(words)
    return f"{text[:1].upper()}{text[1:]}." if sentences else text
