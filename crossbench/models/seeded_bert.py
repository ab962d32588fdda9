"""Random BERT weights from a seed, with scores distributed like a trained cross-encoder's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossbench.types import Float32Array, TokenBatch

Weights = dict[str, Float32Array]

_EPSILON = 1e-12  # BERT's own layer_norm_eps
# A large gain makes the first token's state depend on all other tokens. With BERT's usual standard
# deviation of 0.02, all scores would be nearly equal and the head would amplify rounding errors.
_OUTPUT_GAIN = 2.0


@dataclass(frozen=True, slots=True)
class BertShape:
    """The dimensions of a BERT encoder with one label."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocab_size: int
    positions: int

    def config(self) -> dict[str, Any]:
        """Return a config.json for AutoModelForSequenceClassification and CrossEncoder."""
        return {
            "architectures": ["BertForSequenceClassification"],
            "model_type": "bert",
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.positions,
            "type_vocab_size": 2,
            "hidden_act": "gelu",
            "layer_norm_eps": _EPSILON,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "initializer_range": 0.02,
            "pad_token_id": 0,  # nosec B105  # a token id
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
            "dtype": "float32",
            # As in the MS MARCO cross-encoders: scores are the logits, without a sigmoid
            "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
        }


def random_weights(shape: BertShape, seed: int) -> Weights:
    """Return all tensors of BertForSequenceClassification in fp32; the head is not yet scaled."""
    rng = np.random.default_rng(seed)

    def normal(rows: int, columns: int, std: float) -> Float32Array:
        return rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(std)

    weights: Weights = {}

    def linear(name: str, rows: int, columns: int, gain: float = 1.0) -> None:
        weights[f"{name}.weight"] = normal(rows, columns, gain / math.sqrt(columns))
        weights[f"{name}.bias"] = normal(1, rows, 0.02)[0]

    def layer_norm(name: str) -> None:
        weights[f"{name}.weight"] = np.ones(shape.hidden, dtype=np.float32)
        weights[f"{name}.bias"] = np.zeros(shape.hidden, dtype=np.float32)

    embeddings = "bert.embeddings"
    for table, rows, std in (
        ("word", shape.vocab_size, 0.05),
        ("position", shape.positions, 0.02),
        ("token_type", 2, 0.02),
    ):
        weights[f"{embeddings}.{table}_embeddings.weight"] = normal(rows, shape.hidden, std)
    layer_norm(f"{embeddings}.LayerNorm")
    for index in range(shape.layers):
        layer = f"bert.encoder.layer.{index}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", shape.hidden, shape.hidden)
        linear(f"{layer}.attention.output.dense", shape.hidden, shape.hidden, _OUTPUT_GAIN)
        layer_norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", shape.intermediate, shape.hidden)
        linear(f"{layer}.output.dense", shape.hidden, shape.intermediate)
        layer_norm(f"{layer}.output.LayerNorm")
    linear("bert.pooler.dense", shape.hidden, shape.hidden)
    linear("classifier", 1, shape.hidden)
    return weights


def scale_head(weights: Weights, shape: BertShape, batch: TokenBatch, std: float) -> None:
    """Scale the head in place so that the batch's scores have mean 0 and standard deviation `std`.

    Scale and offset are rounded, so that machines whose matrix libraries differ in the last bits
    write the same file.
    """
    scores = forward(weights, shape, batch)
    scale = float(f"{std / float(scores.std()):.3g}")
    bias = weights["classifier.bias"][0]
    weights["classifier.weight"] *= np.float32(scale)
    weights["classifier.bias"][0] = round(-scale * float(scores.mean() - bias), 2)


def forward(weights: Weights, shape: BertShape, batch: TokenBatch) -> Float32Array:
    """Return the scores of the batch's sequences, shape (n,), computed in NumPy.

    GELU uses its tanh approximation, because NumPy has no erf; that is accurate enough to scale the
    head. Sequences are concatenated, so that each matrix product is one large call: thousands of
    small calls are very slow while other processes use the CPU.
    """
    total, size = batch.total_tokens, shape.hidden // shape.heads
    starts = batch.cu_seqlens[:-1]
    positions = np.arange(total) - np.repeat(starts, batch.lengths)

    def linear(name: str, x: Float32Array) -> Float32Array:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def embed(table: str, rows: NDArray[np.integer[Any]]) -> Float32Array:
        embedded: Float32Array = weights[f"bert.embeddings.{table}_embeddings.weight"][rows]
        return embedded

    def split(x: Float32Array) -> Float32Array:
        return x.reshape(total, shape.heads, size).transpose(1, 0, 2)

    x = _normalise(
        embed("word", batch.input_ids)
        + embed("position", positions)
        + embed("token_type", batch.type_ids)
    )
    for index in range(shape.layers):
        layer = f"bert.encoder.layer.{index}"
        query, key, value = (
            split(linear(f"{layer}.attention.self.{part}", x)) for part in ("query", "key", "value")
        )
        mixed = np.empty((total, shape.heads, size), dtype=np.float32)
        for start, stop in pairwise(batch.cu_seqlens.tolist()):
            logits = query[:, start:stop] @ key[:, start:stop].transpose(0, 2, 1)
            attention = np.exp(logits / np.float32(math.sqrt(size)))
            attention /= attention.sum(axis=-1, keepdims=True)
            mixed[start:stop] = (attention @ value[:, start:stop]).transpose(1, 0, 2)
        attended = linear(f"{layer}.attention.output.dense", mixed.reshape(total, shape.hidden))
        x = _normalise(x + attended)
        inner = linear(f"{layer}.intermediate.dense", x)
        inner *= 0.5 * (1 + np.tanh(0.7978846 * (inner + 0.044715 * inner * inner * inner)))
        x = _normalise(x + linear(f"{layer}.output.dense", inner))
    pooled = np.tanh(linear("bert.pooler.dense", x[starts]))
    return linear("classifier", pooled)[:, 0]


def _normalise(x: Float32Array) -> Float32Array:
    """Layer normalisation without scale and shift, which are 1 and 0 in a seeded model."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled: Float32Array = centred / np.sqrt(
        np.square(centred).mean(axis=-1, keepdims=True) + np.float32(_EPSILON)
    )
    return scaled
