"""The model families that our own encoder supports, and the names of their tensors and sizes.

All have the same architecture: learned positions, post-norm layers and erf GELU. They differ in
tensor names, in the first position id and in the dense head of a cross-encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder

HeadActivation = Literal["tanh", "gelu", "relu"]


@dataclass(frozen=True)
class Family:
    """Names of tensors in model.safetensors and of sizes in config.json.

    The names of a layer's parts follow `<prefix><layers>.<index>.`. The names of the head have no
    prefix, except `dense` if `pooler_inside` is True. With `offset`, position ids start after the
    padding id.
    """

    prefix: str
    layers: str
    query: str
    key: str
    value: str
    attention_out: str
    attention_norm: str
    up: str
    down: str
    out_norm: str
    has_types: bool
    offset: bool
    dense: str
    pooler_inside: bool
    activation: HeadActivation
    classifier: str
    head_count: str
    hidden_act: str


_BERT = Family(
    prefix="bert.",
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    out_norm="output.LayerNorm",
    has_types=True,
    offset=False,
    dense="pooler.dense",
    pooler_inside=True,
    activation="tanh",
    classifier="classifier",
    head_count="num_attention_heads",
    hidden_act="hidden_act",
)
_HEAD_OUTSIDE = replace(
    _BERT, dense="classifier.dense", classifier="classifier.out_proj", pooler_inside=False
)
_ROBERTA = replace(_HEAD_OUTSIDE, prefix="roberta.", offset=True)
_FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "electra": replace(_HEAD_OUTSIDE, prefix="electra.", activation="gelu"),
    "distilbert": Family(
        prefix="distilbert.",
        layers="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_out="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        out_norm="output_layer_norm",
        has_types=False,
        offset=False,
        dense="pre_classifier",
        pooler_inside=False,
        activation="relu",
        classifier="classifier",
        head_count="n_heads",
        hidden_act="activation",
    ),
}


def known_family(config: Mapping[str, Any]) -> Family | None:
    """Return the family that config.json names, or None if our encoder does not support it."""
    return _FAMILIES.get(str(config.get("model_type")))


def has_encoder(folder: ModelFolder) -> bool:
    """Whether our own encoder supports this model; otherwise transformers' forward pass is used."""
    return _difference(folder) is None


def family_of(folder: ModelFolder) -> Family:
    """Return the family of a model that our own encoder supports.

    Raises:
        ModelError: our encoder does not support the model; the message names the setting that
            differs and the backends that support it.
    """
    difference = _difference(folder)
    if difference is not None:
        key, given = difference
        raise ModelError(
            f"{folder.path}: config.json has {key} = {given!r}, which crossbench's own encoder "
            f"does not support (it supports {', '.join(_FAMILIES)} with erf GELU and absolute "
            "positions): use backend=pytorch, or backend=packed, which then runs transformers' "
            "own forward pass"
        )
    return _FAMILIES[folder.config["model_type"]]


def _difference(folder: ModelFolder) -> tuple[str, object] | None:
    """Return the first (key, value) of config.json that our encoder does not support, or None."""
    config = folder.config
    family = known_family(config)
    if family is None:
        return "model_type", config.get("model_type")
    facts: tuple[tuple[str, Any, bool], ...] = (
        (family.hidden_act, config.get(family.hidden_act), config.get(family.hidden_act) == "gelu"),
        (
            "position_embedding_type",
            config.get("position_embedding_type"),
            config.get("position_embedding_type") in (None, "absolute"),
        ),
        ("is_decoder", config.get("is_decoder"), not config.get("is_decoder")),
        (
            "embedding_size",
            config.get("embedding_size"),
            config.get("embedding_size") in (None, config.get("hidden_size")),
        ),
    )
    return next(((key, given) for key, given, fits in facts if not fits), None)
