"""Find out how another server's scores relate to the reference's: the same scale, sigmoids, logits.

Rerankers give raw logits or their sigmoids, and a server may do the other of what the library does.
The ranking is the same, so drift is then measured between sigmoids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from crossbench.types import Float32Array

Values: TypeAlias = NDArray[np.float64]
# A relation holds if the median difference on one scale is below this share of the spread
_MOST_DIFFERENCE = 0.1


class Scale(StrEnum):
    """How a server's scores relate to the reference's."""

    SAME = "same"
    SIGMOID = "sigmoid"  # the server's are sigmoids of the reference's
    LOGIT = "logit"  # the reference's are sigmoids of the server's
    OTHER = "other"  # only the rankings can be compared


_TEXTS = {
    Scale.SAME: "its scores have the reference's scale",
    Scale.SIGMOID: "its scores are sigmoids of the reference's logits, so both are compared as "
    "sigmoids",
    Scale.LOGIT: "its scores are logits, of which the reference's are the sigmoids, so both are "
    "compared as sigmoids",
    Scale.OTHER: "its scores are not near the reference's, nor near their sigmoids or logits, so "
    "only the rankings are compared",
}


@dataclass(frozen=True, slots=True)
class Matched:
    """Scores of both on one scale, one float32 array per list.

    With Scale.OTHER they are as they were given.
    """

    scale: Scale
    served: tuple[Float32Array, ...]
    reference: tuple[Float32Array, ...]

    @property
    def text(self) -> str:
        """The relation as a clause: `its scores have the reference's scale`."""
        return _TEXTS[self.scale]


def match_scales(served: Sequence[Float32Array], reference: Sequence[Float32Array]) -> Matched:
    """Return both on the scale on which they differ least, if they then differ little.

    `served` and `reference` have the scores of the same lists, each (n,).
    """
    if not served:
        return Matched(Scale.SAME, (), ())
    ours, theirs = _joined(reference), _joined(served)
    differences = {
        Scale.SAME: _difference(theirs, ours),
        Scale.SIGMOID: _difference(theirs, sigmoid(ours)),
        Scale.LOGIT: _difference(sigmoid(theirs), ours),
    }
    scale = min(differences, key=differences.__getitem__)
    if not differences[scale] < _MOST_DIFFERENCE:
        return Matched(Scale.OTHER, tuple(served), tuple(reference))
    of_served = sigmoid if scale is Scale.LOGIT else _as_given
    of_reference = sigmoid if scale is Scale.SIGMOID else _as_given
    return Matched(scale, _each(of_served, served), _each(of_reference, reference))


def sigmoid(values: Values) -> Values:
    """Return 1 / (1 + exp(-values)), without overflow."""
    result: Values = 0.5 * (1.0 + np.tanh(0.5 * values))
    return result


def _difference(first: Values, second: Values) -> float:
    """Return the median difference as a share of the spread of the second; infinite without one."""
    spread = float(second.std())
    return float(np.median(np.abs(first - second))) / spread if spread > 0 else np.inf


def _as_given(values: Values) -> Values:
    return values


def _joined(lists: Sequence[Float32Array]) -> Values:
    return np.concatenate(lists).astype(np.float64)


def _each(
    change: Callable[[Values], Values], lists: Sequence[Float32Array]
) -> tuple[Float32Array, ...]:
    return tuple(change(values.astype(np.float64)).astype(np.float32) for values in lists)
