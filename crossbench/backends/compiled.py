"""backend=compiled: the same padded forward through torch.compile, with dynamic shapes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crossbench.backends.pytorch import PyTorchBackend, sample_batch
from crossbench.errors import BackendUnavailable


@dataclass
class CompiledBackend(PyTorchBackend):
    """torch.compile of transformers' forward; `mode` is torch.compile's own option.

    Compiled code is kept under the deployment's cache folder and shared by all cells.
    """

    mode: str

    def load_model(self) -> None:
        import torch

        cache = self.deployment.cache_dir / "inductor"
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
        super().load_model()
        if self._device is not None and self._device.type == "cpu":
            require_cpp_compiler()
        self._compiled: Any = torch.compile(self._model, mode=self.mode, dynamic=True)
        self._model = self._compiled

    def warmup(self, lengths: Sequence[int]) -> None:
        # Sizes 0 and 1 are special to torch.compile, so a single sequence compiles on its own
        self.infer(sample_batch(lengths))
        self.infer(sample_batch(lengths[:1]))
        self.infer(sample_batch(lengths))


def require_cpp_compiler() -> None:
    """torch.compile writes C++ for the CPU.

    Raises:
        BackendUnavailable: no C++ compiler is found.
    """
    from torch._inductor import exc
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise BackendUnavailable(
            "torch.compile needs a C++ compiler on a CPU and finds none: install one (Debian: "
            "apt-get install g++; macOS: xcode-select --install), or set CXX to yours"
        ) from error
