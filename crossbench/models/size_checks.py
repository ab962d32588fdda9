"""Check that the sizes of a model folder's config, tensors and tokenizer are consistent.

If the word embeddings have fewer rows than the tokenizer has ids, an engine fails during the
measurement or, worse, reads past their end and returns wrong scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crossbench.errors import ModelError
from crossbench.models.families import Family, known_family
from crossbench.models.folder import ModelFolder
from crossbench.models.weight_files import TensorInfo

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
# Names of the last linear layer of a classification head in other model families
_HEADS = ("classifier.weight", "classifier.out_proj.weight", "score.weight", "logits_proj.weight")

Infos = Mapping[str, TensorInfo]


def check_sizes(folder: ModelFolder, infos: Infos) -> None:
    """Compare all sizes that affect the computation.

    Raises:
        ModelError: two sizes contradict each other; the message names the first such pair.
    """
    family = known_family(folder.config)
    if family is not None:
        _check_tensors(folder, family, infos)
    _check_ids(folder)
    _check_types(folder)


def labels(folder: ModelFolder, infos: Infos) -> int | None:
    """Return the number of logits of the classification head; None if no head is recognised."""
    family = known_family(folder.config)
    names = _HEADS if family is None else (f"{family.classifier}.weight",)
    return next((infos[name].shape[0] for name in names if name in infos), None)


def _check_tensors(folder: ModelFolder, family: Family, infos: Infos) -> None:
    heads, hidden = folder.config[family.head_count], folder.config["hidden_size"]
    if heads < 1 or hidden % heads:
        raise ModelError(
            f"{folder.path}: {family.head_count} = {heads} in config.json does not divide the "
            f"hidden size {hidden}: restore the file"
        )
    tables = [f"{part}embeddings.word_embeddings.weight" for part in ("", family.prefix)]
    if all(name in infos for name in tables):
        raise ModelError(
            f"{folder.path} contains two encoders ({' and '.join(tables)}): remove one of them"
        )
    prefix = _prefix(family, infos)
    start = f"{prefix}{family.layers}."
    count = len({name[len(start) :].split(".")[0] for name in infos if name.startswith(start)})
    if count and count != (depth := _depth(folder)):
        raise ModelError(
            f"{folder.path} has {count} layers, but config.json says {depth}: restore the folder"
        )
    for name, shape in _expected(folder, family, infos):
        found = infos.get(name)
        if found is None:
            raise ModelError(
                f"{folder.path} lacks the tensor {name}: it is neither a complete cross-encoder "
                "nor a sentence-transformer (which needs a modules.json that lists a pooling "
                "module)"
            )
        if found.shape != shape:
            raise ModelError(
                f"{folder.path}: {name} has the shape {_shown(found.shape)}, but config.json "
                f"requires {_shown(shape)}: restore the folder"
            )
        if found.dtype not in _FLOATS:
            raise ModelError(
                f"{folder.path}: {name} is stored as {found.dtype}, but crossbench reads only "
                f"{', '.join(sorted(_FLOATS))}: give the model in one of these types, and choose "
                "the precision with quant="
            )


def _expected(
    folder: ModelFolder, family: Family, infos: Infos
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors that our own encoder reads, with their shapes according to config.json."""
    config, prefix = folder.config, _prefix(family, infos)
    hidden: int = config["hidden_size"]
    wide: int = config.get("intermediate_size") or config["hidden_dim"]
    narrow: int = config.get("embedding_size") or hidden  # small ELECTRA models project it

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
    for source, pad_id in (
        ("config.json: pad_token_id", folder.config.get("pad_token_id")),
        ("the tokenizer's pad token", folder.facts.tokenizer.pad_id),
    ):
        if pad_id is not None and not 0 <= pad_id < rows:
            raise ModelError(
                f"{folder.path}, {source} is {pad_id}, but the model's word embeddings have {rows} "
                "rows: restore the file"
            )
    if largest >= rows:
        raise ModelError(
            f"{folder.path}: its tokenizer has ids up to {largest}, but the model's word "
            f"embeddings have only {rows} rows: restore the folder, as they do not belong together"
        )


def _check_types(folder: ModelFolder) -> None:
    tokenizer, rows = folder.facts.tokenizer, folder.config.get("type_vocab_size")
    largest = max((kind for probe in tokenizer.probes for kind in probe.types), default=0)
    if tokenizer.uses_type_ids and isinstance(rows, int) and 0 < rows <= largest:
        raise ModelError(
            f"{folder.path}: its tokenizer gives token types up to {largest}, but the model's type "
            f"embeddings have only {rows} row{'s' * (rows > 1)}: restore the folder, as they do "
            "not belong together"
        )


def _depth(folder: ModelFolder) -> int:
    depth = folder.config.get("num_hidden_layers")
    return int(folder.config["n_layers"] if depth is None else depth)


def _prefix(family: Family, infos: Infos) -> str:
    """Return the tensor prefix; an encoder saved alone (a sentence-transformer's) has none."""
    return "" if "embeddings.word_embeddings.weight" in infos else family.prefix


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
