"""A sweep whose outputs cannot be written loses as little as possible, and says what."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossbench.results import load_records
from tests.helpers.commands import read_until, results, start

SWEEP = (
    "-m", "batch=2,4,8", "backend=noop", "requests=2000", "max_seconds=60", "stop=fixed",
    "quality=none", "warmup_requests=1", "warmup_max_seconds=0.2", "tracker=none",
)  # fmt: skip
REASON = "No space left on device"


class Disk:
    """A small file system, which can be filled and freed."""

    def __init__(self, folder: Path) -> None:
        self.outputs, self._filler = folder / "outputs", folder / "filler"

    def fill(self) -> None:
        for size in (1 << 20, 1):
            with contextlib.suppress(OSError), self._filler.open("ab", 0) as file:
                while True:
                    file.write(b"x" * size)

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if subprocess.run(mount).returncode:
        pytest.skip("no file system can be mounted here")
    yield Disk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def measuring(number: int) -> str:
    return f"cell {number}/3 batch={2**number}: measuring"


@pytest.mark.slow
def test_what_was_measured_on_a_full_disk_is_written_when_there_is_space(
    disk: Disk, environment: dict[str, str]
) -> None:
    folder = disk.outputs / "sweep"
    sweep = start(
        *SWEEP, f"hydra.sweep.dir={folder}", outputs=disk.outputs, environment=environment
    )
    read_until(sweep, measuring(1))
    disk.fill()
    told = read_until(sweep, "results:")
    assert REASON in told
    disk.free()
    _, errors = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, errors
    assert REASON not in errors
    assert "Traceback" not in errors
    assert "what could not be written before is written now" in errors
    assert [result["status"] for result in results(folder)] == ["finished"] * 3
    assert len(load_records(folder / "0")) == 2000
    for cell in (folder / str(number) for number in range(3)):
        assert (cell / "report.md").is_file()
        assert (cell / "config.yaml").stat().st_size
    assert (folder / "report.md").is_file()
    assert not list(folder.rglob("*.partial"))


@pytest.mark.slow
def test_a_disk_that_stays_full_costs_what_is_told_and_no_more(
    disk: Disk, environment: dict[str, str]
) -> None:
    folder = disk.outputs / "sweep"
    sweep = start(
        *SWEEP, f"hydra.sweep.dir={folder}", outputs=disk.outputs, environment=environment
    )
    read_until(sweep, measuring(2))
    disk.fill()
    _, errors = sweep.communicate(timeout=200)
    assert sweep.returncode == 1
    assert "Traceback" not in errors
    assert errors.count("Make sure that the output and cache folders") == 2  # and of the report
    assert "could not be written and will be lost: 1/requests.parquet; 1/result.json" in errors
    assert "1 cell could not be measured" in errors
    assert f"resume={folder}" in errors
    # The row of the second cell is printed from memory
    assert re.findall(r"^ *([248])  ", errors, re.MULTILINE) == ["2", "4"]
    assert not [path for path in folder.rglob("config.yaml") if not path.stat().st_size]
    assert not list(folder.rglob("*.partial"))


@pytest.mark.slow
def test_a_folder_that_becomes_read_only_costs_the_cells_that_are_told(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    folder = tmp_path / "outputs" / "sweep"
    sweep = start(
        *SWEEP, f"hydra.sweep.dir={folder}", outputs=folder.parent, environment=environment
    )
    read_until(sweep, measuring(2))
    with read_only(folder):
        _, errors = sweep.communicate(timeout=200)
    assert sweep.returncode == 1
    assert "Traceback" not in errors
    assert [result["status"] for result in results(folder)] == ["finished"] * 2
    assert "1 cell could not be measured, as nothing could be written" in errors


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Forbid new files in a folder, those in its subfolders excepted."""
    if os.geteuid():
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    # Permissions do not stop root
    if not shutil.which("chattr") or subprocess.run(["chattr", "+i", str(folder)]).returncode:
        pytest.skip("root needs chattr, on a file system that knows it")
    yield
    subprocess.run(["chattr", "-i", str(folder)], check=True)
