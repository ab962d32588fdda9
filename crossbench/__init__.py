"""crossbench: measure the speed, the memory and the ranking quality of a served reranker.

`run` and `sweep` measure, `Client` and `AsyncClient` talk to a server. For notebooks: `load_sweep`,
`load_runs`, `load_requests` and `load_quality` return pandas frames, `latest_sweep` returns the
folder of the newest sweep, `crossbench.notebook` has tables and plots.
"""

from __future__ import annotations

from importlib import import_module
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
    from crossbench.analysis.measuring import run, sweep
    from crossbench.serving.python_client import AsyncClient, Client, Ranked

    __version__: str

__all__ = [
    "AsyncClient", "Client", "Ranked", "__version__", "latest_sweep", "load_quality",
    "load_requests", "load_runs", "load_sweep", "notebook", "run", "sweep",
]  # fmt: skip

_MODULES = {
    "AsyncClient": "serving.python_client",
    "Client": "serving.python_client",
    "Ranked": "serving.python_client",
    "run": "analysis.measuring",
    "sweep": "analysis.measuring",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and only then: the cell process imports this package too."""
    if name == "__version__":
        from importlib.metadata import version

        return version("crossbench")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "notebook":
        return import_module("crossbench.analysis.notebook")
    return getattr(import_module(f"crossbench.{_MODULES.get(name, 'analysis.frames')}"), name)
