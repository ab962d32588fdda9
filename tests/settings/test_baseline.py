"""The baseline of a sweep names exactly one of its cells."""

from __future__ import annotations

from typing import Any

import pytest

from crossbench.errors import ConfigError
from crossbench.settings.baseline import check_baseline
from crossbench.settings.cell_config import CellConfig


def cells() -> list[CellConfig]:
    return [
        CellConfig(
            {
                "backend": {"name": backend},
                "batch": batch,
                "repeat": repeat,
                "pool": {"name": "threads", "pin": batch == 32},
            }
        )
        for repeat in (1, 2)
        for backend in ("pytorch", "onnx")
        for batch in (8, 32)
    ]


@pytest.mark.parametrize(
    "baseline",
    [
        None,
        {"backend": "onnx", "batch": 8},
        {"batch": "32", "backend": "pytorch"},
        {"backend": "onnx", "pool.pin": True},
        {"backend": "onnx", "pool": {"pin": False}},
    ],
)
def test_a_baseline_is_one_cell(baseline: Any) -> None:
    check_baseline(baseline, cells())


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("pytorch", "baseline=pytorch does not name a cell: give the values of its axes"),
        ({"engine": "onnx"}, "baseline has the key engine, which no cell of this sweep has"),
        ({"backend": "onnx"}, "baseline \\(backend=onnx\\) matches 2 cells of this sweep"),
        ({"backend": "mlx"}, "matches no cell of this sweep, which has backend: pytorch, onnx"),
    ],
)
def test_other_baselines_are_refused(baseline: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_baseline(baseline, cells())
