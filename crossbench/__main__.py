"""`python -m crossbench`: one cell; with `-m`, a sweep."""

from crossbench.app import launch
from crossbench.sweep import run_job

if __name__ == "__main__":
    launch(run_job)
