"""`python -m crossbench`: one cell; with `-m`, a sweep."""

from crossbench.settings.launch import launch
from crossbench.sweep.task import run_job

if __name__ == "__main__":
    launch(run_job)
