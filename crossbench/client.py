"""`python -m crossbench.client server.address=HOST:PORT`: measure a running server, with the same
load and reports as `python -m crossbench`."""

from crossbench.settings.launch import launch
from crossbench.sweeps.task import run_job

if __name__ == "__main__":
    launch(run_job, choices=["hydra/help=client", "target=remote", "server=remote"])
