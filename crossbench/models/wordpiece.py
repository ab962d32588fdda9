"""crossbench's own WordPiece tokenizer: BERT's rules with a vocabulary from our word list."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

# The same ids as in BERT, because other code may rely on them
PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_IDS = {PAD: 0, UNK: 100, CLS: 101, SEP: 102, MASK: 103}

_VOWELS = "aeiouy"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Unicode blocks whose characters are tokens: first and last code point
_BLOCKS = (
    (0x21, 0x7E),  # ASCII
    (0xA1, 0x17F),  # Latin-1, Latin Extended-A
    (0x370, 0x3FF),  # Greek
    (0x400, 0x45F),  # Cyrillic
    (0x5D0, 0x5EA),  # Hebrew
    (0x621, 0x64A),  # Arabic
    (0x904, 0x94D),  # Devanagari
    (0xE01, 0xE3A),  # Thai
    (0x1100, 0x11C2),  # Hangul letters, into which the normaliser decomposes syllables
    (0x2010, 0x2027),  # punctuation
    (0x20A0, 0x20BF),  # currencies
    (0x2190, 0x21FF),  # arrows
    (0x2200, 0x22FF),  # mathematics
    (0x3041, 0x30FE),  # Hiragana, Katakana
    (0x4E00, 0x5200),  # the first 1025 CJK unified ideographs
)


@cache
def read_word_list() -> dict[str, tuple[str, ...]]:
    """Return the sections of words.txt (function, content, prefix, stem, suffix), deduplicated."""
    sections: dict[str, dict[str, None]] = {}
    text = files("crossbench.models").joinpath("words.txt").read_text("utf-8")
    for line in text.splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            section.update(dict.fromkeys(line.split()))
    return {name: tuple(words) for name, words in sections.items()}


def inflect(word: str) -> tuple[str, str, str]:
    """Return the -s, -ed and -ing forms of a regular English word."""
    if word.endswith("y") and word[-2:-1] not in _VOWELS:
        return f"{word[:-1]}ies", f"{word[:-1]}ied", f"{word}ing"
    if word.endswith("e"):
        return f"{word}s", f"{word}d", f"{word[:-1]}ing"
    plural = "es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s"
    return f"{word}{plural}", f"{word}ed", f"{word}ing"


def derive(word: str) -> list[str]:
    """Return possible derivations of `word`; those that do not exist can still be prefixes."""
    stem = word.removesuffix("e").removesuffix("y")
    return [f"{stem}{suffix}" for suffix in ("er", "al", "ion", "ic", "ive", "able", "or", "y")] + [
        f"{word}{suffix}" for suffix in ("ly", "ment", "less")
    ]


def build_vocabulary(size: int) -> dict[str, int]:
    """Return a vocabulary of exactly `size` tokens with their ids, the same on every machine.

    Raises:
        ValueError: `size` is less than the number of characters or more than can be generated.
    """
    vocabulary = dict(SPECIAL_IDS)
    reserved = (number for number in range(104) if number not in SPECIAL_IDS.values())
    vocabulary.update({f"[unused{index}]": number for index, number in enumerate(reserved)})
    mandatory = len(set(_characters()) | set(vocabulary))
    if size < mandatory:
        raise ValueError(f"a vocabulary of {size} tokens is too small: give at least {mandatory}")
    for token in _candidates():
        if len(vocabulary) == size:
            break
        vocabulary.setdefault(token, len(vocabulary))
    if len(vocabulary) < size:
        raise ValueError(f"a vocabulary of {size} tokens is too large: at most {len(vocabulary)}")
    return vocabulary


def write_tokenizer(folder: Path, vocab_size: int, max_length: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, which AutoTokenizer loads offline."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece(build_vocabulary(vocab_size), unk_token=UNK))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, SPECIAL_IDS[CLS]), (SEP, SPECIAL_IDS[SEP])],
    )
    tokenizer.add_special_tokens(list(SPECIAL_IDS))
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "model_max_length": max_length,
        "pad_token": PAD,
        "unk_token": UNK,
        "cls_token": CLS,
        "sep_token": SEP,
        "mask_token": MASK,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _characters() -> Iterator[str]:
    """Yield each character that is a token; letters and digits also as continuation tokens."""
    for first, last in _BLOCKS:
        for character in map(chr, range(first, last + 1)):
            category = unicodedata.category(character)
            if category[0] in "LNPS" and character == character.lower():
                yield character
                # Ideographs and punctuation are always separate words, so they never continue one
                if category[0] in "LN" and first != 0x4E00:
                    yield f"##{character}"


def _candidates() -> Iterator[str]:
    """Yield tokens from the most to the least useful; the caller drops duplicates."""
    words = read_word_list()
    yield from _characters()
    yield from words["function"]
    yield from words["content"]
    for word in words["content"]:
        yield from inflect(word)
    yield from map(str, range(1000))
    yield from map(str, range(1800, 2031))
    yield from (f"##{number:02d}" for number in range(100))
    for section in ("suffix", "stem", "prefix"):
        yield from _both(words[section])
    yield from _both("".join(pair) for pair in product(_LETTERS, repeat=2))
    for word in words["content"]:
        yield from derive(word)
    triples = ["".join(triple) for triple in product(_LETTERS, repeat=3)]
    yield from _both(triple for triple in triples if triple[1] in _VOWELS)
    yield from _both(triple for triple in triples if triple[1] not in _VOWELS)


def _both(pieces: Iterable[str]) -> Iterator[str]:
    for piece in pieces:
        yield f"##{piece}"
        yield piece
