"""Store frozen dataclasses as rows of a parquet file.

`pa.array` and `pq.read_table` import pandas and pyarrow.dataset, which would cost every cell 0.4 s.
Columns are therefore built from buffers and read with a ParquetFile.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crossbench.errors import ResultError
from crossbench.system.files import write_file

Row = TypeVar("Row")
TEXT = "text"  # a column of str; the other kinds are numpy dtype names ("int64", "bool")


def save_rows(rows: Sequence[Any], columns: Mapping[str, str], path: Path) -> Path:
    """Write one row per object atomically; `columns` maps attribute names to column kinds.

    None becomes null.

    Raises:
        NotWritten: it cannot be written; the error has its content.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = [_array([getattr(row, name) for row in rows], kind) for name, kind in columns.items()]
    table = pa.Table.from_arrays(arrays, names=list(columns))
    content = io.BytesIO()
    pq.write_table(table, content)
    write_file(path, content.getvalue())
    return path


def load_rows(path: Path, kind: type[Row], columns: Sequence[str]) -> list[Row]:
    """Return each row as `kind(*columns)`, or an empty list if the file does not exist.

    Raises:
        ResultError: the file is incomplete or malformed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return []
    rows: list[Row] = []
    try:
        with path.open("rb") as file:
            # Read in batches, so that a million rows are not in memory twice
            for batch in pq.ParquetFile(file).iter_batches(columns=list(columns)):
                values = [_values(batch.column(name)) for name in columns]
                rows += map(kind, *values)
    except (OSError, KeyError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise ResultError(f"{path.name} is broken ({reason}): run the cell again") from error
    return rows


def _values(array: Any) -> list[Any]:
    import pyarrow as pa

    values: list[Any] = array.to_pylist()
    if pa.types.is_string(array.type):  # values such as a status repeat: store each string once
        return [value if value is None else sys.intern(value) for value in values]
    return values


def _array(values: Sequence[Any], kind: str) -> Any:
    import pyarrow as pa

    present = np.array([value is not None for value in values], dtype=bool)
    nulls = len(values) - int(present.sum())
    valid = pa.py_buffer(np.packbits(present, bitorder="little")) if nulls else None
    if kind == TEXT:
        texts = ["" if value is None else value for value in values]
        encoded = [text.encode("utf-8", "replace") for text in texts]
        offsets = np.zeros(len(values) + 1, dtype=np.int32)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
        return pa.Array.from_buffers(pa.string(), len(values), buffers, nulls)
    if kind == "bool":
        bits = np.packbits(np.array([bool(value) for value in values]), bitorder="little")
        buffers = [valid, pa.py_buffer(bits)]
        return pa.Array.from_buffers(pa.bool_(), len(values), buffers, nulls)
    numbers = np.array([0 if value is None else value for value in values], dtype=kind)
    kinds = {
        "int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32(), "float64": pa.float64(),
    }  # fmt: skip
    return pa.Array.from_buffers(kinds[kind], len(values), [valid, pa.py_buffer(numbers)], nulls)
