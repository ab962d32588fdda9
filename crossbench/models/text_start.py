"""Where a long text can be cut so that the tokens before the cut stay the same.

A model reads only the first tokens of a text, and the tokenizers library needs a second for a text
of a million characters. Most tokenizers encode words independently, so the start of a text has the
tokens that it has in the whole text, if it ends with a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CHARACTERS_PER_TOKEN = 8  # of the first part that is tried; English text has four to five
SHORTEST = 4096  # characters; a shorter text is encoded as a whole
LONGEST_WORD = 1024  # characters before the end of a part that are searched for a cut

_PUNCTUATION = r"[!-/:-@\[-`{-~]"
_IDEOGRAPH = "[\u4e00-\u9fff]"
# A single space between words of ASCII, where no normaliser joins characters
_BEFORE_SPACE = r"(?<=[0-9A-Za-z])(?= [0-9A-Za-z])"
_BETWEEN_PUNCTUATION = rf"(?<={_PUNCTUATION})(?={_PUNCTUATION})"
_BETWEEN_IDEOGRAPHS = rf"(?<={_IDEOGRAPH})(?={_IDEOGRAPH})"

_LOCAL_NORMALIZERS = frozenset(
    {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"}
    | {"Precompiled", "Strip", "Prepend"}
)
# Patterns that match nothing from inside a word to the space after it
_SPACES_ONLY = ({"Regex": " {2,}"}, {"String": " {2,}"}, {"String": " "})
_WORD_SPLITTERS = frozenset({"BertPreTokenizer", "ByteLevel", "Metaspace", "WhitespaceSplit"})


@dataclass(frozen=True, slots=True)
class TextStart:
    """Yields starts of a text that have the tokens of the whole text; `cuts` matches their ends."""

    cuts: re.Pattern[str] | None

    def parts(self, text: str, enough: int) -> Iterator[str]:
        """Yield ever longer starts of `text`, the first of about `enough` tokens, then all."""
        size = max(enough * CHARACTERS_PER_TOKEN, SHORTEST)
        while self.cuts is not None and size < len(text):
            ends = [match.end() for match in self.cuts.finditer(text, size - LONGEST_WORD, size)]
            if ends:
                yield text[: ends[-1]]
            size *= 4
        yield text


def text_start_of(tokenizer: Any) -> TextStart:
    """Return where texts can be cut for this tokenizer of the tokenizers library."""
    rules = json.loads(tokenizer.to_str())
    added = [token["content"] for token in rules.get("added_tokens") or []]
    normalizers = list(_steps(rules.get("normalizer"), "normalizers"))
    splitters = list(_steps(rules.get("pre_tokenizer"), "pretokenizers"))
    kinds = {step["type"] for step in splitters}
    splits_words = bool(kinds) and kinds <= _WORD_SPLITTERS and all(map(_splits, splitters))
    if not splits_words or not all(map(_is_local, normalizers)) or any(map(_has_space, added)):
        return TextStart(None)
    cuts = [_BEFORE_SPACE]
    if kinds == {"BertPreTokenizer"}:  # it also splits before and after each punctuation character
        cuts.append(_BETWEEN_PUNCTUATION)
        if any(step.get("handle_chinese_chars") for step in normalizers):
            cuts.append(_BETWEEN_IDEOGRAPHS)
    pattern = re.compile("|".join(cuts))
    # An added token is found before words are split, and must not be cut
    if any(pattern.search(token) for token in added):
        return TextStart(None)
    return TextStart(pattern)


def _steps(node: Mapping[str, Any] | None, nested: str) -> Iterator[Mapping[str, Any]]:
    if node is None:
        return
    if node["type"] != "Sequence":
        yield node
        return
    for step in node[nested]:
        yield from _steps(step, nested)


def _splits(step: Mapping[str, Any]) -> bool:
    if step["type"] == "ByteLevel":
        return bool(step.get("use_regex", True))
    return step["type"] != "Metaspace" or bool(step.get("split", True))


def _is_local(step: Mapping[str, Any]) -> bool:
    if step["type"] == "Replace":
        return step.get("pattern") in _SPACES_ONLY
    return step["type"] in _LOCAL_NORMALIZERS


def _has_space(token: str) -> bool:
    return any(character.isspace() for character in token)
