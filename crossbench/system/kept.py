"""What took long to compute, kept in a file under the key that it follows from, and never trusted.

A file that is broken, or was written for another key, is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from crossbench.system.files import whole_file

log = logging.getLogger(__name__)


def kept_path(folder: Path, *parts: object) -> Path:
    """Where the value is kept that follows from `parts` alone: versions, options, content."""
    return folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.json"


def load_kept(path: Path) -> Any:
    """The JSON value that `save_kept` wrote to this path; None where there is none."""
    try:
        told, _, text = path.read_bytes().partition(b"\n")
        if told.decode("ascii") != _sum(path, text):
            return None
        return json.loads(text)
    except (OSError, ValueError):
        return None


def write_kept(path: Path, value: Any) -> None:
    """Keep a JSON value, whole or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_bytes(_sum(path, text).encode() + b"\n" + text)


def save_kept(path: Path, value: Any) -> None:
    """Keep a JSON value; if the file cannot be written, log a warning."""
    try:
        write_kept(path, value)
    except OSError as error:
        log.warning("%s cannot be kept (%s)", path, error)


def _sum(path: Path, text: bytes) -> str:
    """Of the name too, which is the key: a copy under another name does not count."""
    return hashlib.sha256(path.name.encode() + text).hexdigest()
