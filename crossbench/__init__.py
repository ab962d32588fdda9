"""crossbench: measure the speed, the memory and the ranking quality of a served reranker.

For notebooks: `load_sweep`, `load_runs`, `load_requests` and `load_quality` return pandas frames,
`latest_sweep` returns the folder of the newest sweep, `crossbench.notebook` has tables and plots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossbench.analysis import notebook
    from crossbench.analysis.frames import (
        latest_sweep,
        load_quality,
        load_requests,
        load_runs,
        load_sweep,
    )

__all__ = ["latest_sweep", "load_quality", "load_requests", "load_runs", "load_sweep", "notebook"]


def __getattr__(name: str) -> Any:
    """Import pandas only when it is needed: the cell process imports this package too."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "notebook":
        from crossbench.analysis import notebook

        return notebook
    from crossbench.analysis import frames

    return getattr(frames, name)
