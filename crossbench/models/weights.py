"""The weights of a BERT-like cross-encoder, read from a folder under names of our own.

Every engine that computes the encoder itself (packed, openvino, onnx) builds from these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder
from crossbench.types import Float32Array

FAMILIES = ("bert", "roberta", "xlm-roberta")


@dataclass(frozen=True)
class Linear:
    """`x @ weight.T + bias`: `weight` (out, in), `bias` (out,)."""

    weight: Float32Array
    bias: Float32Array

    def rows(self, start: int, stop: int) -> Linear:
        """The product's outputs [start, stop) alone."""
        return Linear(self.weight[start:stop], self.bias[start:stop])


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the hidden size h: `scale` and `shift` are (h,)."""

    scale: Float32Array
    shift: Float32Array


@dataclass(frozen=True)
class Layer:
    """One encoder layer; `qkv` is query, key and value in one product: weight (3h, h)."""

    qkv: Linear
    attention_out: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    out_norm: Norm


@dataclass(frozen=True)
class EncoderWeights:
    """A post-norm BERT encoder with a one-logit head of two dense layers on the CLS row.

    The tables are `words` (vocabulary, h), `positions` (positions, h) with row 0 the first
    token's, and `types` (types, h). The head is `classifier(tanh(pooler(cls)))`.
    """

    heads: int
    eps: float
    words: Float32Array
    positions: Float32Array
    types: Float32Array
    norm: Norm
    layers: tuple[Layer, ...]
    pooler: Linear
    classifier: Linear

    @property
    def hidden(self) -> int:
        return int(self.words.shape[1])

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


def read_weights(folder: ModelFolder) -> EncoderWeights:
    """The folder's encoder in float32.

    Raises:
        ModelError: another family, another head, or a tensor is missing or has a wrong shape.
    """
    check_family(folder)
    config = folder.config
    get = _reader(folder)
    is_bert = config["model_type"] == "bert"
    prefix = "bert." if is_bert else "roberta."
    hidden = int(config["hidden_size"])

    def linear(name: str, prefix: str = prefix) -> Linear:
        return Linear(get(f"{prefix}{name}.weight"), get(f"{prefix}{name}.bias"))

    def norm(name: str) -> Norm:
        return Norm(get(f"{prefix}{name}.weight"), get(f"{prefix}{name}.bias"))

    def layer(index: int) -> Layer:
        at = f"encoder.layer.{index}."
        parts = [linear(f"{at}attention.self.{part}") for part in ("query", "key", "value")]
        return Layer(
            qkv=Linear(
                np.concatenate([part.weight for part in parts]),
                np.concatenate([part.bias for part in parts]),
            ),
            attention_out=linear(f"{at}attention.output.dense"),
            attention_norm=norm(f"{at}attention.output.LayerNorm"),
            up=linear(f"{at}intermediate.dense"),
            down=linear(f"{at}output.dense"),
            out_norm=norm(f"{at}output.LayerNorm"),
        )

    positions = get(f"{prefix}embeddings.position_embeddings.weight")
    if is_bert:
        pooler, classifier = linear("pooler.dense"), linear("classifier", "")
    else:
        # RoBERTa counts positions from pad_token_id + 1; what is before that is never looked up.
        positions = positions[int(config["pad_token_id"]) + 1 :]
        pooler, classifier = linear("classifier.dense", ""), linear("classifier.out_proj", "")
    weights = EncoderWeights(
        heads=int(config["num_attention_heads"]),
        eps=float(config["layer_norm_eps"]),
        words=get(f"{prefix}embeddings.word_embeddings.weight"),
        positions=np.ascontiguousarray(positions),
        types=get(f"{prefix}embeddings.token_type_embeddings.weight"),
        norm=norm("embeddings.LayerNorm"),
        layers=tuple(layer(index) for index in range(int(config["num_hidden_layers"]))),
        pooler=pooler,
        classifier=classifier,
    )
    if weights.hidden != hidden or weights.classifier.weight.shape != (1, hidden):
        raise ModelError(
            f"{folder.path}: hidden size {weights.hidden} and a head of shape "
            f"{weights.classifier.weight.shape}, where config.json says {hidden} and a reranker "
            "gives one logit: restore the folder, or choose a cross-encoder with one label"
        )
    return weights


def check_family(folder: ModelFolder) -> None:
    """Refuse what this encoder would compute wrongly.

    Raises:
        ModelError: names what differs, and the backend that can.
    """
    config = folder.config
    facts: tuple[tuple[str, object, bool], ...] = (
        ("model_type", config.get("model_type"), config.get("model_type") in FAMILIES),
        ("hidden_act", config.get("hidden_act"), config.get("hidden_act") == "gelu"),
        (
            "position_embedding_type",
            config.get("position_embedding_type"),
            config.get("position_embedding_type") in (None, "absolute"),
        ),
        (
            "architectures",
            folder.architecture,
            folder.architecture.endswith("ForSequenceClassification"),
        ),
        ("is_decoder", config.get("is_decoder"), not config.get("is_decoder")),
    )
    for key, given, fits in facts:
        if not fits:
            raise ModelError(
                f"{folder.path}: config.json has {key} = {given!r}, which our own encoder does not "
                f"compute (it does cross-encoders of {', '.join(FAMILIES)} with hidden_act=gelu "
                "and absolute positions). Use backend=pytorch, which can"
            )


def _reader(folder: ModelFolder) -> Callable[[str], Float32Array]:
    # Through torch, since NumPy has no bfloat16 and some folders store it.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder.path / "model.safetensors"
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read ({error}): restore the file") from error

    def get(name: str) -> Float32Array:
        if name not in tensors:
            raise ModelError(f"{path} holds no tensor {name}: the folder is not the model it says")
        array: Float32Array = tensors[name].float().contiguous().numpy()
        return array

    return get
