"""Run crossbench as where Hydra's plugins are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers.places import REPO

# A site-packages without the plugins: Hydra does not find them by their import, but in folders
_CODE = """
import os, runpy, sys
from pathlib import Path
site = Path({site!r})
for found in map(Path, {path!r}):
    if found.name == "site-packages":
        for item in found.iterdir():
            if item.name not in {missing!r} and not (site / item.name).exists():
                (site / item.name).symlink_to(item)
sys.path[:] = [{repo!r}, *(word for word in sys.path if "site-packages" not in word), str(site)]
runpy.run_module("crossbench", run_name="__main__")
"""


def run_without(
    missing: tuple[str, ...], *arguments: str, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run `python -m crossbench` without these packages, in an empty `folder`."""
    (folder / "site").mkdir()
    code = _CODE.format(site=str(folder / "site"), path=sys.path, repo=str(REPO), missing=missing)
    command = [sys.executable, "-S", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
