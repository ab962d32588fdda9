"""The wheel: its files, and that it works without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from crossbench.results import RESULT_FILE

REPO = Path(__file__).resolve().parents[1]


def run(command: list[str], cwd: Path, **environment: str) -> str:
    """Run a command that must succeed and return its standard output."""
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPO)], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the unpacked wheel, which hides the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--target", str(folder)]
    run(["-m", "pip", "install", *options, str(wheel)], folder)
    return folder


def test_the_wheel_holds_the_package_and_its_configuration(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {
        path.relative_to(REPO).as_posix()
        for folder in ("crossbench", "hydra_plugins")
        for path in (REPO / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    configuration = {
        f"crossbench/{path.relative_to(REPO).as_posix()}"
        for path in (REPO / "conf").rglob("*.yaml")
    }
    assert "crossbench/conf/config.yaml" in configuration
    assert package | configuration <= names
    # Hydra merges the plugins of all packages only if hydra_plugins has no __init__.py
    assert "hydra_plugins/__init__.py" not in names
    expected = ("crossbench/", "crossbench-", "hydra_plugins/crossbench_")
    unexpected = {name for name in names if not name.startswith(expected)}
    assert not unexpected


def test_the_wheel_carries_its_licence_and_its_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata_file,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        information = metadata_file.removesuffix("/METADATA")
        metadata = message_from_bytes(archive.read(metadata_file))
        licence = archive.read(f"{information}/licenses/LICENSE").decode("utf-8")
        assert "crossbench/py.typed" in archive.namelist()
    assert licence == (REPO / "LICENSE").read_text("utf-8")
    assert licence.startswith("MIT License\n")
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def test_a_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    run(
        ["-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(REPO)], tmp_path
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        # Python 3.11 has the filter from 3.11.4 on
        safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        source.extractall(tmp_path, **safe)
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert {"CHANGELOG.md", "LICENSE", "README.md"} <= {path.name for path in unpacked.iterdir()}
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    run([*command, str(unpacked)], tmp_path)
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert set(first.namelist()) == set(second.namelist())


def test_an_installed_wheel_finds_its_configuration(installed: Path, tmp_path: Path) -> None:
    where = "import crossbench; print(crossbench.__file__)"
    path = run(["-c", where], tmp_path, PYTHONPATH=str(installed)).strip()
    assert Path(path).is_relative_to(installed)

    help_text = run(["-m", "crossbench", "--help"], tmp_path, PYTHONPATH=str(installed))
    assert "\nbackend=...  " in help_text
    arguments = ["-m", "crossbench", "--cfg", "job", "--resolve", "backend=noop"]
    printed = run(arguments, tmp_path, PYTHONPATH=str(installed))
    config = OmegaConf.create(printed)
    assert config.backend.name == "noop"
    assert Path(config.outputs_dir) == tmp_path / "outputs"


def test_an_installed_wheel_measures_a_cell(
    installed: Path, cache_dir: Path, tmp_path: Path
) -> None:
    overrides = [
        "backend=noop",
        "tracker=none",
        "dashboard=none",
        "batch=2",
        "requests=3",
        "warmup_requests=1",
        "warmup_max_seconds=0.2",
        "stop=fixed",
    ]
    run(
        ["-m", "crossbench", *overrides],
        tmp_path,
        PYTHONPATH=str(installed),
        CROSSBENCH_CACHE=str(cache_dir),
    )
    (written,) = (tmp_path / "outputs").glob(f"*/0/{RESULT_FILE}")
    assert json.loads(written.read_text("utf-8"))["status"] == "finished"
