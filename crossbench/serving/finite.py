"""NaN and infinite values of a model: how server and client refuse them."""

from __future__ import annotations

import grpc
import numpy as np

from crossbench.backends.base import Backend
from crossbench.errors import NonFiniteValues
from crossbench.types import Float32Array, Quant
from crossbench.wording import counted

# The status of a request whose values are not finite. gRPC itself never makes this code up.
NON_FINITE = grpc.StatusCode.DATA_LOSS


def count_non_finite(values: Float32Array) -> str:
    """How much of `values`, (n,) scores or (n, dim) vectors, is NaN or infinite; "" for nothing."""
    finite = np.isfinite(values)
    if finite.all():
        return ""
    found = values.size - int(np.count_nonzero(finite))
    if values.ndim == 1:
        return f"{found:,} of {counted(values.size, 'score')}"
    rows = len(values) - int(np.count_nonzero(finite.all(axis=1)))
    return f"{found:,} of {values.size:,} numbers in {rows:,} of {counted(len(values), 'vector')}"


def check_finite(values: Float32Array, model: str, backend: Backend) -> None:
    """Refuse what `backend` computed for one request of the model called `model`.

    Raises:
        NonFiniteValues: a value is NaN or infinite; it says how many and what to do.
    """
    if np.isfinite(values).all():
        return
    quant = backend.deployment.quant
    if quant is Quant.FP16:
        advice = "numbers above 65,504 overflow in fp16, use quant=bf16 or quant=fp32"
    elif quant is Quant.FP32:
        advice = "check that the model's weights are whole and finite, for example download it anew"
    else:
        advice = "use quant=fp32, which shows whether the model itself is sound"
    raise NonFiniteValues(
        f"{count_non_finite(values)} of model {model} are NaN or infinite with "
        f"backend={backend.name} quant={quant}: {advice}"
    )
