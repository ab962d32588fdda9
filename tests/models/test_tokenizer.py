"""Test that ids, type ids and truncation equal transformers', on many kinds of text."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder
from crossbench.models.reading import read_folder
from crossbench.models.text_cache import TextCache
from crossbench.models.tokenizer import PairTokenizer, Tokenized, longest_first
from crossbench.models.word_memo import ALL, ID_BYTES, NeedsLibrary, PackedIds, TextEncoder, pack
from crossbench.types import Pair
from tests.helpers.tiny_families import FAMILIES

TEXTS = (
    "what is a corporation?",
    "A corporation is a company or group of people authorized to act as a single entity.",
    "a",
    "",
    "   ",
    "\t\r\n",
    "?!.,;:-–—…",
    "Größe, naïve café — œuvre Ærø; ΑΒΓΣ Σίσυφος Привет",
    "東京は日本の首都です。 한국어 텍스트 ภาษาไทย हिन्दी العربية",
    "emoji 😀👩‍👩‍👧 and e\u0301 combining, zero\u200bwidth, nbsp\u00a0here, \ufffd\x00\x07\x1cctrl",
    "special [SEP] tokens[CLS]inside [MASK]. [sep] [PAD]",
    "x" * 150 + " " + "y" * 70,
    "İstanbul ﬁne ½ ² K Å ǅ ß",
    "two  spaces\tand\u2003wide \u0301accent first",
    "1,234,567.89 $5.00 50% a_b user@example.com http://x.org/?a=b&c=d C++ o'clock",
    "long words " * 40,
    "the quick brown fox jumps over a lazy dog. " * 200,
    "Donaudampfschifffahrtsgesellschaft antidisestablishmentarianism",
)


@pytest.fixture(scope="module", params=["seeded", "bert", "roberta", "left"])
def folder(
    request: pytest.FixtureRequest, seeded_model: ModelFolder, tmp_path_factory: Any
) -> Iterator[ModelFolder]:
    """Yield a model folder with each of several tokenizers."""
    if request.param == "seeded":
        yield seeded_model
        return
    path = tmp_path_factory.mktemp(request.param)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(seeded_model.path / name, path)
    (path / "model.safetensors").hardlink_to(seeded_model.path / "model.safetensors")
    if request.param == "bert":
        shared = request.getfixturevalue("shared")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(shared / "models/bert-tokenizer" / name, path)
    elif request.param == "roberta":
        _write_roberta(path)
    else:
        config = (path / "tokenizer_config.json").read_text()
        config = config.replace("{", '{"truncation_side": "left",', 1)
        (path / "tokenizer_config.json").write_text(config)
    yield read_folder(path, request.param, 512)


def _write_roberta(path: Path) -> None:
    """Write a byte-level BPE tokenizer with RoBERTa's template, trained on our own texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS[:9], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    # Saved truncation and padding must be ignored
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=20)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",'
        '"pad_token": "<pad>", "model_max_length": 512}'
    )


@pytest.fixture(scope="module")
def reference(folder: ModelFolder) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder.path)


def rows(tokenized: Tokenized) -> list[tuple[list[int], list[int]]]:
    batch = tokenized.batch
    cuts = batch.cu_seqlens[1:-1]
    ids, types = np.split(batch.input_ids, cuts), np.split(batch.type_ids, cuts)
    return [(a.tolist(), b.tolist()) for a, b in zip(ids, types, strict=True)]


def expected(reference: Any, *texts: list[str], max_length: int) -> list[tuple[Any, Any]]:
    encoded = reference(
        *texts, truncation="longest_first", max_length=max_length, return_token_type_ids=True
    )
    return list(zip(encoded["input_ids"], encoded["token_type_ids"], strict=True))


@pytest.mark.parametrize("max_length", [512, 128, 12, 11, 5, 4])
def test_pairs_equal_transformers(folder: ModelFolder, reference: Any, max_length: int) -> None:
    tokenizer = PairTokenizer(replace(folder, max_length=max_length))
    # For long texts and a small limit, transformers takes minutes to build all overflow pairs
    texts = [text if max_length > 100 else text[:70] for text in TEXTS]
    pairs = [(query, passage) for query in texts for passage in texts]
    wanted = expected(reference, *map(list, zip(*pairs, strict=True)), max_length=max_length)
    got = tokenizer.encode_pairs([Pair(*pair) for pair in pairs])
    for pair, row, (ids, types) in zip(pairs, rows(got), wanted, strict=True):
        assert row == (list(ids), list(types)), pair
    counts = {text: int(count) for text, count in zip(texts, tokenizer.count(texts), strict=True)}
    room = max_length - reference.num_special_tokens_to_add(pair=True)
    assert got.truncated == sum(counts[query] + counts[passage] > room for query, passage in pairs)
    assert got.batch.input_ids.dtype == got.batch.type_ids.dtype == np.int32
    for start, query in enumerate(texts):
        single = tokenizer.encode_query(query, texts)
        assert rows(single) == rows(got)[start * len(texts) :][: len(texts)]


@pytest.mark.parametrize("max_length", [512, 20, 5])
def test_texts_equal_transformers(folder: ModelFolder, reference: Any, max_length: int) -> None:
    tokenizer = PairTokenizer(replace(folder, max_length=max_length))
    wanted = expected(reference, list(TEXTS), max_length=max_length)
    got = tokenizer.encode_texts(TEXTS)
    assert rows(got) == [(list(ids), list(types)) for ids, types in wanted]
    assert got.truncated == int(np.count_nonzero(tokenizer.count(TEXTS) > max_length - 2))


def test_a_real_collection_equals_transformers(shared: Path, seeded_model: ModelFolder) -> None:
    from transformers import AutoTokenizer

    model = read_folder(shared / "models/minilm-l6-dl19", "dl19")
    lines = (shared / "data/msmarco-dl19/collection.tsv").read_text("utf-8").splitlines()[:700]
    passages = [line.split("\t", 1)[1] for line in lines]
    for folder in (model, seeded_model):
        got = PairTokenizer(folder).encode_query("what is a dam?", passages)
        reference = AutoTokenizer.from_pretrained(folder.path)
        wanted = expected(reference, ["what is a dam?"] * len(passages), passages, max_length=512)
        assert rows(got) == [(list(ids), list(types)) for ids, types in wanted]


def test_longest_first_equals_the_librarys_strategy(seeded_model: ModelFolder) -> None:
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(seeded_model.path / "tokenizer.json"))
    for max_length in range(3, 13):
        library.enable_truncation(max_length, strategy="longest_first")
        lengths = [(first, second) for first in range(13) for second in range(13)]
        encoded = library.encode_batch([("a " * first, "b " * second) for first, second in lengths])
        wanted = [(item.sequence_ids.count(0), item.sequence_ids.count(1)) for item in encoded]
        first, second = np.array(lengths).T
        kept = longest_first(first, second, max_length - 3)
        assert list(zip(*(part.tolist() for part in kept), strict=True)) == wanted


def test_empty_input_gives_an_empty_batch(seeded_model: ModelFolder) -> None:
    tokenizer = PairTokenizer(seeded_model)
    assert tokenizer.count([]).shape == (0,)
    for empty in (tokenizer.encode_query("a", []), tokenizer.encode_pairs([])):
        assert len(empty.batch) == 0
        assert empty.batch.total_tokens == empty.truncated == 0
    assert len(tokenizer.encode_texts([]).batch) == 0


def test_several_threads_get_the_same_ids(seeded_model: ModelFolder) -> None:
    texts = [f"{text} {number}" for number in range(20) for text in TEXTS[:12]]
    wanted = rows(PairTokenizer(seeded_model).encode_query("a query", texts))
    tokenizer = PairTokenizer(seeded_model)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: tokenizer.encode_query("a query", texts), range(24)))
    assert all(rows(result) == wanted for result in results)


def test_more_words_than_fit_into_the_memo(seeded_model: ModelFolder) -> None:
    tokenizer = PairTokenizer(seeded_model)
    first = tokenizer.count([" ".join(f"w{number}x" for number in range(66_000))])
    second = tokenizer.count([" ".join(f"w{number}x" for number in range(66_000))])
    assert first == second
    assert tokenizer.count(["the end"]) == [2]


def test_errors_for_a_broken_tokenizer_and_a_too_small_max_length(
    seeded_model: ModelFolder, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="less than the 3 special tokens"):
        PairTokenizer(replace(seeded_model, max_length=2))
    assert rows(PairTokenizer(replace(seeded_model, max_length=3)).encode_query("a", ["b"])) == [
        ([101, 102, 102], [0, 0, 1])
    ]
    broken = tmp_path / "broken"
    shutil.copytree(seeded_model.path, broken)
    (broken / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(ModelError, match="cannot read the tokenizer"):
        read_folder(broken, "broken", 512)


def test_long_texts_equal_transformers_although_their_end_is_not_read(
    folder: ModelFolder, reference: Any
) -> None:
    """Texts around the limit, with words of no, one and several tokens, and longer queries."""
    texts = [
        *("the " * count + tail for count in (8, 17, 18, 19, 60) for tail in ("", "end", "\u200b")),
        "\u200b " * 30 + "the",
        "antidisestablishmentarianism " * 3,
        " " * 40 + "the fox",
    ]
    pairs = [(query, passage) for query in texts for passage in texts]
    for max_length in (20, 21):
        tokenizer = PairTokenizer(replace(folder, max_length=max_length))
        for _ in range(2):  # first with new words, then with words from memory
            got = tokenizer.encode_pairs([Pair(*pair) for pair in pairs])
            wanted = expected(
                reference, *map(list, zip(*pairs, strict=True)), max_length=max_length
            )
            assert rows(got) == [(list(ids), list(types)) for ids, types in wanted]
            counts = dict(zip(texts, tokenizer.count(texts).tolist(), strict=True))
            room = max_length - reference.num_special_tokens_to_add(pair=True)
            assert got.truncated == sum(counts[a] + counts[b] > room for a, b in pairs)
            singles = tokenizer.encode_texts(texts)
            wanted = expected(reference, texts, max_length=max_length)
            assert rows(singles) == [(list(ids), list(types)) for ids, types in wanted]


def test_the_end_of_a_text_is_not_read_once_there_are_enough_tokens(
    seeded_model: ModelFolder,
) -> None:
    from tokenizers import Tokenizer

    encoder = TextEncoder(Tokenizer.from_file(str(seeded_model.path / "tokenizer.json")))
    (whole,) = encoder.encode(["the end"])
    for end in ("", " neverseenbefore"):  # without the library, a new word would be an error
        assert encoder.encode(["the end" + end], use_library=False, enough=2) == [whole]
    with pytest.raises(NeedsLibrary):
        encoder.encode(["the end neverseenbefore"], use_library=False, enough=3)


PIECES = (
    "the river flows", " ", "  ", ".", "...", "?!", "東京は日本", "é", "e\u0301", "\u0301", "\n",
    "\t", "x" * 300, "[SEP]", "<s>", "<mask>", "'s", "can't", "😀", "\u200b", "ﬁ", "½", "1,234.5",
    "Größe", "ภาษา", " a ", "▁", "Ġ", "word ", "unbelievableness ",
    "an ordinary sentence of English words. ",
)  # fmt: skip


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "modernbert", "deberta-v2"])
def test_the_first_tokens_of_a_long_text_are_those_of_the_whole_text(family: str) -> None:
    tokenizer, draw = FAMILIES[family].tokenizer(), random.Random(0)
    reads_less = 0
    for trial in range(40):
        pieces = draw.sample(PIECES, draw.randint(1, 8))
        text = "".join(draw.choices(pieces, k=draw.randint(500, 4000)))
        enough = draw.choice((1, 20, 513))
        whole = pack(tokenizer.encode(text, add_special_tokens=False).ids)
        encoder = TextEncoder(tokenizer, use_memo=trial % 2 == 0)
        (found,) = encoder.encode([text], enough=enough)
        reads_less += len(found) < len(whole)
        assert found[: enough * ID_BYTES] == whole[: enough * ID_BYTES]
    assert reads_less > 10


@pytest.mark.parametrize(
    "text", ["." * 200_000, "東" * 80_000, " ".join(map(str, range(40_000))), "word " * 40_000]
)
def test_a_long_text_is_read_only_until_there_are_enough_tokens(
    seeded_model: ModelFolder, text: str
) -> None:
    from tokenizers import Tokenizer

    encoder = TextEncoder(Tokenizer.from_file(str(seeded_model.path / "tokenizer.json")))
    (whole,) = encoder.encode([text])
    for enough in (20, 513):
        (found,) = encoder.encode([text], enough=enough)
        assert enough * ID_BYTES <= len(found) < len(whole) / 4
        assert found[: enough * ID_BYTES] == whole[: enough * ID_BYTES]


def test_the_text_cache_does_not_change_tokens(seeded_model: ModelFolder) -> None:
    texts = [text for text in TEXTS if text.strip()]
    wanted = rows(PairTokenizer(seeded_model).encode_query("a query", texts))
    for cache_tokens in (1, 60, 1_000_000):  # caches nothing, some texts, all texts
        tokenizer = PairTokenizer(seeded_model, cache_tokens)
        for order in (texts, texts[::-1], texts[::2], texts + texts):
            got = rows(tokenizer.encode_query("a query", order))
            assert got == [wanted[texts.index(text)] for text in order]


def test_the_text_cache_evicts_the_least_recently_used_text() -> None:
    class Letters:
        """Encodes one id per letter and records the texts."""

        def __init__(self) -> None:
            self.encoded: list[str] = []

        def encode(
            self, texts: Sequence[str], use_library: bool = True, enough: int = ALL
        ) -> list[PackedIds]:
            self.encoded += texts
            return [pack([ord(letter) for letter in text]) for text in texts]

    encoder = Letters()
    cache = TextCache(encoder, max_tokens=4)
    for texts in (["aa"], ["bb"], ["aa"], ["cc"], ["aa"], ["bb"]):
        cache.encode(texts)
    assert encoder.encoded == ["aa", "bb", "cc", "bb"]
