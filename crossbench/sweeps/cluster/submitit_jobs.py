"""Measure cells in jobs of submitit: of Slurm, each with a machine of its own, or local ones.

A job measures a block of cells, or a single one without repeats. Local jobs share the machine, so
there is one at a time. The folder of the sweep must be on a file system that all machines share.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from crossbench.sweeps.cluster.placement import Placement
from crossbench.sweeps.cluster.reception import Reception
from crossbench.sweeps.cluster.remote import CellCall
from crossbench.sweeps.cluster.spool import Spool, measure_all
from crossbench.sweeps.launchers import resources_of
from crossbench.system.stop_signals import raise_if_stopped

LOCAL, SLURM = "local", "slurm"
_LOOK_S = 0.5
_ASK_S = 60.0  # how often Slurm is asked which jobs are over; submitit itself waits ten minutes
_FILES_S = 20.0  # for the files of a job that has ended to be seen here: NFS delays them
_STOP_S = 40.0  # for cells to hand back what they have, after Ctrl-C
# Names of submitit that all executors know; others begin with that of the executor
_COMMON = frozenset(
    {
        "name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node",
        "tasks_per_node", "stderr_to_stdout",
    }
)  # fmt: skip
_NOT_FOR_SUBMITIT = frozenset({"_target_", "submitit_folder"})


@dataclass(slots=True)
class _Job:
    """A job of submitit, the cells that it has not ended, and since when it is over."""

    job: Any
    numbers: list[int]
    over_since: float | None = None


class SubmititJobs:
    """Measures cells in jobs. `kind` is the name of submitit's executor, `options` are its own."""

    def __init__(self, kind: str, folder: Path, options: Mapping[str, Any], together: int) -> None:
        self._kind, self._folder, self._options, self._together = kind, folder, options, together
        self._spool = Spool(folder.parent / "handed-back")
        self._begun: set[int] = set()

    @classmethod
    def of(cls, kind: str, config: DictConfig) -> SubmititJobs:
        """Return the jobs of a sweep with this config."""
        given = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        assert isinstance(given, dict)
        options = {
            str(key): value
            for key, value in given.items()
            if key not in _NOT_FOR_SUBMITIT and value is not None
        }
        gpus = int(resources_of(config).get("gpu", 0))
        if gpus:
            options.setdefault("gpus_per_node", gpus)
        # Slurm itself limits its jobs by array_parallelism
        together = 1 if kind == LOCAL else 10**6
        return cls(kind, Path(given["submitit_folder"]), options, together)

    def executor(self) -> Any:
        """Return the executor of submitit with the options.

        Raises:
            RuntimeError, ValueError: there is no Slurm here, or an option does not exist.
        """
        import submitit

        executor = submitit.AutoExecutor(folder=self._folder, cluster=self._kind)
        options = {
            key if key in _COMMON else f"{self._kind}_{key}": value
            for key, value in self._options.items()
        }
        if self._kind == SLURM:  # a cell uses all cores and all memory of its machine
            options.setdefault("slurm_srun_args", ["--cpu-bind=none"])
            if "mem_gb" not in options:
                more = options.get("slurm_additional_parameters", {})
                options["slurm_additional_parameters"] = {"mem": 0, **more}
        executor.update_parameters(**options)
        return executor

    def measure(self, placement: Placement, reception: Reception) -> None:
        """See `launch.Cluster`."""
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # for jobs' configs
        self._spool.create()
        jobs: list[_Job] = []
        asked = time.monotonic()
        try:
            while placement.waiting or jobs:
                raise_if_stopped()
                if placement.waiting and len(jobs) < self._together:
                    jobs += self._submit(placement, reception)
                time.sleep(_LOOK_S)
                if jobs and time.monotonic() - asked > _ASK_S:
                    jobs[0].job.done(force_check=True)  # asks about all jobs
                    asked = time.monotonic()
                for job in list(jobs):
                    self._follow(job, placement, reception)
                    if not job.numbers:
                        jobs.remove(job)
        except KeyboardInterrupt:
            self._stop(jobs, reception)
            raise
        finally:
            self._clean()

    def _submit(self, placement: Placement, reception: Reception) -> list[_Job]:
        """Submit jobs for the units that wait: as an array, if there are several."""
        units: list[list[int]] = []
        while len(units) < self._together and (unit := placement.next_unit()):
            units.append(unit)
        calls = [[CellCall(n, reception.configs[n]) for n in unit] for unit in units]
        try:
            submitted = self.executor().map_array(measure_all, calls, [self._spool] * len(calls))
        except (RuntimeError, ValueError, OSError, subprocess.CalledProcessError) as error:
            for number in [number for unit in units for number in unit]:
                reception.fail(number, f"no job of submitit could be started: {error}")
            return []
        return [_Job(job, unit) for job, unit in zip(submitted, units, strict=True)]

    def _follow(self, job: _Job, placement: Placement, reception: Reception) -> None:
        """Take in what a job has written; if it is over, also what it has left undone."""
        over = job.job.done()
        for number in list(job.numbers):
            if not self._take(number, reception):
                break
            job.numbers.remove(number)
        if not job.numbers or not over:
            return
        job.over_since = job.over_since or time.monotonic()
        if time.monotonic() - job.over_since < (_FILES_S if self._kind == SLURM else 0.0):
            return
        lost, *rest = job.numbers
        job.numbers.clear()
        placement.give_back(rest)
        why = f"job {job.job.job_id} ended before it had measured the cell ({job.job.state})"
        self._forget(lost)
        if placement.lose(lost, job.job.job_id):
            reception.tell(lost, f"{why}, so it is measured again")
        else:
            logs = f"its logs are in {self._folder.parent}"
            reception.fail(lost, f"{why}; cluster.tries={placement.tries}; {logs}")

    def _take(self, number: int, reception: Reception) -> bool:
        """Take in the news of a cell; return whether it has ended."""
        archive, why = self._spool.archive(number), self._spool.reason(number)
        machine = self._spool.machine(number)
        if machine is None:
            return False
        if number not in self._begun:
            self._begin(number, machine, reception)
        reception.events(number, self._spool.new_events(number))
        if archive is None and why is None:
            return False
        self._forget(number)
        if archive is not None:
            reception.receive(number, archive)
        else:
            reception.fail(number, f"on {machine}: {why}")
        return True

    def _begin(self, number: int, machine: str, reception: Reception) -> None:
        self._begun.add(number)
        reception.start(number, machine)

    def _forget(self, number: int) -> None:
        self._begun.discard(number)
        self._spool.forget(number)

    def _stop(self, jobs: list[_Job], reception: Reception) -> None:
        """Cancel all jobs, and take what cells have handed back until they are over."""
        for job in jobs:
            job.job.cancel(check=False)
        deadline = time.monotonic() + _STOP_S
        while jobs and time.monotonic() < deadline:
            for job in list(jobs):
                over = job.job.done(force_check=True)
                while job.numbers and self._take(job.numbers[0], reception):
                    job.numbers.pop(0)
                if over:
                    jobs.remove(job)
            time.sleep(_LOOK_S)

    def _clean(self) -> None:
        """Remove the pickles of jobs, which have the configs of cells."""
        for path in self._folder.parent.rglob("*.pkl"):
            path.unlink(missing_ok=True)
