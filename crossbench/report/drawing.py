"""Plots that fail cost themselves, not the report; and matplotlib without the user's settings."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

Draw: TypeAlias = Callable[[], Path]  # draws one plot; the path of its PNG
_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Plots:
    """What could be drawn: {title: PNG}, and what could not: {title: why}."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def markdown(self, folder: Path) -> list[str]:
        """A picture for every plot, its path relative to `folder`, and a note for a missing one."""
        pictures = [
            f"![{title}]({path.relative_to(folder).as_posix()})"
            for title, path in self.paths.items()
        ]
        notes = [f"> **Missing plot:** {title}: {why}" for title, why in self.missing.items()]
        return pictures + notes


def draw(plan: Callable[[], Mapping[str, Draw]]) -> Plots:
    """Draw every plot that `plan` names; one that fails is missing, with its reason.

    `plan` may import what needs matplotlib: where that cannot be imported, all plots are missing.
    """
    paths, missing = {}, {}
    try:
        load_matplotlib()
        planned = plan()
    except Exception as error:
        return Plots(missing={"all": _reason(error)})
    for title, draw_one in planned.items():
        try:
            paths[title] = draw_one()
        except Exception as error:
            missing[title] = _reason(error)
    return Plots(paths, missing)


def load_matplotlib() -> None:
    """Import matplotlib, if need be without settings of the user's that it refuses.

    It reads a matplotlibrc (of the current directory first) and MPLBACKEND when it is imported.
    What can be read stays in force for others in this process, such as a notebook.
    """
    if "matplotlib.font_manager" in sys.modules:
        return
    with _quiet("matplotlib"):  # of keys that it does not know, of caches that it makes
        try:
            import matplotlib.font_manager
        except (ValueError, OSError):
            half = [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]
            for name in half:  # else the second import would not meet what the first has left
                del sys.modules[name]
            with _without_settings():
                import matplotlib.font_manager  # noqa: F401


@contextlib.contextmanager
def _without_settings() -> Iterator[None]:
    """No MPLBACKEND, and matplotlib's own matplotlibrc in the current directory."""
    backend = os.environ.pop("MPLBACKEND", None)
    spec = find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    try:
        with contextlib.chdir(Path(spec.origin).parent / "mpl-data"):
            yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return words if len(words) <= _REASON_CHARACTERS else words[: _REASON_CHARACTERS - 1] + "…"
