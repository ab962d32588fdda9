"""Calls a backend: checks what it returns, and halves a batch that does not fit in memory."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from crossbench.backends.base import Backend
from crossbench.errors import CrossbenchError, OutOfMemory, WorkerDied
from crossbench.types import Float32Array, Inference, TokenBatch
from crossbench.wording import error_text

log = logging.getLogger(__name__)

# How engines word it: torch on CPU, CUDA and MPS, cuBLAS, onnxruntime, C++, JAX
_OUT_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|can.t allocate memory|cannot allocate memory"
    r"|failed to allocate memory|alloc_failed|bad_alloc|bad allocation|RESOURCE_EXHAUSTED",
    re.IGNORECASE,
)


@dataclass
class Computing:
    """Computes batches with a loaded backend. Up to `backend.workers` threads may use it."""

    backend: Backend
    _told: bool = field(default=False, init=False)

    def infer(self, batch: TokenBatch) -> Inference:
        """Compute a batch, in halves as long as it does not fit in memory.

        Raises:
            OutOfMemory: one sequence alone does not fit.
            WorkerDied: the backend raised anything, SystemExit included, or returned no float32
                values of shape (n,), or (n, dim) for an embedding model.
            CrossbenchError: the backend raised this error.
        """
        try:
            return self._checked(self.backend.infer(batch), len(batch))
        except CrossbenchError:
            raise
        except BaseException as error:
            reason = error_text(error)
            if not _is_out_of_memory(error):
                log.exception("the backend failed on a batch of %d sequences", len(batch))
                raise WorkerDied(f"the worker failed: {reason}") from error
        # Outside the handler, whose exception keeps the memory of the failed call
        return self._in_halves(batch, reason)

    def _in_halves(self, batch: TokenBatch, reason: str) -> Inference:
        if len(batch) == 1:
            raise OutOfMemory(
                f"a text of {batch.total_tokens} tokens alone does not fit in the memory of "
                f"{self.backend.device} ({reason}): send shorter texts, or use a smaller model, a "
                "lower precision or fewer workers"
            )
        if not self._told:
            self._told = True
            log.warning(
                "a batch of %d sequences and %d tokens did not fit in memory (%s). It is computed "
                "in halves, and so are later ones, without another warning. Lower "
                "scheduler.max_batch_tokens or scheduler.max_batch_pairs to avoid the failed "
                "attempts",
                *(len(batch), batch.total_tokens, reason),
            )
        middle = len(batch) // 2
        first = self.infer(batch.select(np.arange(middle)))
        second = self.infer(batch.select(np.arange(middle, len(batch))))
        return Inference(
            np.concatenate([first.values, second.values]),
            first.tokens_computed + second.tokens_computed,
        )

    def _checked(self, inference: Inference, count: int) -> Inference:
        if not isinstance(inference, Inference):
            raise _wrong(f"{type(inference).__name__}", "an Inference")
        values, dim = inference.values, self._dim
        if not (isinstance(values, np.ndarray) and values.dtype == np.float32):
            raise _wrong(_describe(values), "float32 values in a NumPy array")
        # The service cuts a vector that is longer than `dim`
        fits = values.ndim == 2 and values.shape[1] >= dim if dim else values.ndim == 1
        if not fits or len(values) != count:
            expected = f"({count}, {dim})" if dim else f"({count},)"
            raise _wrong(_describe(values), f"shape {expected}, one row per sequence")
        if not isinstance(inference.tokens_computed, int | np.integer):
            raise _wrong(f"tokens_computed={inference.tokens_computed!r}", "a whole number of them")
        return inference

    @cached_property
    def _dim(self) -> int:
        return self.backend.deployment.model.embedding_dim


def _wrong(found: str, expected: str) -> WorkerDied:
    return WorkerDied(f"the backend returned {found}: its infer() must return {expected}")


def _describe(values: Float32Array) -> str:
    if not isinstance(values, np.ndarray):
        return f"values of type {type(values).__name__}"
    return f"{values.dtype} values of shape {values.shape}"


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or bool(
        isinstance(error, Exception) and _OUT_OF_MEMORY.search(str(error))
    )
