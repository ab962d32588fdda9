"""The server process of target=process.

`python -m crossbench.runner.target_child FD`: FD is the number of a socket to the client.

The client sends a function that builds the server. It gets back the server's HOST:PORT, or the
error that prevented the start. The server ends when the client closes the channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from crossbench.errors import CrossbenchError, TargetDied
from crossbench.serving.event_loop import run
from crossbench.serving.server import Server
from crossbench.system.stack_dump import dump_on_signal
from crossbench.wording import error_text


async def serve(make_server: Callable[[], Server], channel: Connection) -> None:
    """Build and run the server until the client closes the channel."""
    try:
        server = make_server()
        address = await server.start()
    except CrossbenchError as error:
        channel.send(error)
        return
    except Exception as error:
        traceback.print_exc()  # to the cell's log; the client receives only the message
        channel.send(TargetDied(f"the server process failed: {error_text(error)}"))
        return
    channel.send(address)
    with contextlib.suppress(EOFError, ConnectionError):
        await asyncio.to_thread(channel.recv)
    await server.stop()


def main(descriptor: int) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C also reaches the client, which then stops this process
    channel = Connection(descriptor)
    run(serve(channel.recv(), channel))


if __name__ == "__main__":
    dump_on_signal()
    main(int(sys.argv[1]))
