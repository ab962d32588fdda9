"""The scale of another server's scores: recognised, or only the rankings are compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from crossbench.measure.score_scale import Scale, match_scales, sigmoid

RNG = np.random.default_rng(0)
LOGITS = [RNG.normal(-3, 5, 20).astype(np.float32) for _ in range(10)]
Change = Callable[[NDArray[np.float32]], NDArray[np.floating]]


def noisy(values: NDArray[np.float32]) -> NDArray[np.floating]:
    """Return logits as int8 may give them."""
    return values + np.random.default_rng(1).normal(0, 0.3, len(values))


@pytest.mark.parametrize(
    ("served", "reference", "scale"),
    [
        (lambda x: x, lambda x: x, Scale.SAME),
        (noisy, lambda x: x, Scale.SAME),
        (sigmoid, sigmoid, Scale.SAME),
        (sigmoid, lambda x: x, Scale.SIGMOID),
        (lambda x: sigmoid(noisy(x)), lambda x: x, Scale.SIGMOID),
        (lambda x: sigmoid(sigmoid(x)), sigmoid, Scale.SIGMOID),
        (lambda x: x, sigmoid, Scale.LOGIT),
        (lambda x: 100 * x, lambda x: x, Scale.OTHER),
        (lambda x: x[::-1], lambda x: x, Scale.OTHER),
    ],
)
def test_scales(served: Change, reference: Change, scale: Scale) -> None:
    theirs = [served(values).astype(np.float32) for values in LOGITS]
    ours = [reference(values).astype(np.float32) for values in LOGITS]
    found = match_scales(theirs, ours)
    assert found.scale is scale
    differences = np.abs(np.concatenate(found.served) - np.concatenate(found.reference))
    if scale is Scale.OTHER:
        assert found.served == tuple(theirs)
    elif served is not noisy:
        assert np.median(differences) < 0.05
    for before, after in zip(theirs, found.served, strict=True):  # the order stays
        assert (np.argsort(before) == np.argsort(after)).all()


def test_nothing_to_compare() -> None:
    assert match_scales([], []).scale is Scale.SAME
    constant = [np.ones(3, dtype=np.float32)]
    assert match_scales(constant, constant).scale is Scale.OTHER
