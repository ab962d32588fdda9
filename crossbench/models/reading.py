"""Read and check a model folder by its library's rules; errors name the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossbench.errors import ModelError
from crossbench.models.activation import activation_of
from crossbench.models.folder import ModelFolder
from crossbench.models.folder_files import check_size
from crossbench.models.json_file import read_json, read_optional_json, refuse_lfs_pointer
from crossbench.models.layout import MODULES_FILE, Layout, read_layout
from crossbench.models.library_facts import TOKENIZER_FILES, LibraryFacts, library_facts
from crossbench.models.size_checks import Infos, check_sizes, labels
from crossbench.models.weight_files import read_tensor_infos, weight_files

# Families whose position ids start after the padding id, so that the first positions are unused
_OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "xmod"}
    | {"mpnet", "longformer", "data2vec-text", "ibert"}
)
# Files of which each one can define the vocabulary
_VOCABULARIES = tuple(
    name for name in TOKENIZER_FILES if name.endswith((".model", "vocab.txt", "vocab.json"))
)


def read_folder(
    root: Path,
    name: str,
    max_length: int | None = None,
    cache_dir: Path | None = None,
    caveat: str | None = None,
) -> ModelFolder:
    """Read and check the model folder `root` without loading its weights.

    `max_length` replaces the maximum length in the files. The configuration and tokenizer as
    transformers loads them are cached in `cache_dir`; with None, they are read in this process.

    Raises:
        ModelError: a file is missing or malformed, has an unsupported setting, or sizes contradict
            each other.
    """
    try:
        return _read(root, name, max_length, cache_dir, caveat)
    except OSError as error:
        raise ModelError(
            f"{root} cannot be read ({error}): make sure that you may read its files"
        ) from error


def _read(
    root: Path, name: str, max_length: int | None, cache_dir: Path | None, caveat: str | None
) -> ModelFolder:
    layout = read_layout(root)
    infos = read_tensor_infos(_files(layout.transformer))
    _check_config(layout)
    facts = library_facts(
        layout.transformer, layout.lower_case, layout.tokenizer_options, cache_dir
    )
    limit = _max_length(layout, facts, max_length)
    folder = ModelFolder(layout.transformer, name, limit, layout, facts, caveat)
    _check_tokenizer(folder)
    if folder.embedding is None:
        _check_labels(folder, infos)
        activation_of(folder)
    elif layout.pooled_size not in (None, facts.config["hidden_size"]):
        raise ModelError(
            f"{root}: the pooling module expects the hidden size {layout.pooled_size}, but "
            f"config.json has {facts.config['hidden_size']}: restore the folder"
        )
    check_sizes(folder, infos)
    return folder


def _files(folder: Path) -> tuple[Path, ...]:
    """Return the weight files, after checking that no file is missing or a Git LFS pointer."""
    if not (folder / "config.json").is_file():
        inner = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
        hint = f"; its subfolders with a config.json are {', '.join(inner[:4])}" if inner else ""
        raise ModelError(
            f"{folder} is not a model folder: config.json missing{hint}. Give the folder with "
            f"config.json (for a sentence-transformer, the folder with {MODULES_FILE})"
        )
    if not any((folder / name).is_file() for name in ("tokenizer.json", *_VOCABULARIES)):
        raise ModelError(
            f"{folder} is not a model folder: tokenizer.json missing, and there is no older "
            f"vocabulary file either ({', '.join(_VOCABULARIES)}). Add the tokenizer's files"
        )
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            refuse_lfs_pointer(folder / name)
            check_size(folder / name)
            if name.endswith(".json") and name != "tokenizer.json":  # the library limits its depth
                read_json(folder / name)
    return weight_files(folder)


def _check_config(layout: Layout) -> None:
    """Refuse settings that change the model in unsupported ways, before transformers is run."""
    path = layout.transformer / "config.json"
    config = read_json(path)
    refused = {
        "auto_map": "crossbench never runs a model folder's own code. Choose another model",
        "quantization_config": "the weights are already quantised. Give the model in floating "
        "point, and choose a precision with quant=",
        "chunk_size_feed_forward": "transformers then accepts only multiples of this length. Set "
        "it to 0, which gives the same scores",
        "add_cross_attention": "crossbench serves encoders only. Choose another model",
    }
    for key, reason in refused.items():
        if config.get(key):
            raise ModelError(f"{path}: {key} = {config[key]!r}: {reason}")
    settings = layout.transformer / "tokenizer_config.json"
    if read_optional_json(settings).get("fast_tokenizer_files"):
        raise ModelError(
            f"{settings}: fast_tokenizer_files selects a file by the version of transformers, "
            "which is not supported: save the right file as tokenizer.json, and remove the key"
        )
    adapter = layout.transformer / "adapter_config.json"
    if adapter.is_file():
        raise ModelError(
            f"{adapter}: crossbench does not support adapters: merge it into its base model "
            "(merge_and_unload in peft), save the result, and give that folder"
        )


def _check_tokenizer(folder: ModelFolder) -> None:
    """Refuse settings that make a score depend on its batch or that change the input texts."""
    tokenizer, path = folder.facts.tokenizer, folder.path
    if folder.config.get("is_encoder_decoder"):
        raise ModelError(
            f"{path}/config.json: is_encoder_decoder is true, but crossbench serves encoders only: "
            "choose another model"
        )
    if tokenizer.padding_side != "right":
        raise ModelError(
            f"{path}: its tokenizer has padding_side = {tokenizer.padding_side!r}, which makes a "
            "score depend on the other texts in its batch: choose a model that pads on the right"
        )
    if tokenizer.pad_id is None:
        raise ModelError(
            f"{path}: its tokenizer has no pad token, which batches of different lengths need: set "
            "pad_token in tokenizer_config.json"
        )
    if tokenizer.has_chat_template and not folder.layout.text_only:
        raise ModelError(
            f"{path}: its tokenizer has a chat template, which sentence-transformers would apply "
            "to the pairs and crossbench does not support: choose another model"
        )
    family = folder.config.get("model_type")
    if family in _OFFSET_POSITIONS and folder.config.get("pad_token_id") is None:
        raise ModelError(
            f"{path}/config.json: pad_token_id is null, but the position ids of {family} start "
            "after it: restore the file"
        )


def _check_labels(folder: ModelFolder, infos: Infos) -> None:
    """Check that the model has a single label, in the head and in config.json if it says so."""
    path = folder.path / "config.json"
    config = read_json(path)
    is_declared = any(config.get(key) is not None for key in ("id2label", "num_labels"))
    declared = folder.config["num_labels"] if is_declared else None
    found = labels(folder, infos)
    if None not in (declared, found) and declared != found:
        raise ModelError(
            f"{path} declares {declared} label{'s' * (declared != 1)}, but the weights of the head "
            f"have {found}: restore the folder"
        )
    count = found if found is not None else declared
    if count not in (None, 1):
        raise ModelError(
            f"{folder.path} has {count} labels, but a reranker has one: choose a cross-encoder "
            "with a single label"
        )


def _max_length(layout: Layout, facts: LibraryFacts, requested: int | None) -> int:
    """Return the maximum tokens of a sequence: `requested`, or the limit in the files."""
    config, path = facts.config, layout.transformer
    positions = _positions(config)
    if positions is not None and positions < 1:
        raise ModelError(
            f"{path}/config.json: max_position_embeddings = {config['max_position_embeddings']} "
            f"leaves no position after pad_token_id = {config.get('pad_token_id')}: restore the "
            "file"
        )
    if requested is not None:
        if requested < 1 or (positions is not None and requested > positions):
            raise ModelError(
                f"model.max_length={requested} does not fit {path}: give 1 to "
                f"{positions or 'the length it was trained for'}"
            )
        return requested
    configured = layout.max_tokens or facts.tokenizer.model_max_length
    limits = [limit for limit in (configured, positions) if limit is not None]
    if not limits:
        raise ModelError(f"{path} has no maximum length: give model.max_length=TOKENS")
    return min(limits)


def _positions(config: Any) -> int | None:
    """Return the number of tokens that the model has positions for; None if it has no limit."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return None
    if config.get("model_type") not in _OFFSET_POSITIONS:
        return positions
    padding = config.get("pad_token_id")
    return positions - 1 - (1 if padding is None else int(padding))
