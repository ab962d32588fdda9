"""Numbered lines of text files, plain or compressed, and what a byte that is not UTF-8 says."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from crossbench.errors import DatasetError
from crossbench.models.json_file import LFS_HEAD

COMPRESSED = (".gz", ".zst", ".bz2")  # endings that may follow a text file's own
# The first bytes decide, not the name: browsers and mirrors unpack .gz files or add the ending
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_ARCHIVES = {b"PK\x03\x04": "zip", b"\xfd7zXZ\x00": "xz", b"7z\xbc\xaf": "7z"}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_TAR_MARK = slice(257, 262)
_BUFFER_BYTES = 1 << 20


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1 on, without their line end.

    Only a line feed ends a line, since passages may hold other separators. A byte order mark of
    UTF-8 is left out.

    Raises:
        DatasetError: the file is empty, cannot be read, is cut off or is not text.
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
        damaged = ": the compressed file is damaged or incomplete, get it again" if kind else ""
        raise DatasetError(f"{path} cannot be read{where} ({error}){damaged}") from error
    if number == 1 and b"\r" in line:
        raise DatasetError(
            f"{path} has a single line with carriage returns: end its lines with line feeds (tr "
            "'\\r' '\\n')"
        )
    if empty:
        raise DatasetError(f"{path} is empty")


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """As raw_lines(), decoded.

    Raises:
        DatasetError: as there, or a line is not UTF-8.
    """
    for number, raw in raw_lines(path):
        try:
            yield number, raw.decode()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path}:{number}: {utf8_error_message(error)}") from None


def utf8_error_message(error: UnicodeDecodeError) -> str:
    """Which byte of a line is no UTF-8, and what to do."""
    return (
        f"cannot be read as UTF-8: byte 0x{error.object[error.start]:02x} at position "
        f"{error.start + 1} of the line; convert the file (iconv -f LATIN1 -t UTF-8, or whatever "
        "it was written in)"
    )


def first_line_matches(path: Path, fits: re.Pattern[str]) -> bool:
    """Whether the file's first line that is not blank matches; a broken file does not."""
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
    """Refuse what is certainly no UTF-8 text by its first bytes."""
    if start.startswith(LFS_HEAD):
        raise DatasetError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` where it is from"
        )
    kinds = [kind for magic, kind in _ARCHIVES.items() if start.startswith(magic)]
    if start[_TAR_MARK] == b"ustar":
        kinds.append("tar")
    if kinds:
        raise DatasetError(f"{path} is a {kinds[0]} archive: unpack it")
    # Half the bytes of English in UTF-16 are zeros
    if start.startswith(_UTF16) or start.count(0) > len(start) / 8:
        raise DatasetError(
            f"{path} cannot be read as UTF-8: it seems to be UTF-16 or binary; convert text with "
            "iconv -f UTF-16 -t UTF-8"
        )
