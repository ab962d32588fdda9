"""The baseline of a sweep: `baseline={backend:pytorch,quant:fp32}` names one of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossbench.errors import ConfigError
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.flatten import flatten_text

EXAMPLE = "baseline={backend:pytorch,quant:fp32}"


def check_own_baseline(cells: Sequence[CellConfig]) -> None:
    """Check the `baseline` that the cells of a sweep have in common; see `check_baseline`."""
    check_baseline(cells[0].document.get("baseline"), cells)


def check_baseline(baseline: Any, cells: Sequence[CellConfig]) -> None:
    """Check that `baseline` names exactly one of the cells; their repeats count as one cell.

    Raises:
        ConfigError: it is not a mapping, has a key that cells do not have, or matches no cell or
            several.
    """
    if baseline is None:
        return
    if not isinstance(baseline, Mapping) or not baseline:
        raise ConfigError(
            f"baseline={baseline} does not name a cell: give the values of its axes, such as "
            f"'{EXAMPLE}'. The quotes keep the shell from expanding the braces"
        )
    wanted = flatten_text(baseline)
    for key in wanted:
        if not any(key in cell.texts for cell in cells):
            raise ConfigError(
                f"baseline has the key {key}, which no cell of this sweep has: give keys of the "
                f"command line, such as {EXAMPLE}"
            )
    matching = {cell.cell_id for cell in cells if is_baseline(baseline, cell.texts)}
    if len(matching) == 1:
        return
    asked = ", ".join(f"{key}={value}" for key, value in wanted.items())
    if matching:
        raise ConfigError(
            f"baseline ({asked}) matches {len(matching)} cells of this sweep: give more of its "
            f"axes, such as {EXAMPLE}"
        )
    measured = {
        key: ", ".join(dict.fromkeys(cell.texts[key] for cell in cells if key in cell.texts))
        for key in wanted
    }
    values = "; ".join(f"{key}: {texts}" for key, texts in measured.items())
    raise ConfigError(
        f"baseline ({asked}) matches no cell of this sweep, which has {values}: give one of these"
    )


def is_baseline(baseline: Mapping[str, Any], texts: Mapping[str, str]) -> bool:
    """Return whether the values (by dotted key, as text) are those that `baseline` names."""
    return all(texts.get(key) == text for key, text in flatten_text(baseline).items())
