"""backend=compiled: the padding-free encoder, with everything but attention in torch.compile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossbench.backends.availability import Missing
from crossbench.backends.devices import missing_compiler
from crossbench.backends.packed import PackedBackend
from crossbench.backends.pytorch import sample_batch
from crossbench.types import Quant

if TYPE_CHECKING:
    from crossbench.models.encoder import MakeFeedForward


@dataclass
class CompiledBackend(PackedBackend):
    """Compiles the part of each layer after attention; `mode` is passed to torch.compile.

    All layers and any number of tokens share one graph, so it compiles once, in seconds. Compiled
    code is cached under the deployment's cache folder and shared by all cells.
    """

    mode: str

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        return super().missing(quant, device) or missing_compiler(device)

    def _feed_forward(self) -> MakeFeedForward:
        from crossbench.models.fused import Fused

        cache = self.deployment.cache_dir / "inductor"
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
        return Fused(self.mode).make

    def warmup(self, lengths: Sequence[int]) -> None:
        # torch.compile treats a single row as a separate shape; a single pair has one CLS row
        for sizes in (lengths, lengths[:1], lengths):
            self.infer(sample_batch(sizes))
