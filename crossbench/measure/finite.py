"""Refuse values that are NaN or infinite before a statistic hides them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossbench.errors import NonFiniteValues


def check_finite(values: NDArray[np.floating[Any]], what: str) -> None:
    """Check that all values are finite; `what` names them in the error message.

    Raises:
        NonFiniteValues: a value is NaN or infinite.
    """
    finite = np.isfinite(values)
    if not finite.all():
        count = values.size - int(np.count_nonzero(finite))
        raise NonFiniteValues(
            f"{count:,} of {values.size:,} {what} are NaN or infinite, so the ranking is "
            "undefined: look for an overflow, for example in fp16, and use bf16 or fp32"
        )
