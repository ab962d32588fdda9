"""The weights of a BERT-like encoder and its head, independent of the family's tensor names.

Every engine that computes the encoder itself (packed, cuda, openvino, onnx, mlx) uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossbench.errors import ModelError
from crossbench.models.embedding import Embedding
from crossbench.models.families import Family, HeadActivation, family_of
from crossbench.models.folder import ModelFolder
from crossbench.models.weight_files import current_name
from crossbench.types import Float32Array

_DEFAULT_EPS = 1e-12  # for families without layer_norm_eps in config.json


@dataclass(frozen=True)
class Linear:
    """`x @ weight.T + bias`: `weight` (out, in), `bias` (out,)."""

    weight: Float32Array
    bias: Float32Array

    def rows(self, start: int, stop: int) -> Linear:
        """Return a linear layer that computes only the outputs [start, stop)."""
        return Linear(self.weight[start:stop], self.bias[start:stop])


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the hidden size h: `scale` and `shift` are (h,)."""

    scale: Float32Array
    shift: Float32Array


@dataclass(frozen=True)
class Layer:
    """One encoder layer; `qkv` is query, key and value in one linear layer: weight (3h, h)."""

    qkv: Linear
    attention_out: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    out_norm: Norm


@dataclass(frozen=True)
class ClassifierHead:
    """The head that gives a pair's logit: `classifier(activation(dense(cls)))`."""

    dense: Linear
    activation: HeadActivation
    classifier: Linear


@dataclass(frozen=True)
class EncoderWeights:
    """The weights of a post-norm BERT-like encoder and its head, which gives a logit or a vector.

    `word_embeddings` is (vocabulary, h), `position_embeddings` (positions, h) and
    `type_embeddings` (at least 2, h). Position ids count from 0. With a `skipped_id` (RoBERTa's
    padding id), tokens with that id have position 0 and the other tokens are counted from 1. This
    matters for a text that contains "<pad>".
    """

    heads: int
    eps: float
    word_embeddings: Float32Array
    position_embeddings: Float32Array
    skipped_id: int | None
    type_embeddings: Float32Array
    norm: Norm
    layers: tuple[Layer, ...]
    head: ClassifierHead | Embedding

    @property
    def hidden(self) -> int:
        return int(self.word_embeddings.shape[1])

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def reads_cls(self) -> bool:
        """Whether the head reads only the CLS rows, so that the last layer can skip the others."""
        return isinstance(self.head, ClassifierHead) or self.head.reads_cls


def read_weights(folder: ModelFolder) -> EncoderWeights:
    """Return the folder's encoder and head in float32.

    Raises:
        ModelError: our encoder does not support the model, or a file or tensor is missing.
    """
    family = family_of(folder)
    config = folder.config
    tensors = _Tensors(folder.weights, family.prefix)
    embedding = folder.embedding

    def layer(index: int) -> Layer:
        def linear(name: str) -> Linear:
            return tensors.linear(f"{family.layers}.{index}.{name}")

        parts = [linear(name) for name in (family.query, family.key, family.value)]
        return Layer(
            qkv=Linear(
                np.concatenate([part.weight for part in parts]),
                np.concatenate([part.bias for part in parts]),
            ),
            attention_out=linear(family.attention_out),
            attention_norm=tensors.norm(f"{family.layers}.{index}.{family.attention_norm}"),
            up=linear(family.up),
            down=linear(family.down),
            out_norm=tensors.norm(f"{family.layers}.{index}.{family.out_norm}"),
        )

    word_embeddings = tensors.get("embeddings.word_embeddings.weight")
    position_embeddings = tensors.get("embeddings.position_embeddings.weight")
    skipped_id = int(config["pad_token_id"]) if family.offset else None
    if skipped_id is not None:  # the rows before it are never read
        position_embeddings = np.ascontiguousarray(position_embeddings[skipped_id:])
    layers = tensors.count(f"{family.layers}.")
    return EncoderWeights(
        heads=int(config[family.head_count]),
        eps=float(config.get("layer_norm_eps", _DEFAULT_EPS)),
        word_embeddings=word_embeddings,
        position_embeddings=position_embeddings,
        skipped_id=skipped_id,
        type_embeddings=_type_embeddings(tensors, family, word_embeddings.shape[1]),
        norm=tensors.norm("embeddings.LayerNorm"),
        layers=tuple(layer(index) for index in range(layers)),
        head=_classifier(tensors, family) if embedding is None else embedding,
    )


def _type_embeddings(tensors: _Tensors, family: Family, hidden: int) -> Float32Array:
    """Return the token type embeddings with at least two rows.

    A tokenizer may give types 0 and 1 to a model that has only one type.
    """
    if not family.has_types:
        return np.zeros((2, hidden), dtype=np.float32)
    table = tensors.get("embeddings.token_type_embeddings.weight")
    return np.repeat(table, 2, axis=0) if len(table) == 1 else table


def _classifier(tensors: _Tensors, family: Family) -> ClassifierHead:
    return ClassifierHead(
        dense=tensors.linear(family.dense, inside=family.pooler_inside),
        activation=family.activation,
        classifier=tensors.linear(family.classifier, inside=False),
    )


class _Tensors:
    """The tensors of the files in float32; the encoder's may have the family's `prefix` or none.

    They are read with torch, because NumPy has no bfloat16.
    """

    def __init__(self, files: Sequence[Path], prefix: str) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        self._tensors: dict[str, Any] = {}
        for path in files:
            try:
                loaded = load_file(path)
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path} cannot be read ({error}): restore the file") from error
            self._tensors |= {current_name(name): tensor for name, tensor in loaded.items()}
        # An encoder saved alone (a sentence-transformer's) has no prefix
        has_prefix = "embeddings.word_embeddings.weight" not in self._tensors
        self._folder, self._prefix = files[0].parent, prefix if has_prefix else ""

    def get(self, name: str, inside: bool = True) -> Float32Array:
        full = f"{self._prefix}{name}" if inside else name
        if full not in self._tensors:
            raise ModelError(
                f"{self._folder} lacks the tensor {full}: restore the folder, or choose another "
                "model"
            )
        array: Float32Array = self._tensors[full].float().contiguous().numpy()
        return array

    def linear(self, name: str, inside: bool = True) -> Linear:
        return Linear(self.get(f"{name}.weight", inside), self.get(f"{name}.bias", inside))

    def norm(self, name: str) -> Norm:
        return Norm(self.get(f"{name}.weight"), self.get(f"{name}.bias"))

    def count(self, start: str) -> int:
        """Return how many distinct indices follow `start` in tensor names."""
        full = f"{self._prefix}{start}"
        tails = (name[len(full) :] for name in self._tensors if name.startswith(full))
        return len({tail.split(".", 1)[0] for tail in tails})
