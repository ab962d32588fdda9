"""Output folders: runs that start at once, folders in use, left over or not empty."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossbench.errors import ConfigError
from crossbench.models.folder import ModelFolder
from crossbench.sweeps.folder import (
    INTERRUPTED_FILE,
    hold,
    home_of,
    place_of,
    take_named,
    take_new,
)
from crossbench.sweeps.state import STATE_FILE
from crossbench.system.folder_lock import LOCK_FILE, is_held

KEY = "hydra.sweep.dir"
QUICK = ("backend=noop", "requests=5",
         "warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed",
         "dataset.queries=4", "quality=none",
         "dataset.passages_per_query=40", "tracker=none", "dashboard=none")  # fmt: skip


def start(folder: Path, model: ModelFolder, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "crossbench", *QUICK, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "CROSSBENCH_CACHE": str(model.path.parent)},
    )


def batches(folder: Path) -> list[int]:
    cells = sorted(path for path in folder.iterdir() if path.name.isdecimal())
    return [json.loads((cell / "result.json").read_text())["config"]["batch"] for cell in cells]


@pytest.mark.slow
def test_runs_that_start_at_once_get_different_folders(
    tmp_path: Path, seeded_model: ModelFolder
) -> None:
    """Start two sweeps of the same name, with relative paths and hydra.job.chdir, and a single cell
    whose folder is the current directory."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "model").symlink_to(seeded_model.path)
    named = ["-m", "outputs_dir=results", "hydra.sweep.dir=${outputs_dir}/${now:%Y}"]
    local = ["model=local", "model.path=model", "hydra.job.chdir=true"]
    runs = [
        start(tmp_path, seeded_model, *named, *local, "batch=4"),
        start(tmp_path, seeded_model, *named, *local, "batch=8"),
        start(work, seeded_model, "hydra.run.dir=."),
    ]
    for run in runs:
        _, errors = run.communicate(timeout=240)
        assert run.returncode == 0, errors
    first, second = sorted((tmp_path / "results").iterdir())
    assert second.name == f"{first.name}_2"
    assert sorted(batches(first) + batches(second)) == [4, 8]
    assert (work / "result.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"work", "model", "results"}

    before = sorted(path.stat().st_mtime_ns for path in first.rglob("*"))
    again = start(tmp_path, seeded_model, "-m", f"hydra.sweep.dir=results/{first.name}")
    _, errors = again.communicate(timeout=60)
    assert again.returncode == 1
    assert f"{first} has 1 cell of an earlier run" in errors
    assert sorted(path.stat().st_mtime_ns for path in first.rglob("*")) == before


def test_a_taken_name_from_the_time_gets_a_number(tmp_path: Path) -> None:
    taken = [take_new(tmp_path / "a" / "now") for _ in range(3)]
    assert [item.path.name for item in taken] == ["now", "now_2", "now_3"]
    assert all(is_held(item.path) for item in taken)


def test_a_folder_in_use_is_refused_and_free_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    taken = take_named(folder, KEY)
    with pytest.raises(ConfigError, match=f"in use by another run .process {os.getpid()}.: wait"):
        take_named(folder, KEY)
    taken.release()
    assert not is_held(folder)
    take_named(folder, KEY).release()  # it has no cell


def test_a_killed_process_releases_its_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from crossbench.sweeps.folder import take_named\n"
        "taken = take_named(pathlib.Path(sys.argv[1]), 'key')\n"
        "print('taken', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        assert is_held(tmp_path / "x")
        with pytest.raises(ConfigError, match=f"process {other.pid}"):
            hold(tmp_path / "x", "resume")
        other.kill()
    for name in (STATE_FILE, INTERRUPTED_FILE, "multirun.yaml", "events.jsonl"):
        (tmp_path / "x" / name).write_text("of the killed run")
    take_named(tmp_path / "x", KEY)
    assert [path.name for path in (tmp_path / "x").iterdir()] == [LOCK_FILE]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("0/result.json", "has 1 cell of an earlier run"),
        ("3/cell.log", "has 1 cell of an earlier run"),  # it was killed in the middle of one
        ("result.json", "has 1 cell of an earlier run"),
        ("config.yaml", r"is not empty \(config.yaml\)"),
        ("plots/mine.png", r"is not empty \(plots\)"),
    ],
)
def test_a_folder_that_is_not_empty_is_refused_untouched(
    tmp_path: Path, file: str, message: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("mine")
    with pytest.raises(ConfigError, match=message):
        take_named(tmp_path, KEY)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / file]


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for take in (take_new, lambda folder: take_named(folder, KEY)):
        with pytest.raises(ConfigError, match=r"cannot be used .*: give a writable folder"):
            take(tmp_path / "file" / "sweep")


def test_the_sweep_and_number_of_a_single_cell(tmp_path: Path) -> None:
    inside = take_new(tmp_path / "now").path / "0"
    inside.mkdir()
    named = take_named(tmp_path / "mine", KEY).path
    assert (home_of(inside), place_of(inside)) == (tmp_path / "now", ("now", 0))
    assert (home_of(named), place_of(named)) == (named, ("mine", 0))
