"""Detection of NaN and infinite values, which server and client both reject."""

from __future__ import annotations

import grpc
import numpy as np

from crossbench.backends.base import Backend
from crossbench.errors import NonFiniteValues
from crossbench.types import Float32Array, Quant
from crossbench.wording import counted

# Status of a request with non-finite values. gRPC itself never generates this code.
NON_FINITE = grpc.StatusCode.DATA_LOSS


def count_non_finite(values: Float32Array) -> str:
    """Describe how many scores (n,) or vectors (n, dim) are not finite; "" if all are finite."""
    finite = np.isfinite(values)
    if finite.all():
        return ""
    found = values.size - int(np.count_nonzero(finite))
    if values.ndim == 1:
        return f"{found:,} of {counted(values.size, 'score')}"
    rows = len(values) - int(np.count_nonzero(finite.all(axis=1)))
    return f"{found:,} of {values.size:,} numbers in {rows:,} of {counted(len(values), 'vector')}"


def check_finite(values: Float32Array, model: str, backend: Backend) -> None:
    """Check the values that `backend` computed for one request to `model` (a name).

    Raises:
        NonFiniteValues: a value is NaN or infinite.
    """
    if np.isfinite(values).all():
        return
    quant = backend.deployment.quant
    if quant is Quant.FP16:
        advice = "numbers above 65,504 overflow in fp16, use quant=bf16 or quant=fp32"
    elif quant is Quant.FP32:
        advice = "check that the weights are complete and finite, for example download them again"
    else:
        advice = "use quant=fp32 to find out whether the model itself is the cause"
    raise NonFiniteValues(
        f"{count_non_finite(values)} of model {model} are NaN or infinite with "
        f"backend={backend.name} quant={quant}: {advice}"
    )
