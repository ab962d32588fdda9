"""crossbench: measure how fast, how steadily and how faithfully a reranker can be served.

For notebooks: `load_sweep`, `load_runs`, `load_requests`, `load_quality` and `latest_sweep` read
results as pandas frames; `crossbench.notebook` has their tables and plots.
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
    """The measured process imports this package too, so pandas comes only with its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "notebook":
        from crossbench.analysis import notebook

        return notebook
    from crossbench.analysis import frames

    return getattr(frames, name)
