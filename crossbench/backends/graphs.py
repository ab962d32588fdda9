"""What the engines that build a graph of the encoder have in common."""

from __future__ import annotations

from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder

_POOLED_IN_GRAPH = frozenset({"cls", "mean"})


def check_graph_pools(backend: str, model: ModelFolder) -> None:
    """Refuse a sentence-transformer whose pooling the graphs do not have.

    Raises:
        ModelError: names the pooling and the backends that have it.
    """
    modes = () if model.embedding is None else model.embedding.modes
    if missing := [mode for mode in modes if mode not in _POOLED_IN_GRAPH]:
        raise ModelError(
            f"backend={backend} pools by {' or '.join(sorted(_POOLED_IN_GRAPH))}, and {model.name} "
            f"by {', '.join(missing)}: use backend=pytorch, packed or compiled"
        )
