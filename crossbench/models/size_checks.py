"""Whether a folder's sizes belong together: config, tensors, tokenizer.

A table with fewer rows than the tokenizer has ids ends in an error while it is measured, or worse:
some engines read past its end and go on with made-up scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crossbench.errors import ModelError
from crossbench.models.families import Family, known_family
from crossbench.models.folder import ModelFolder
from crossbench.models.weight_files import TensorInfo

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
# Where models of other families keep the last product of a classification head
_HEADS = ("classifier.weight", "classifier.out_proj.weight", "score.weight", "logits_proj.weight")

Infos = Mapping[str, TensorInfo]


def check_sizes(folder: ModelFolder, infos: Infos) -> None:
    """Compare every size that decides what is computed.

    Raises:
        ModelError: names the first two that contradict each other.
    """
    family = known_family(folder.config)
    if family is not None:
        _check_tensors(folder, family, infos)
    _check_ids(folder)
    _check_types(folder)


def labels(folder: ModelFolder, infos: Infos) -> int | None:
    """How many logits the classification head gives; None where no head was recognised."""
    family = known_family(folder.config)
    names = _HEADS if family is None else (f"{family.classifier}.weight",)
    return next((infos[name].shape[0] for name in names if name in infos), None)


def _check_tensors(folder: ModelFolder, family: Family, infos: Infos) -> None:
    heads, hidden = folder.config[family.head_count], folder.config["hidden_size"]
    if heads < 1 or hidden % heads:
        raise ModelError(
            f"{folder.path}: config.json has hidden size {hidden}, which {family.head_count} = "
            f"{heads} does not divide: restore the file"
        )
    tables = [f"{part}embeddings.word_embeddings.weight" for part in ("", family.prefix)]
    if all(name in infos for name in tables):
        raise ModelError(
            f"{folder.path} holds both {' and '.join(tables)}, two encoders: give one of them"
        )
    prefix = _prefix(family, infos)
    start = f"{prefix}{family.layers}."
    count = len({name[len(start) :].split(".")[0] for name in infos if name.startswith(start)})
    if count and count != (depth := _depth(folder)):
        raise ModelError(
            f"{folder.path} holds {count} layers where config.json says {depth}: restore the folder"
        )
    for name, shape in _expected(folder, family, infos):
        found = infos.get(name)
        if found is None:
            raise ModelError(
                f"{folder.path} holds no tensor {name}: it is neither a whole cross-encoder nor, "
                "for want of modules.json with a pooling, a sentence-transformer"
            )
        if found.shape != shape:
            raise ModelError(
                f"{folder.path}: {name} has the shape {_shown(found.shape)} where config.json asks "
                f"for {_shown(shape)}: restore the folder"
            )
        if found.dtype not in _FLOATS:
            raise ModelError(
                f"{folder.path}: {name} is stored as {found.dtype}, and crossbench reads weights "
                f"in {', '.join(sorted(_FLOATS))}: give the model in one of these, and choose a "
                "precision with quant="
            )


def _expected(
    folder: ModelFolder, family: Family, infos: Infos
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors that our own encoder reads, with the shapes that config.json gives them."""
    config, prefix = folder.config, _prefix(family, infos)
    hidden: int = config["hidden_size"]
    wide: int = config.get("intermediate_size") or config["hidden_dim"]
    narrow: int = config.get("embedding_size") or hidden  # ELECTRA's small ones project from it

    def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (rows, columns)
        yield f"{name}.bias", (rows,)

    yield f"{prefix}embeddings.word_embeddings.weight", (config["vocab_size"], narrow)
    positions: int = config["max_position_embeddings"]
    yield f"{prefix}embeddings.position_embeddings.weight", (positions, narrow)
    for part in ("weight", "bias"):
        yield f"{prefix}embeddings.LayerNorm.{part}", (narrow,)
    if family.has_types:
        types: int = config["type_vocab_size"]
        yield f"{prefix}embeddings.token_type_embeddings.weight", (types, narrow)
    for index in range(_depth(folder)):
        layer = f"{prefix}{family.layers}.{index}"
        for name in (family.query, family.key, family.value, family.attention_out):
            yield from linear(f"{layer}.{name}", hidden, hidden)
        yield from linear(f"{layer}.{family.up}", wide, hidden)
        yield from linear(f"{layer}.{family.down}", hidden, wide)
        for name in (family.attention_norm, family.out_norm):
            yield f"{layer}.{name}.weight", (hidden,)
            yield f"{layer}.{name}.bias", (hidden,)
    if folder.embedding is None:
        dense = f"{prefix}{family.dense}" if family.pooler_inside else family.dense
        yield from linear(dense, hidden, hidden)
        yield from linear(family.classifier, 1, hidden)


def _check_ids(folder: ModelFolder) -> None:
    rows, largest = folder.config.get("vocab_size"), folder.facts.tokenizer.largest_id
    if not isinstance(rows, int):
        return
    for where, pad_id in (
        ("config.json: pad_token_id", folder.config.get("pad_token_id")),
        ("the tokenizer's pad token", folder.facts.tokenizer.pad_id),
    ):
        if pad_id is not None and not 0 <= pad_id < rows:
            raise ModelError(
                f"{folder.path}, {where} is {pad_id}, and the model's table of words has {rows} "
                "rows: restore the file"
            )
    if largest >= rows:
        raise ModelError(
            f"{folder.path}: its tokenizer has ids up to {largest}, and the model's table of words "
            f"only {rows} rows: they do not belong together, restore the folder"
        )


def _check_types(folder: ModelFolder) -> None:
    tokenizer, rows = folder.facts.tokenizer, folder.config.get("type_vocab_size")
    largest = max((kind for probe in tokenizer.probes for kind in probe.types), default=0)
    if tokenizer.uses_type_ids and isinstance(rows, int) and 0 < rows <= largest:
        raise ModelError(
            f"{folder.path}: its tokenizer gives token types up to {largest}, and the model's "
            f"table of types has {rows} row{'s' * (rows > 1)}: they do not belong together, "
            "restore the folder"
        )


def _depth(folder: ModelFolder) -> int:
    depth = folder.config.get("num_hidden_layers")
    return int(folder.config["n_layers"] if depth is None else depth)


def _prefix(family: Family, infos: Infos) -> str:
    """An encoder that was saved alone, as sentence-transformers do, has no prefix."""
    return "" if "embeddings.word_embeddings.weight" in infos else family.prefix


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
