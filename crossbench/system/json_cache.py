"""Cache JSON values on disk, in one file per key, with a checksum.

A file that is damaged or was written for another key is ignored.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from crossbench.system.files import atomic_write
from crossbench.system.json_text import parse_json

log = logging.getLogger(__name__)


def cache_path(folder: Path, *parts: object) -> Path:
    """Return the path for the value that depends on `parts`: versions, options, content."""
    return folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.json"


def load_cached(path: Path) -> Any:
    """Return the JSON value that `save_cached` wrote to `path`, or None if it has no valid one."""
    try:
        checksum, _, text = path.read_bytes().partition(b"\n")
        if checksum.decode("ascii") != _checksum(path, text):
            return None
        return parse_json(text)
    except (OSError, ValueError):
        return None


def write_cached(path: Path, value: Any) -> None:
    """Write a JSON value to `path`, whole or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_bytes(_checksum(path, text).encode() + b"\n" + text)


def save_cached(path: Path, value: Any) -> None:
    """Write a JSON value to `path`, and log a warning if that fails."""
    try:
        write_cached(path, value)
    except OSError as error:
        log.warning("cannot write the cache file %s (%s)", path, error)


def _checksum(path: Path, text: bytes) -> str:
    """Return a checksum over the content and the file name, because the name holds the key."""
    return hashlib.sha256(path.name.encode() + text).hexdigest()
