"""A model folder's configuration and tokenizer as transformers interprets them.

Transformers decides which file takes precedence, what a missing key means and how a tokenizer class
uses its files, so its own objects are queried. Importing it takes seconds and about 240 MB, which
would distort the measurements of engines that need neither it nor torch. A process that has not
imported it therefore starts a child process to query it, once per folder, and caches the answer.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crossbench.errors import ModelError
from crossbench.models.json_file import read_json
from crossbench.system.digests import sha256_of
from crossbench.system.json_cache import cache_path, load_cached, save_cached
from crossbench.system.processes import child_environment

log = logging.getLogger(__name__)

# All files from which transformers may read a configuration or a tokenizer
CONFIG_FILES = ("config.json", "adapter_config.json")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "bpe.codes", "spiece.model", "spm.model",
    "sentencepiece.bpe.model", "tokenizer.model", "chat_template.jinja", "chat_template.json",
    "processor_config.json",
)  # fmt: skip
_VERSION = 1  # increase it when the facts for unchanged files change
_UNLIMITED = 1_000_000  # transformers writes 1e30 if a tokenizer has no limit
# Texts that reveal differences between tokenizers: case, accents, scripts, special tokens, spaces
_TEXTS = (
    "what is a river",
    "The RIVER is naïve water, isn't it? River Café 1,234.5",
    "Ünïcödé ÅÉ ß ǅ ﬁne e\u0301 İstanbul",
    "東京は日本の首都です。 한국어 ภาษาไทย हिन्दी",
    "  two  spaces\tand\na line\u00a0nbsp\u200bzero ",
    "[SEP] [MASK] <mask> </s> <s>",
    "😀👩‍👩‍👧 -- under_score a@b.org x" + "y" * 120,
)
_PROBE_LENGTHS = (None, 16)  # maximum tokens; None: no truncation


@dataclass(frozen=True, slots=True)
class Probe:
    """A text or pair, and the ids and type ids that AutoTokenizer returns at `max_length`."""

    texts: tuple[str, ...]
    max_length: int
    ids: tuple[int, ...]
    types: tuple[int, ...]


@dataclass(frozen=True)
class TokenizerFacts:
    """A folder's tokenizer as AutoTokenizer loads it.

    `serialized` is its JSON in the format of the tokenizers library. `uses_type_ids` says whether
    type ids are passed to the model. `largest_id` is the largest id of the vocabulary. `pad_id` and
    `model_max_length` are None if the tokenizer has none. `probes` are examples of its output.
    """

    serialized: str
    truncation_side: str
    padding_side: str
    uses_type_ids: bool
    splits_special_tokens: bool
    has_chat_template: bool
    model_max_length: int | None
    pad_id: int | None
    largest_id: int
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class LibraryFacts:
    """A folder's `config` as AutoConfig loads it, and its tokenizer.

    `config` includes defaults and the keys `num_labels` and `hidden_size`.
    """

    config: Mapping[str, Any]
    tokenizer: TokenizerFacts


def library_facts(
    folder: Path, lower_case: bool, options: Mapping[str, Any], cache_dir: Path | None
) -> LibraryFacts:
    """Return the facts of a folder, from the cache in `cache_dir` if it is given.

    `lower_case` adds lower-casing to the tokenizer. `options` are arguments for AutoTokenizer.

    Raises:
        ModelError: transformers cannot read the folder, or would have to run the folder's own code.
    """
    if cache_dir is None:
        return _read_facts(folder, lower_case, options)
    path = cache_path(cache_dir / "folders", *_key(folder, lower_case, options))
    try:
        return _from_json(load_cached(path))
    except (ValueError, KeyError, TypeError):
        pass  # not there yet, or broken
    if "transformers" in sys.modules:
        facts = _read_facts(folder, lower_case, options)
    else:
        facts = _read_facts_in_child(folder, lower_case, options)
    save_cached(path, dataclasses.asdict(facts))
    return facts


def _key(folder: Path, lower_case: bool, options: Mapping[str, Any]) -> tuple[object, ...]:
    """All that the facts follow from."""
    versions = [version(name) for name in ("transformers", "tokenizers")]
    files = [
        (name, sha256_of(folder / name))
        for name in (*CONFIG_FILES, *TOKENIZER_FILES)
        if (folder / name).is_file()
    ]
    return _VERSION, versions, lower_case, options, files


def _from_json(document: dict[str, Any]) -> LibraryFacts:
    tokenizer = document["tokenizer"]
    probes = tuple(
        Probe(tuple(item["texts"]), item["max_length"], tuple(item["ids"]), tuple(item["types"]))
        for item in tokenizer["probes"]
    )
    return LibraryFacts(document["config"], TokenizerFacts(**{**tokenizer, "probes": probes}))


def _read_facts_in_child(
    folder: Path, lower_case: bool, options: Mapping[str, Any]
) -> LibraryFacts:
    """Read the facts in a child process, so that this process does not import transformers."""
    with tempfile.TemporaryDirectory(prefix="crossbench-") as temporary:
        answer = Path(temporary) / "answer.json"
        request = json.dumps([str(folder), lower_case, options, str(answer)])
        done = subprocess.run(
            [sys.executable, "-m", "crossbench.models.library_facts", request],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=child_environment(),
        )
        if not answer.is_file():
            last_line = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise ModelError(
                f"the process that reads {folder} with transformers ended with status "
                f"{done.returncode} ({last_line})"
            )
        document = json.loads(answer.read_text("utf-8"))
    if "error" in document:
        raise ModelError(document["error"])
    return _from_json(document)


def _read_facts(folder: Path, lower_case: bool, options: Mapping[str, Any]) -> LibraryFacts:
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    local = {"local_files_only": True, "trust_remote_code": False}
    part = "config.json"
    try:
        config = AutoConfig.from_pretrained(folder, **local)  # nosec B615  # a folder
        part = "tokenizer"
        tokenizer = AutoTokenizer.from_pretrained(folder, **{**options, **local})  # nosec B615  # a folder
        if not tokenizer.is_fast:
            raise ModelError(
                f"{folder}: its tokenizer {type(tokenizer).__name__} has no fast version, which "
                "crossbench requires: choose a model that has one (a tokenizer.json)"
            )
        if lower_case:
            _lower_case(tokenizer)
        facts = _tokenizer_facts(tokenizer, folder)
    except ModelError:
        raise
    except Exception as error:  # the libraries raise bare Exception and many other kinds
        for file in (folder / name for name in TOKENIZER_FILES):
            if file.suffix == ".json" and file.is_file():
                read_json(file)  # its error names the broken file, which transformers' does not
        message = " ".join(str(error).split())
        raise ModelError(
            f"transformers cannot read the {part} of {folder} ({type(error).__name__}: {message}): "
            "restore the file, or choose a model that transformers loads without custom code"
        ) from error
    values = json.loads(config.to_json_string(use_diff=False))
    hidden = getattr(config, "hidden_size", None)  # the attribute maps the family's own name
    return LibraryFacts({**values, "num_labels": config.num_labels, "hidden_size": hidden}, facts)


def _lower_case(tokenizer: Any) -> None:
    """Add lower-casing, as sentence-transformers does for do_lower_case."""
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    current: Any = backend.normalizer
    parts = [current] if not isinstance(current, normalizers.Sequence) else [*iter(current)]
    if not any(isinstance(part, normalizers.Lowercase) for part in parts):
        present = [part for part in parts if part is not None]
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *present])


def _tokenizer_facts(tokenizer: Any, folder: Path) -> TokenizerFacts:
    backend = tokenizer.backend_tokenizer
    serialized = backend.to_str()
    limit = tokenizer.model_max_length
    if limit is not None and (isinstance(limit, str | bool) or limit < 1):
        raise ModelError(
            f"{folder}/tokenizer_config.json: model_max_length = {limit!r}: set it to a positive "
            "number of tokens"
        )
    vocabulary = backend.get_vocab(with_added_tokens=True)
    return TokenizerFacts(
        serialized=serialized,
        truncation_side=tokenizer.truncation_side,
        padding_side=tokenizer.padding_side,
        uses_type_ids="token_type_ids" in tokenizer.model_input_names,
        splits_special_tokens=bool(tokenizer.split_special_tokens),
        has_chat_template=getattr(tokenizer, "chat_template", None) is not None,
        model_max_length=int(limit) if limit is not None and limit < _UNLIMITED else None,
        pad_id=tokenizer.pad_token_id,
        largest_id=max(vocabulary.values(), default=-1),
        probes=tuple(_probes(tokenizer)),
    )


def _probes(tokenizer: Any) -> list[Probe]:
    pairs = list(zip(_TEXTS, (*_TEXTS[1:], _TEXTS[0]), strict=True))
    probes = []
    for limit in _PROBE_LENGTHS:
        for sequences in ([(text,) for text in _TEXTS], pairs):
            probes += _probe(tokenizer, sequences, limit or 1000)
    return probes


def _probe(tokenizer: Any, sequences: Sequence[tuple[str, ...]], max_length: int) -> list[Probe]:
    encoded = tokenizer(
        *(list(column) for column in zip(*sequences, strict=True)),
        truncation="longest_first",
        max_length=max_length,
        return_token_type_ids=True,
    )
    rows = zip(sequences, encoded["input_ids"], encoded["token_type_ids"], strict=True)
    return [Probe(texts, max_length, tuple(ids), tuple(types)) for texts, ids, types in rows]


def main(request: str) -> None:
    folder, lower_case, options, answer = json.loads(request)
    try:
        document = dataclasses.asdict(_read_facts(Path(folder), lower_case, options))
    except ModelError as error:
        document = {"error": str(error)}
    Path(answer).write_text(json.dumps(document), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
