"""Load a backend with the options of its YAML file."""

from __future__ import annotations

from pathlib import Path

from crossbench.backends.base import Backend, Deployment
from crossbench.models.folder import ModelFolder
from crossbench.types import Quant
from tests.helpers.plans import plan_of


def backend(name: str, model: ModelFolder, cache_dir: Path, quant: Quant = Quant.FP32) -> Backend:
    """Return a loaded backend with the options of its YAML file."""
    plan = plan_of(f"backend={name}", cache_dir=cache_dir)
    made: Backend = plan.backend.build(deployment=Deployment(model, quant, "cpu", 2, cache_dir))
    made.load_model()
    return made
