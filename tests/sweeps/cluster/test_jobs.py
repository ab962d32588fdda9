"""Launchers that run jobs: joblib and submitit, local and with stand-ins for Slurm's commands."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
import pytest
from omegaconf import DictConfig, OmegaConf

from crossbench.results import load_result
from crossbench.sweeps.cluster.submitit_jobs import SLURM, SubmititJobs
from tests.helpers.commands import crossbench, read_until, results, runs, start, the_sweep
from tests.helpers.places import REPO
from tests.helpers.slurm import install_slurm, submitted

SWEEP = (
    "-m", "backend=noop", "quality=none", "stop=fixed", "warmup_requests=1",
    "warmup_max_seconds=0.2", "requests=20", "batch=2,4",
)  # fmt: skip


def slurm_config(folder: Path, **options: object) -> DictConfig:
    launcher = OmegaConf.load(REPO / "conf" / "hydra" / "launchers" / "submitit_slurm.yaml")
    hydra = {"sweep": {"dir": str(folder)}, "launcher": launcher}
    config = OmegaConf.create({"hydra": hydra, "cluster": {"resources": {"gpu": 2}}})
    assert isinstance(config, DictConfig)
    config.hydra.launcher.update(options)
    return config


def sections(sweep: Path) -> list[str]:
    """The headings of a sweep's report, without its name."""
    report = (sweep / "report.md").read_text()
    return [line for line in report.splitlines() if line.startswith("## ")]


def test_the_script_for_slurm_asks_for_a_machine_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(install_slurm(tmp_path)), prepend=":")
    config = slurm_config(
        tmp_path, partition="bench", constraint="intel&avx512", setup=["module load python"],
        additional_parameters={"mail-user": "me@example.com"},
    )  # fmt: skip
    executor = SubmititJobs.of(SLURM, config).executor()._executor
    executor.parameters["map_count"] = 3  # as for three blocks
    script = executor._make_submission_file_text("python -m job", "uid")
    asked = {line.removeprefix("#SBATCH --") for line in script.splitlines() if "#SBATCH" in line}
    assert {
        "exclusive", "nodes=1", "ntasks-per-node=1", "array=0-2%3", "mem=0", "gpus-per-node=2",
        "partition=bench", "constraint='intel&avx512'", "time=240", "mail-user=me@example.com",
        "job-name=crossbench",
    } <= asked  # fmt: skip
    assert "module load python" in script.splitlines()
    assert re.search(r"^srun --unbuffered .* --cpu-bind=none python -m job$", script, re.M)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_one_cell_at_a_time_ends_with_the_report_of_the_plain_launcher(
    launcher: str, outputs: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    plain = crossbench(*SWEEP, "tracker=none", outputs=tmp_path / "plain", environment=environment)
    done = crossbench(
        *SWEEP, f"hydra/launcher={launcher}", outputs=outputs, environment=environment
    )
    assert plain.returncode == done.returncode == 0, done.stderr
    sweep = the_sweep(outputs)
    assert sections(sweep) == sections(the_sweep(tmp_path / "plain"))
    assert [result["status"] for result in results(sweep)] == ["finished", "finished"]
    assert (sweep / "0" / "report.md").exists()
    first, second = (load_result(sweep / str(number)) for number in (0, 1))
    assert first.started_at < second.started_at
    logged = {run.info.run_name: run for run in runs(outputs)}
    assert len(logged) == 3  # the sweep and its cells
    assert {run.info.status for run in logged.values()} == {"FINISHED"}
    assert all(run.data.tags["host"] for run in logged.values())
    assert not list(sweep.rglob("*.pkl"))  # which would have the configs


@pytest.mark.slow
def test_a_sweep_in_jobs_of_slurm_measures_a_block_in_each(
    outputs: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """The commands of Slurm are stand-ins that run the submitted scripts on this machine."""
    path = f"{install_slurm(tmp_path / 'slurm')}:{environment['PATH']}"
    done = crossbench(
        *SWEEP, "repeats=2", "hydra/launcher=submitit_slurm", "tracker=none",
        outputs=outputs, environment={**environment, "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [result["status"] for result in results(the_sweep(outputs))] == ["finished"] * 4
    (script,) = submitted(tmp_path / "slurm")
    assert "#SBATCH --array=0-1%2" in script  # two blocks of two cells


@pytest.mark.slow
def test_without_slurm_every_cell_says_what_is_missing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    done = crossbench(
        *SWEEP, "hydra/launcher=submitit_slurm", "tracker=none",
        outputs=tmp_path, environment=environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert 'Could not detect "srun"' in done.stderr
    assert "no job of submitit could be started" in (the_sweep(tmp_path) / "report.md").read_text()


@pytest.mark.slow
def test_a_job_that_dies_is_submitted_again_and_ctrl_c_ends_it(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    local = ("hydra/launcher=submitit_local", "tracker=none", "requests=null", "max_seconds=4")
    temporary = tmp_path / "temporary"  # a job that dies leaves its files there
    temporary.mkdir()
    outputs = tmp_path / "outputs"
    where = {"outputs": outputs, "environment": {**environment, "TMPDIR": str(temporary)}}
    sweep = start(*SWEEP, *local, **where)
    read_until(sweep, "cell 1/2 batch=2: measured on")
    jobs = [
        child
        for child in psutil.Process(sweep.pid).children(recursive=True)
        if "submitit.core._submit" in child.cmdline()
    ]
    for job in jobs:
        job.kill()
    assert "so it is measured again" in read_until(sweep, "ended before it had measured the cell")
    read_until(sweep, "cell 2/2 batch=4: measured on")
    sweep.send_signal(signal.SIGINT)
    _, told = sweep.communicate(timeout=100)
    assert sweep.returncode == 130, told
    first, second = results(the_sweep(outputs))
    assert first["status"] == "finished"
    assert second["failure"] == "interrupted"
    psutil.wait_procs(jobs, timeout=10)
    assert not any(job.is_running() for job in jobs)
