"""A check shared by the engines that build a graph of the encoder."""

from __future__ import annotations

from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder

_POOLED_IN_GRAPH = frozenset({"cls", "mean"})


def check_graph_pools(backend: str, model: ModelFolder) -> None:
    """Refuse a sentence-transformer whose pooling mode the graphs do not implement.

    Raises:
        ModelError: the message names the pooling mode and the backends that implement it.
    """
    modes = () if model.embedding is None else model.embedding.modes
    if missing := [mode for mode in modes if mode not in _POOLED_IN_GRAPH]:
        raise ModelError(
            f"backend={backend} supports the pooling modes "
            f"{' and '.join(sorted(_POOLED_IN_GRAPH))}, but {model.name} uses "
            f"{', '.join(missing)}: use backend=pytorch, packed or compiled"
        )
