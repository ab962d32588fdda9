"""Pairs of which both texts are too long: cut as the library cuts them, but read only in part."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.models.word_memo import NeedsLibrary
from crossbench.types import Pair
from tests.helpers.tiny_families import FAMILIES

ODD, EVEN = 20, 21  # maximums that leave an odd and an even number of tokens for a pair of BERT's
# Around a maximum, around eight of it (so far is read at first to see which one is longer), beyond
COUNTS = st.one_of(st.integers(0, 60), st.integers(150, 190), st.integers(200, 400))
UNITS = ("the ", "a river ", "zq ", "unbelievably ", ". ", "水", "e\u0301 ", "İ ", "x" * 130 + " ")
# The library makes a piece of every pair of pieces, of which very long texts have millions
LONGEST = 1000  # characters
TEXTS = st.builds(
    lambda unit, count, end: unit * min(count, LONGEST // len(unit)) + end,
    st.sampled_from(UNITS),
    COUNTS,
    st.sampled_from(("", "end", "\u200b", " ", ".")),
)


def test_long_pairs_are_cut_as_the_library_cuts_them(tmp_path: Path) -> None:
    compare(FAMILIES["bert"].make(tmp_path), 8)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "deberta-v2"])
def test_many_long_pairs_are_cut_as_the_library_cuts_them(family: str, tmp_path: Path) -> None:
    """One of each kind of tokenizer; some templates add an even number of tokens, some an odd."""
    compare(FAMILIES[family].make(tmp_path), 40)


def compare(model: ModelFolder, examples: int) -> None:
    """Compare token ids with those of the library, which reads every text to its end."""
    library = Tokenizer.from_str(model.facts.tokenizer.serialized)
    library.no_padding()

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(st.lists(TEXTS, min_size=1, max_size=3), st.lists(TEXTS, min_size=1, max_size=3))
    @example(["the " * 200], ["the " * 200, "the " * 199, "the " * 201])
    @example(["the " * 60, "the " * 61], ["the " * 61, "the " * 60, "a"])
    @example(["the " * 170, "a"], ["the " * 169, "the " * 240])
    def same(queries: list[str], passages: list[str]) -> None:
        pairs = [Pair(query, passage) for query in queries for passage in passages]
        for maximum in (ODD, EVEN):
            tokenizer = PairTokenizer(replace(model, max_length=maximum))
            library.enable_truncation(maximum, strategy="longest_first")
            wanted = [list(library.encode(pair.query, pair.passage).ids) for pair in pairs]
            for _ in range(2):  # with new words, then with words from memory
                batch = tokenizer.encode_pairs(pairs).batch
                ends = batch.cu_seqlens.tolist()
                rows = itertools.pairwise(ends)
                found = [batch.input_ids[start:end].tolist() for start, end in rows]
                assert found == wanted
            one = tokenizer.encode_query(queries[0], passages).batch
            assert one.input_ids.tolist() == [*itertools.chain(*wanted[: len(passages)])]

    same()


def test_the_ends_of_long_pairs_are_read_only_where_they_matter(seeded_model: ModelFolder) -> None:
    """Words from memory need no library, and a new word at the end needs it if it is read."""
    long, longer = "the " * 600 + "neverseenbefore", "the " * 900 + "neverseeneither"
    even = PairTokenizer(replace(seeded_model, max_length=EVEN))
    odd = PairTokenizer(replace(seeded_model, max_length=ODD))
    for tokenizer in (even, odd):
        tokenizer.encode_query("the", ["the"])
    assert even.encode_query(long, [longer], use_library=False).truncated == 1
    with pytest.raises(NeedsLibrary):
        odd.encode_query(long, [longer], use_library=False)
    # A text of 100 tokens has ended when the other one was read for 160
    assert odd.encode_query("the " * 100, [longer], use_library=False).truncated == 1
    assert odd.encode_query(long, ["the " * 100], use_library=False).truncated == 1
