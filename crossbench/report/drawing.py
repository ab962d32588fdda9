"""Draw plots so that a failure does not break the report, and import matplotlib safely."""

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

from crossbench.wording import error_text

Draw: TypeAlias = Callable[[], Path]  # draws one plot and returns the path of its PNG
_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Plots:
    """Drawn plots {title: path of the PNG}, and missing ones {title: reason}."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def markdown(self, folder: Path) -> list[str]:
        """Markdown images with paths relative to `folder`, and a note for each missing plot."""
        pictures = [
            f"![{title}]({path.relative_to(folder).as_posix()})"
            for title, path in self.paths.items()
        ]
        notes = [f"> **Missing plot:** {title}: {why}" for title, why in self.missing.items()]
        return pictures + notes


def draw(plan: Callable[[], Mapping[str, Draw]]) -> Plots:
    """Draw every plot that `plan` returns; a plot that fails is listed as missing, with the reason.

    `plan` may import modules that need matplotlib. If the import fails, all plots are missing.
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
    """Import matplotlib, ignoring the user's settings if they are invalid.

    On import, it reads a matplotlibrc (first from the current directory) and MPLBACKEND. Valid
    settings stay in force for other users in this process, such as a notebook.
    """
    if "matplotlib.font_manager" in sys.modules:
        return
    with _quiet("matplotlib"):  # warnings about unknown keys and new caches
        try:
            import matplotlib.font_manager
        except (ValueError, OSError):
            partly_loaded = [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]
            for name in partly_loaded:  # the second import must start afresh
                del sys.modules[name]
            with _without_settings():
                import matplotlib.font_manager  # noqa: F401


@contextlib.contextmanager
def _without_settings() -> Iterator[None]:
    """Unset MPLBACKEND and change to the folder of matplotlib's own matplotlibrc."""
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
    reason = error_text(error)
    return reason if len(reason) <= _REASON_CHARACTERS else reason[: _REASON_CHARACTERS - 1] + "…"
