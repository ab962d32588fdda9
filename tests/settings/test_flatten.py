"""Values of a config as parts of a cell's name."""

from __future__ import annotations

import pytest

from crossbench.settings.flatten import value_text


@pytest.mark.parametrize(
    ("axis", "value", "text"),
    [
        ("backend", "pytorch", "pytorch"),
        ("device", "cuda:1", "cuda:1"),
        ("quality", "none", "quality=none"),
        ("model", "2024", "model=2024"),
        ("batch", "32", "batch=32"),
        ("batch", "abc", "batch=abc"),
        ("pipeline", "tokenize", "pipeline=tokenize"),
        ("pool.routing", "round_robin", "routing=round_robin"),
        ("load.models", '["a", "b"]', 'models=["a", "b"]'),
    ],
)
def test_a_value_that_is_not_clear_alone_has_its_key(axis: str, value: str, text: str) -> None:
    assert value_text(axis, {axis: value}) == text


def test_a_missing_value_is_a_dash() -> None:
    assert value_text("backend", {}) == "backend=–"
