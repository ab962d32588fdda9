"""Read a model folder: every file by its library's rules, or a refusal that names file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossbench.errors import ModelError
from crossbench.models.activation import activation_of
from crossbench.models.folder import ModelFolder
from crossbench.models.json_file import read_json, read_json_if_there, refuse_lfs_pointer
from crossbench.models.layout import MODULES_FILE, Layout, read_layout
from crossbench.models.library_facts import TOKENIZER_FILES, LibraryFacts, library_facts
from crossbench.models.size_checks import Infos, check_sizes, labels
from crossbench.models.weight_files import read_tensor_infos, weight_files

# Families whose position ids start behind the padding id: two positions are never used
_OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "xmod"}
    | {"mpnet", "longformer", "data2vec-text", "ibert"}
)
# Of these any one holds a vocabulary
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
    """The model in `root`, whose files were read and checked; weights are not loaded.

    `max_length` limits a sequence to fewer tokens than the files allow. What transformers says of
    the folder is kept in `cache_dir`; with None it is asked in this process.

    Raises:
        ModelError: a file is missing or broken, has a setting that we do not honour, or sizes do
            not belong together.
    """
    try:
        return _read(root, name, max_length, cache_dir, caveat)
    except OSError as error:
        raise ModelError(
            f"{root} cannot be read ({error}): see that its files may be read"
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
            f"{root}: its pooling takes states of {layout.pooled_size} numbers, and config.json "
            f"has the hidden size {facts.config['hidden_size']}: restore the folder"
        )
    check_sizes(folder, infos)
    return folder


def _files(folder: Path) -> tuple[Path, ...]:
    """The weights, where everything that a model needs is there and none is a Git LFS pointer."""
    if not (folder / "config.json").is_file():
        inner = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
        hint = f"; {', '.join(inner[:4])} in it have one" if inner else ""
        raise ModelError(
            f"{folder} is not a model folder: config.json missing{hint}. Give the folder that "
            f"holds it (of a sentence-transformer, the one that holds {MODULES_FILE})"
        )
    if not any((folder / name).is_file() for name in ("tokenizer.json", *_VOCABULARIES)):
        raise ModelError(
            f"{folder} is not a model folder: tokenizer.json missing, and there is no older "
            f"vocabulary either ({', '.join(_VOCABULARIES)}). Add the tokenizer's files"
        )
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            refuse_lfs_pointer(folder / name)
    return weight_files(folder)


def _check_config(layout: Layout) -> None:
    """Refuse what makes another model of the same weights, before transformers is asked."""
    path = layout.transformer / "config.json"
    config = read_json(path)
    refused = {
        "auto_map": "it asks for code of its own, which is never run",
        "quantization_config": "its weights are quantised already: give the model in floating "
        "point, and choose a precision with quant=",
        "chunk_size_feed_forward": "transformers then takes only lengths that it divides. Set it "
        "to 0, which computes the same",
        "add_cross_attention": "crossbench serves encoders alone",
    }
    for key, why in refused.items():
        if config.get(key):
            raise ModelError(f"{path}: {key} = {config[key]!r}: {why}")
    settings = layout.transformer / "tokenizer_config.json"
    if read_json_if_there(settings).get("fast_tokenizer_files"):
        raise ModelError(
            f"{settings}: fast_tokenizer_files names other files for other versions of "
            "transformers: keep the right one as tokenizer.json, and drop the key"
        )
    adapter = layout.transformer / "adapter_config.json"
    if adapter.is_file():
        raise ModelError(
            f"{adapter}: crossbench does not apply adapters. Merge this one into its model (peft's "
            "merge_and_unload) and give the folder that this saves"
        )


def _check_tokenizer(folder: ModelFolder) -> None:
    """Refuse what makes a score depend on its company, or a text something else than its tokens."""
    tokenizer, path = folder.facts.tokenizer, folder.path
    if folder.config.get("is_encoder_decoder"):
        raise ModelError(
            f"{path}/config.json: is_encoder_decoder is true, and crossbench serves encoders alone"
        )
    if tokenizer.padding_side != "right":
        raise ModelError(
            f"{path}: its tokenizer has padding_side = {tokenizer.padding_side!r}. There a score "
            "depends on what else is in its batch, so crossbench pads on the right only"
        )
    if tokenizer.pad_id is None:
        raise ModelError(
            f"{path}: its tokenizer has no pad token, and texts of several lengths need one: set "
            "pad_token in tokenizer_config.json"
        )
    if tokenizer.has_chat_template and not folder.layout.text_only:
        raise ModelError(
            f"{path}: its tokenizer has a chat template, by which sentence-transformers would make "
            "messages of the pairs. crossbench sends them as they are: choose another model"
        )
    family = folder.config.get("model_type")
    if family in _OFFSET_POSITIONS and folder.config.get("pad_token_id") is None:
        raise ModelError(
            f"{path}/config.json: pad_token_id is null, and positions of a {family} are counted "
            "from it: restore the file"
        )


def _check_labels(folder: ModelFolder, infos: Infos) -> None:
    """A reranker has one label: what config.json says, or where it is silent, the head."""
    path = folder.path / "config.json"
    config = read_json(path)
    said = any(config.get(key) is not None for key in ("id2label", "num_labels"))
    told = folder.config["num_labels"] if said else None
    found = labels(folder, infos)
    if None not in (told, found) and told != found:
        raise ModelError(
            f"{path} names {told} label{'s' * (told != 1)} where the head of the weights gives "
            f"{found}: restore the folder"
        )
    count = found if found is not None else told
    if count not in (None, 1):
        raise ModelError(
            f"{folder.path} gives {count} labels per pair and a reranker gives one: choose a "
            "cross-encoder with one label"
        )


def _max_length(layout: Layout, facts: LibraryFacts, asked: int | None) -> int:
    """The most tokens a sequence may have: what the files allow, or `asked`."""
    config, path = facts.config, layout.transformer
    positions = _positions(config)
    if positions is not None and positions < 1:
        raise ModelError(
            f"{path}/config.json: max_position_embeddings = {config['max_position_embeddings']} "
            f"leaves no position behind pad_token_id = {config.get('pad_token_id')}"
        )
    if asked is not None:
        if asked < 1 or (positions is not None and asked > positions):
            raise ModelError(
                f"model.max_length={asked} does not fit {path}: give 1 to "
                f"{positions or 'the length it was trained for'}"
            )
        return asked
    wanted = layout.max_tokens or facts.tokenizer.model_max_length
    limits = [limit for limit in (wanted, positions) if limit is not None]
    if not limits:
        raise ModelError(f"{path} names no maximum length: give model.max_length")
    return min(limits)


def _positions(config: Any) -> int | None:
    """Tokens that the model itself can read; None where it has no such limit."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return None
    if config.get("model_type") not in _OFFSET_POSITIONS:
        return positions
    padding = config.get("pad_token_id")
    return positions - 1 - (1 if padding is None else int(padding))
