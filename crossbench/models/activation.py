"""The activation function that turns a cross-encoder's logit into its score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder
from crossbench.types import Float32Array

Activation = Callable[[Float32Array], Float32Array]


def identity(logits: Float32Array) -> Float32Array:
    return logits


def sigmoid(logits: Float32Array) -> Float32Array:
    # The tanh form does not overflow, as exp(-x) can
    return np.asarray(0.5 * (np.tanh(0.5 * logits) + 1.0), dtype=np.float32)


# All dotted paths under which the two can be imported
_KNOWN: dict[str, Activation] = {
    "torch.nn.modules.linear.Identity": identity,
    "torch.nn.modules.Identity": identity,
    "torch.nn.Identity": identity,
    "torch.nn.modules.activation.Sigmoid": sigmoid,
    "torch.nn.modules.Sigmoid": sigmoid,
    "torch.nn.Sigmoid": sigmoid,
}


def activation_of(folder: ModelFolder) -> Activation:
    """Return the folder's activation, an elementwise function on float32 arrays of any shape.

    sentence-transformers 6 stores it in config_sentence_transformers.json, versions 4 and 5 in
    config.json under `sentence_transformers.activation_fn`, and older versions under
    `sbert_ce_default_activation_function`. If none is stored, the library applies a sigmoid to a
    single label. The MS MARCO models store the identity. An embedder always uses the identity.

    Raises:
        ModelError: the folder names a function other than the identity or the sigmoid.
    """
    if folder.embedding is not None:
        return identity
    path = folder.layout.activation or _in_config(folder.config)
    if path is None:
        return sigmoid
    if path not in _KNOWN:
        raise ModelError(
            f"{folder.path} uses the activation {path!r}, but crossbench supports only "
            "torch.nn.modules.linear.Identity and torch.nn.modules.activation.Sigmoid: set "
            "activation_fn in config_sentence_transformers.json, or sentence_transformers."
            "activation_fn in config.json, to one of them"
        )
    return _KNOWN[path]


def _in_config(config: Mapping[str, Any]) -> str | None:
    stored = config.get("sentence_transformers")
    if isinstance(stored, Mapping) and "activation_fn" in stored:
        path = stored["activation_fn"]
    else:
        path = config.get("sbert_ce_default_activation_function")
    return None if path is None else str(path)
