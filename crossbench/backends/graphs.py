"""A check shared by the engines that build a graph of the encoder."""

from __future__ import annotations

from collections.abc import Sequence

from crossbench.backends.pytorch import sample_batch
from crossbench.backends.streams import Streams
from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder
from crossbench.types import DeviceMemory, Inference, TokenBatch

_POOLED_IN_GRAPH = frozenset({"cls", "mean"})


class GraphEngine:
    """What an engine does after load_model() has set `_running` and `_model_mb`."""

    _running: Streams | None = None
    _model_mb: float | None = None

    @property
    def workers(self) -> int:
        """Two: while one caller waits for its last group, the other's groups fill the streams."""
        return 2

    def warmup(self, lengths: Sequence[int]) -> None:
        self.infer(sample_batch(lengths))
        self.infer(sample_batch(lengths[:1]))

    def infer(self, batch: TokenBatch) -> Inference:
        assert self._running is not None, "load_model() comes first"
        return self._running.infer(batch)

    def memory(self) -> DeviceMemory:
        return DeviceMemory(model_mb=self._model_mb)

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
        self._running = self._model_mb = None


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
