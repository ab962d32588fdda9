"""Models and data that a config names by path: found on another machine by content, or sent there.

A machine keeps what it was sent in its cache folder, so it is sent once.
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossbench.settings.cell_config import CellConfig
from crossbench.system.digests import sha256_of

_KEYS = ("model.path", "dataset.path", "load.path")
_MODELS = "pool.models"  # further models, each of which may have a path
_PART_BYTES = 64 * 1024 * 1024
_FOLDER = "from-cluster"  # in cache_dir


@dataclass(frozen=True, slots=True)
class Carried:
    """A file or folder of the parent's machine: the key that names it, its path, its digest."""

    key: str
    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a carried file or folder: for each file, its name in it and its parts.

    The name is empty if it is a single file. `parts` are whatever `put` returned for them.
    """

    files: tuple[tuple[str, tuple[Any, ...]], ...]


class MissingFiles(Exception):
    """A machine has neither these files, by digest, nor copies of them."""

    def __init__(self, digests: Sequence[str]) -> None:
        super().__init__(list(digests))
        self.digests = tuple(digests)


def carried_files(config: CellConfig) -> list[Carried]:
    """Return what the config names by path and this machine has."""
    document = config.document
    keys = [*_KEYS, *(f"{_MODELS}.{name}.path" for name in _value(document, _MODELS) or {})]
    found = []
    for key in keys:
        given = _value(document, key)
        if isinstance(given, str) and (path := Path(given).expanduser().absolute()).exists():
            found.append(Carried(key, str(path), digest_of(path)))
    return found


def digest_of(path: Path) -> str:
    """Return a hash of a file, or of the names and contents of the files in a folder."""
    total = hashlib.sha256()
    for name, file in _files(path):
        total.update(f"{name}\0{sha256_of(file)}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def read_content(path: Path, put: Callable[[bytes], Any]) -> Content:
    """Read a file or a folder, and give each part of at most 64 MB to `put`."""
    files = []
    for name, file in _files(path):
        with file.open("rb") as content:
            parts = tuple(map(put, iter(lambda: content.read(_PART_BYTES), b"")))
        files.append((name, parts))
    return Content(tuple(files))


def find_all(
    files: Sequence[Carried],
    contents: Mapping[str, Content],
    cache_dir: Path,
    get: Callable[[Any], bytes],
) -> dict[str, Path]:
    """Return where this machine has each file or folder, by its key.

    It has it at the same path, or in `cache_dir`, where those of `contents` (by digest) are
    written; `get` returns a part.

    Raises:
        MissingFiles: it has not, and `contents` lacks it.
        OSError: it cannot be written.
    """
    places: dict[str, Path] = {}
    missing = []
    for item in files:
        here = Path(item.path)
        copied = cache_dir / _FOLDER / item.digest / here.name
        if here.exists() and digest_of(here) == item.digest:
            places[item.key] = here
        elif copied.exists():
            places[item.key] = copied
        elif item.digest in contents:
            _write(contents[item.digest], copied, get)
            places[item.key] = copied
        else:
            missing.append(item.digest)
    if missing:
        raise MissingFiles(missing)
    return places


def with_paths(config: CellConfig, places: Mapping[str, Path]) -> CellConfig:
    """Return the config with these paths, by their keys."""
    document = copy.deepcopy(dict(config.document))
    for key, place in places.items():
        parent, _, name = key.rpartition(".")
        _value(document, parent)[name] = str(place)
    return CellConfig(document)


def _write(content: Content, place: Path, get: Callable[[Any], bytes]) -> None:
    """Write a file or a folder under another name first, so that half of it is never used."""
    partial = place.parent.with_name(f"{place.parent.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name, parts in content.files:
            file = partial / place.name / name if name else partial / place.name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as written:
                for part in parts:
                    written.write(get(part))
        partial.rename(place.parent)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        if not place.exists():  # another process has written it meanwhile
            raise


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield "", path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield file.relative_to(path).as_posix(), file


def _value(document: Any, key: str) -> Any:
    """Return the value of a dotted key in nested mappings; None if there is none."""
    for name in key.split("."):
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document
