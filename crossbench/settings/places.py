"""The locations of conf/ and outputs/."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """Return conf/: next to the package in a checkout or editable install, inside it in a wheel."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


def outputs_dir() -> Path:
    """Return outputs/ of the checkout, or ./outputs if crossbench is installed without one."""
    is_checkout = (PACKAGE.parent / "pyproject.toml").is_file() and conf_dir().parent != PACKAGE
    return (PACKAGE.parent if is_checkout else Path.cwd()) / "outputs"
