"""Numbered lines of text files, plain or compressed, and errors for files that are not UTF-8."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from crossbench.errors import DatasetError
from crossbench.models.json_file import LFS_HEAD

COMPRESSED = (".gz", ".zst", ".bz2")  # suffixes that may follow a text file's own suffix
# The first bytes decide and not the name: browsers and mirrors unpack .gz files without renaming
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_ARCHIVES = {b"PK\x03\x04": "zip", b"\xfd7zXZ\x00": "xz", b"7z\xbc\xaf": "7z"}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_TAR_MARK = slice(257, 262)
_BUFFER_BYTES = 1 << 20


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield all non-blank lines with their numbers, counted from 1, without the line end.

    Only a line feed ends a line, since passages may contain other separators. A UTF-8 byte order
    mark is removed.

    Raises:
        DatasetError: the file is empty, unreadable, truncated or not text.
    """
    number, empty, kind, line = 0, True, None, b""
    try:
        kind = _compression(path)
        with _open(path, kind) as file:
            _check_text(path, file.peek(4096)[:4096])
            for number, raw in enumerate(file, start=1):
                line = raw.rstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf")
                if line.strip():
                    empty = False
                    yield number, line
    except OSError as error:
        where = f" after line {number}" if number else ""
        damaged = ": the compressed file is damaged or truncated, get it again" if kind else ""
        raise DatasetError(f"{path} cannot be read{where} ({error}){damaged}") from error
    if number == 1 and b"\r" in line:
        raise DatasetError(
            f"{path} separates lines with carriage returns: replace them by line feeds (tr '\\r' "
            "'\\n')"
        )
    if empty:
        raise DatasetError(f"{path} is empty: get the file again")


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the decoded lines of raw_lines().

    Raises:
        DatasetError: as in raw_lines(), or a line is not UTF-8.
    """
    for number, raw in raw_lines(path):
        try:
            yield number, raw.decode()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path}:{number}: {utf8_error_message(error)}") from None


def utf8_error_message(error: UnicodeDecodeError) -> str:
    """Return the error message for a line that is not UTF-8, with the position of the byte."""
    return (
        f"cannot be read as UTF-8: byte 0x{error.object[error.start]:02x} at position "
        f"{error.start + 1} of the line; convert the file from its encoding (for example iconv -f "
        "LATIN1 -t UTF-8)"
    )


def first_line_matches(path: Path, fits: re.Pattern[str]) -> bool:
    """Return whether the file's first non-blank line matches; False for an unreadable file."""
    try:
        return fits.match(next(text_lines(path))[1].strip()) is not None
    except DatasetError:
        return False


def _compression(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(8)
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


def _open(path: Path, kind: str | None) -> io.BufferedReader:
    if kind is None:
        return io.BufferedReader(io.FileIO(path), _BUFFER_BYTES)
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression=kind), _BUFFER_BYTES)


def _check_text(path: Path, start: bytes) -> None:
    """Check by its first bytes that a file is not an archive, an LFS pointer or binary.

    Raises:
        DatasetError: it is one of these.
    """
    if start.startswith(LFS_HEAD):
        raise DatasetError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its "
            "repository"
        )
    kinds = [kind for magic, kind in _ARCHIVES.items() if start.startswith(magic)]
    if start[_TAR_MARK] == b"ustar":
        kinds.append("tar")
    if kinds:
        raise DatasetError(f"{path} is a {kinds[0]} archive: unpack it")
    # In UTF-16, half the bytes of English text are zero
    if start.startswith(_UTF16) or start.count(0) > len(start) / 8:
        raise DatasetError(
            f"{path} cannot be read as UTF-8: it seems to be UTF-16 or binary; convert UTF-16 with "
            "iconv -f UTF-16 -t UTF-8"
        )
