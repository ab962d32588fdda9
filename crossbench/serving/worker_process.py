"""A worker process, which the server starts: `python -m crossbench.serving.worker_process FD...`.

It holds one backend and computes the batches that arrive on its channels, with one thread per
channel. It ends when its channels close. If its standard input closes, the server has died, and the
worker process exits immediately. Other signals than SIGKILL do not end it: they reach the whole
process group or container, and the server, which then still needs its workers, ends them itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection

from crossbench.backends.base import Backend
from crossbench.errors import CrossbenchError, WorkerDied
from crossbench.serving.computing import Computing
from crossbench.serving.frames import (
    Call,
    State,
    pack_error,
    pack_inference,
    pack_state,
    unpack_request,
)
from crossbench.system.stack_dump import dump_on_signal
from crossbench.types import TokenBatch
from crossbench.wording import error_text


@dataclass
class Host:
    """Holds the backend of this process, which the server's first call delivers."""

    _backend: Backend | None = None
    _computing: Computing | None = None

    def serve(self, channel: Connection) -> None:
        """Answer the messages on `channel` until the server closes it."""
        while True:
            try:
                message = channel.recv_bytes()
            except (EOFError, ConnectionError):
                return
            channel.send_bytes(self._answer(message))

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()

    def _answer(self, message: bytes) -> bytes:
        try:
            request = unpack_request(message)
            if isinstance(request, TokenBatch):
                assert self._backend is not None
                assert self._computing is not None
                return pack_inference(self._computing.infer(request), self._backend.memory())
            return pack_state(self._call(request))
        except CrossbenchError as error:
            return pack_error(error)
        except BaseException as error:  # SystemExit too: another request must not suffer from it
            traceback.print_exc()  # for the log, since the server receives only the message
            return pack_error(WorkerDied(f"the worker failed: {error_text(error)}"))

    def _call(self, call: Call) -> State:
        if call.method == "load_model":
            (self._backend,) = call.arguments
            assert self._backend is not None
            self._computing = Computing(self._backend)
            self._backend.load_model()
        else:
            assert call.method == "warmup"
            assert self._backend is not None
            self._backend.warmup(*call.arguments)
        return State(self._backend.device, self._backend.memory())


def _end_with_server() -> None:
    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, name="server-watch", daemon=True).start()


def main(descriptors: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not SIG_IGN, which the processes that an engine starts would inherit and then not end
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    _end_with_server()
    host = Host()
    first, *others = [Connection(descriptor) for descriptor in descriptors]
    for channel in others:
        threading.Thread(target=host.serve, args=(channel,), daemon=True).start()
    host.serve(first)
    host.close()


if __name__ == "__main__":
    dump_on_signal()
    main([int(argument) for argument in sys.argv[1:]])
