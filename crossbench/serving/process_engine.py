"""A backend in a process of its own, seen from the server."""

from __future__ import annotations

import logging
import queue
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

from crossbench.backends.base import Backend
from crossbench.errors import WorkerDied
from crossbench.serving.frames import Call, State, pack_batch, pack_call, unpack_answer
from crossbench.system.processes import child_environment
from crossbench.types import DeviceMemory, Inference, TokenBatch
from crossbench.wording import exit_description

log = logging.getLogger(__name__)

END_S = 5.0


@dataclass(frozen=True)
class _Child:
    """A running worker process and the ends of its channels that are ours."""

    process: subprocess.Popen[bytes]
    channels: tuple[Connection, ...]
    free: queue.SimpleQueue[Connection]


@dataclass
class ProcessEngine:
    """`backend` loaded in a child process; as many calls of infer() at once as it makes use of.

    The child is a fresh interpreter, not a fork: engines' threads and locks do not survive forks.
    It stays in this process group, so whoever ends the group ends it too. close() ends it, and
    load_model() starts another. Not for concurrent use, except infer() and the properties.
    """

    backend: Backend
    _child: _Child | None = field(default=None, init=False, repr=False)
    _state: State = field(default=State("", DeviceMemory()), init=False, repr=False)

    @property
    def device(self) -> str:
        return self._state.device

    @property
    def pid(self) -> int | None:
        """The child's, while there is one."""
        return self._child.process.pid if self._child is not None else None

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.process.poll() is None

    def load_model(self) -> None:
        """Start the child and load the model there.

        Raises:
            BackendUnavailable, ModelError: what the backend itself raised there.
            WorkerDied: it raised something else, or the child died.
        """
        self.close()
        self._child = _start(self.backend.workers)
        try:
            self._call(Call("load_model", (self.backend,)))
        except Exception:
            self.close()
            raise

    def warmup(self, lengths: Sequence[int]) -> None:
        self._call(Call("warmup", (lengths,)))

    def infer(self, batch: TokenBatch) -> Inference:
        """Raises WorkerDied when the backend fails there, or when the child dies meanwhile."""
        answer = self._exchange(pack_batch(batch))
        assert isinstance(answer, tuple)
        inference, memory = answer
        # The weights do not change from one micro-batch to the next, so they do not travel
        memory = replace(memory, model_mb=self._state.memory.model_mb)
        self._state = State(self._state.device, memory)
        return inference

    def memory(self) -> DeviceMemory:
        """As of the last answer: asking the child would have to wait for what it computes."""
        return self._state.memory

    def close(self) -> None:
        """Let the child free its model and end; insist where it does not."""
        child, self._child = self._child, None
        self._state = State(self._state.device, DeviceMemory())
        if child is None:
            return
        for channel in child.channels:
            channel.close()
        try:
            child.process.wait(END_S)
        except subprocess.TimeoutExpired:
            log.warning("worker process %d did not end: killing it", child.process.pid)
            child.process.kill()
            child.process.wait()
        assert child.process.stdin is not None
        child.process.stdin.close()

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
            raise WorkerDied(_obituary(child.process)) from error
        finally:
            child.free.put(channel)
        return unpack_answer(answer)


def _start(channels: int) -> _Child:
    pairs = [socket.socketpair() for _ in range(channels)]
    theirs = [their.fileno() for _, their in pairs]
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "crossbench.serving.worker_process", *map(str, theirs)],
            stdin=subprocess.PIPE,  # its other end is ours alone: closed, the child ends
            pass_fds=theirs,
            env=child_environment(),
        )
    finally:
        for _, their in pairs:
            their.close()
    ours = tuple(Connection(our.detach()) for our, _ in pairs)
    free: queue.SimpleQueue[Connection] = queue.SimpleQueue()
    for connection in ours:
        free.put(connection)
    return _Child(process, ours, free)


def _obituary(process: subprocess.Popen[bytes]) -> str:
    """Why the process has gone; its channel closes a moment before its status is known."""
    try:
        status = process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()  # it lives but has closed its channel: nothing more will come of it
        status = process.wait()
    return (
        f"worker process {process.pid} {exit_description(status)} while it computed this request: "
        "a new process replaces it, send the request again"
    )
