"""`python -m crossbench`: measure one cell, or a sweep with `-m`."""

from crossbench.system.stop_signals import end_at_once_until_handled


def main() -> None:
    """Run the command. Its imports take half a second, in which Ctrl-C may come already."""
    end_at_once_until_handled()
    from crossbench.settings.launch import launch
    from crossbench.sweeps.task import run_job

    launch(run_job)


if __name__ == "__main__":
    main()
