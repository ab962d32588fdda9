"""Hydra's task, which imports the rest of the sweep late: `--help` and a typo stay quick."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_job(config: DictConfig) -> float | None:
    """Call `crossbench.sweeps.job.run_job`."""
    from crossbench.sweeps import job

    return job.run_job(config)
