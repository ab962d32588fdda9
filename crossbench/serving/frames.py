"""Messages between a server and its worker processes.

Batches and their values are raw arrays; the few other messages are pickled. Both ends run the same
code on the same machine, so the byte order is the native one.
"""

from __future__ import annotations

import pickle  # nosec B403  # see below
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossbench import errors
from crossbench.errors import CrossbenchError
from crossbench.types import DeviceMemory, Inference, TokenBatch

_KIND = struct.Struct("=i")
_CALL, _BATCH, _STATE, _VALUES, _ERROR = range(5)
# kind, rows, columns (0: one value per row), tokens computed, current and peak device memory in MB
# (NaN: unknown)
_INFERENCE = struct.Struct("=iiiqdd")


@dataclass(frozen=True, slots=True)
class Call:
    """A call of one of the backend's methods in the worker process."""

    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class State:
    """The reply of a worker process to a call."""

    device: str
    memory: DeviceMemory


def pack_call(call: Call) -> bytes:
    return _KIND.pack(_CALL) + pickle.dumps(call)


def pack_batch(batch: TokenBatch) -> bytes:
    """Return the three arrays of the batch, concatenated as int32."""
    head = np.array([_BATCH, len(batch)], dtype=np.int32)
    parts = (head, batch.cu_seqlens, batch.input_ids, batch.type_ids)
    return np.concatenate(parts, dtype=np.int32).tobytes()


def unpack_request(message: bytes) -> Call | TokenBatch:
    (kind,) = _KIND.unpack_from(message)
    if kind == _CALL:
        call: Call = pickle.loads(message[_KIND.size :])  # nosec B301  # from our parent
        return call
    assert kind == _BATCH
    numbers = np.frombuffer(message, dtype=np.int32)
    start = 2 + int(numbers[1]) + 1
    middle = start + (len(numbers) - start) // 2
    return TokenBatch(numbers[start:middle], numbers[middle:], numbers[2:start])


def pack_state(state: State) -> bytes:
    return _KIND.pack(_STATE) + pickle.dumps(state)


def pack_error(error: CrossbenchError) -> bytes:
    """Return the class and the message of an error: an error itself may not survive pickling."""
    known = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return _KIND.pack(_ERROR) + pickle.dumps((known.__name__, str(error)))


def pack_inference(inference: Inference, memory: DeviceMemory) -> bytes:
    values = inference.values
    rows, columns = values.shape if values.ndim == 2 else (len(values), 0)
    nan = float("nan")
    head = _INFERENCE.pack(
        _VALUES,
        rows,
        columns,
        inference.tokens_computed,
        nan if memory.current_mb is None else memory.current_mb,
        nan if memory.peak_mb is None else memory.peak_mb,
    )
    return head + np.ascontiguousarray(values, dtype=np.float32).tobytes()


def unpack_answer(message: bytes) -> State | tuple[Inference, DeviceMemory]:
    """Decode a reply of the worker process.

    Raises:
        CrossbenchError: the error that the worker process raised.
    """
    (kind,) = _KIND.unpack_from(message)
    if kind == _VALUES:
        _, rows, columns, computed, current_mb, peak_mb = _INFERENCE.unpack_from(message)
        values = np.frombuffer(message, dtype=np.float32, offset=_INFERENCE.size)
        shape = (rows, columns) if columns else (rows,)
        return Inference(values.reshape(shape), computed), DeviceMemory(
            None if current_mb != current_mb else current_mb,
            None if peak_mb != peak_mb else peak_mb,
        )
    content = pickle.loads(message[_KIND.size :])  # nosec B301  # from our child
    if kind == _ERROR:
        name, text = content
        raise getattr(errors, name)(text)
    assert isinstance(content, State)
    return content
