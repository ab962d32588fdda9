"""`python -m crossbench`: measure one cell, or a sweep with `-m`."""

from crossbench.settings.launch import launch
from crossbench.sweep.task import run_job

if __name__ == "__main__":
    launch(run_job)
