"""The function between a cross-encoder's logit and its score, as the model's config says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from crossbench.errors import ModelError
from crossbench.types import Float32Array

Activation = Callable[[Float32Array], Float32Array]


def identity(logits: Float32Array) -> Float32Array:
    return logits


def sigmoid(logits: Float32Array) -> Float32Array:
    # tanh does not overflow where exp(-x) would
    return np.asarray(0.5 * (np.tanh(0.5 * logits) + 1.0), dtype=np.float32)


def activation_of(config: Mapping[str, Any]) -> Activation:
    """The activation that config.json names, elementwise on float32 of any shape.

    sentence-transformers stores it under `sentence_transformers.activation_fn` (before version 4:
    `sbert_ce_default_activation_function`) and takes a sigmoid for one label where nothing is
    stored; the ms-marco models store the identity.

    Raises:
        ModelError: the config names a function other than these two.
    """
    stored = config.get("sentence_transformers")
    path = stored.get("activation_fn") if isinstance(stored, Mapping) else None
    path = path or config.get("sbert_ce_default_activation_function")
    if path is None:
        return sigmoid if _labels(config) == 1 else identity
    known = {"Identity": identity, "Sigmoid": sigmoid}
    name = str(path).rsplit(".", 1)[-1]
    if name not in known:
        raise ModelError(
            f"config.json names the activation {path}, which is none of {', '.join(known)}: "
            "set sentence_transformers.activation_fn in config.json to one of them"
        )
    return known[name]


def _labels(config: Mapping[str, Any]) -> int:
    labels = config.get("id2label")
    return len(labels) if labels else int(config.get("num_labels", 2))
