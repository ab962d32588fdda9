"""What a backend derives from a model (a converted graph), kept in a cache and never trusted.

An artifact is a folder `cache_dir/<kind>/<key>/` with its files and a manifest of their sha256.
It is written beside its place and renamed, so that no reader sees half of it; one whose files are
missing or do not match is made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

MANIFEST = "manifest.json"


def artifact_key(*parts: object) -> str:
    """20 hexadecimal digits over what defines an artifact: model digest, options, versions."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def library_versions(*names: str) -> tuple[str, ...]:
    """What is installed of these distributions: a part of an artifact's key."""
    return tuple(f"{name}=={version(name)}" for name in names)


def artifact(cache_dir: Path, kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder of an artifact, made by `build(folder)` where it is absent or broken."""
    place = cache_dir / kind / key
    if _is_whole(place):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=place.parent))
    try:
        build(draft)
        sums = {file.name: _sha256(file) for file in sorted(draft.iterdir())}
        (draft / MANIFEST).write_text(json.dumps(sums, indent=1), "utf-8")
        _publish(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def _publish(draft: Path, place: Path) -> None:
    try:
        draft.rename(place)
    except OSError:
        # A folder is in the way: another process was faster, or what is there is broken.
        if _is_whole(place):
            return
        aside = Path(tempfile.mkdtemp(prefix=".broken-", dir=place.parent))
        place.replace(aside)
        shutil.rmtree(aside, ignore_errors=True)
        draft.rename(place)


def _is_whole(place: Path) -> bool:
    try:
        sums = json.loads((place / MANIFEST).read_text("utf-8"))
        return bool(sums) and all(_sha256(place / name) == sums[name] for name in sums)
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
