"""The server's side of a backend that runs in a worker process."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

from crossbench.backends.base import Backend
from crossbench.errors import ProcessDied
from crossbench.serving.frames import Call, State, pack_batch, pack_call, unpack_answer
from crossbench.system.processes import child_environment
from crossbench.types import DeviceMemory, Inference, TokenBatch
from crossbench.wording import exit_description

log = logging.getLogger(__name__)

EXIT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class _Child:
    """A running worker process and the server's ends of its channels."""

    process: subprocess.Popen[bytes]
    sockets: tuple[socket.socket, ...]
    channels: tuple[Connection, ...]  # over duplicates of the sockets
    free: queue.SimpleQueue[Connection]

    def kill(self) -> None:
        """Kill the process, and fail all calls at once: it may take long to end, or never do so."""
        self.process.kill()
        for server_end in self.sockets:
            with contextlib.suppress(OSError):  # it has already been closed
                server_end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the channels, which ends the process; kill it if it does not end in time."""
        for channel in self.channels:
            channel.close()
        for server_end in self.sockets:
            server_end.close()
        try:
            self.process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("worker process %d did not end: killing it", self.process.pid)
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel holds it
                self.process.wait(EXIT_TIMEOUT_S)
        assert self.process.stdin is not None
        self.process.stdin.close()


@dataclass
class ProcessEngine:
    """Runs `backend` in a worker process, with up to `backend.workers` concurrent infer() calls.

    The process is a new interpreter and not a fork, since threads and locks of inference engines do
    not survive a fork. It belongs to the server's process group, so a signal to the group ends
    both. load_model() starts the process, close() ends it. Only infer() and the properties are safe
    to use from several threads at once.
    """

    backend: Backend
    _child: _Child | None = field(default=None, init=False, repr=False)
    _state: State = field(default=State("", DeviceMemory()), init=False, repr=False)

    @property
    def device(self) -> str:
        return self._state.device

    @property
    def pid(self) -> int | None:
        """The id of the worker process, None if there is none."""
        return self._child.process.pid if self._child is not None else None

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.process.poll() is None

    def load_model(self) -> None:
        """Start the worker process and load the model in it.

        Raises:
            BackendUnavailable, ModelError: the backend raised this error.
            WorkerDied: the backend raised another error.
            ProcessDied: the process died.
        """
        self.close()
        self._child = _start(self.backend.workers)
        try:
            self._call(Call("load_model", (self.backend,)))
        except BaseException:
            self.close()
            raise

    def warmup(self, lengths: Sequence[int]) -> None:
        self._call(Call("warmup", (lengths,)))

    def infer(self, batch: TokenBatch) -> Inference:
        """Compute a batch in the worker process.

        Raises:
            OutOfMemory, WorkerDied: see computing.Computing.
            ProcessDied: the process died.
        """
        answer = self._exchange(pack_batch(batch))
        assert isinstance(answer, tuple)
        inference, memory = answer
        # The size of the weights does not change, so it is not part of this message
        memory = replace(memory, model_mb=self._state.memory.model_mb)
        self._state = State(self._state.device, memory)
        return inference

    def memory(self) -> DeviceMemory:
        """Device memory as of the last reply, since a new call would wait for running batches."""
        return self._state.memory

    def kill(self) -> None:
        """Kill the worker process: its calls, in any thread, raise ProcessDied at once."""
        child = self._child
        if child is not None:
            child.kill()

    def close(self) -> None:
        """Ask the worker process to end, and kill it if it does not within `EXIT_TIMEOUT_S`."""
        child, self._child = self._child, None
        self._state = State(self._state.device, DeviceMemory())
        if child is not None:
            child.close()

    def _call(self, call: Call) -> None:
        answer = self._exchange(pack_call(call))
        assert isinstance(answer, State)
        self._state = answer

    def _exchange(self, message: bytes) -> State | tuple[Inference, DeviceMemory]:
        child = self._child
        assert child is not None
        channel = child.free.get()
        try:
            channel.send_bytes(message)
            answer = channel.recv_bytes()
        except (EOFError, OSError) as error:
            raise ProcessDied(_exit_reason(child.process)) from error
        finally:
            child.free.put(channel)
        return unpack_answer(answer)


def _start(channels: int) -> _Child:
    pairs = [socket.socketpair() for _ in range(channels)]
    descriptors = [child_end.fileno() for _, child_end in pairs]
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "crossbench.serving.worker_process", *map(str, descriptors)],
            stdin=subprocess.PIPE,  # the child ends when this pipe closes
            pass_fds=descriptors,
            env=child_environment(),
        )
    finally:
        for _, child_end in pairs:
            child_end.close()
    sockets = tuple(server_end for server_end, _ in pairs)
    connections = tuple(Connection(os.dup(server_end.fileno())) for server_end in sockets)
    free: queue.SimpleQueue[Connection] = queue.SimpleQueue()
    for connection in connections:
        free.put(connection)
    return _Child(process, sockets, connections, free)


def _exit_reason(process: subprocess.Popen[bytes]) -> str:
    """Return the error message for a process whose channel has closed."""
    try:
        status = process.wait(EXIT_TIMEOUT_S)  # the channel closes just before the process ends
    except subprocess.TimeoutExpired:
        process.kill()  # the process lives, but without its channel it is useless
        try:
            status = process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"worker process {process.pid} does not answer and cannot be killed"
    return f"worker process {process.pid} {exit_description(status)} while it computed this request"
