"""The server process of target=process.

`python -m crossbench.runner.target_child FD`: FD is the number of a socket to the client.

The client sends a function that builds the server. It gets back the server's HOST:PORT, or the
error that prevented the start. The server ends when the client closes the channel, or on SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from crossbench.errors import CrossbenchError, TargetDied
from crossbench.serving.ending import Ending
from crossbench.serving.event_loop import run
from crossbench.serving.server import Server
from crossbench.system.stack_dump import dump_on_signal
from crossbench.wording import error_text

UNLOAD_S = 5.0  # for unloading the models, in the time that the client waits


async def serve(make_server: Callable[[], Server], channel: Connection) -> None:
    """Build and run the server until the client closes the channel, or until SIGTERM."""
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
    drain = asyncio.Event()
    asyncio.get_running_loop().add_reader(channel.fileno(), drain.set)  # the client closes it
    ending = Ending(server.grace_s)
    ending.install([signal.SIGTERM])
    ending.drain_by(drain)
    channel.send(address)
    await drain.wait()
    await server.stop(UNLOAD_S)
    ending.end()


def main(descriptor: int) -> None:
    # Ctrl-C and a closed terminal also reach the client, which then stops this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    channel = Connection(descriptor)
    run(serve(channel.recv(), channel))


if __name__ == "__main__":
    dump_on_signal()
    main(int(sys.argv[1]))
