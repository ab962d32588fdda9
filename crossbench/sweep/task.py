"""Hydra's task, imported only where a cell runs: `--help` and a refused typo need none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_job(config: DictConfig) -> None:
    """Measure the composed cell, track it, report it; see `crossbench.sweep.job`."""
    from crossbench.sweep import job

    job.run_job(config)
