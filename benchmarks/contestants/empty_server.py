"""A grpc.aio server of our service that does no work: every score is zero.

With the argument `worker`, a request goes to a worker thread and back, as it must if its model is
not to hold up the event loop; it then runs on uvloop, as our server does. It has crossbench's
generated messages and nothing else of it. It prints its address, and ends when its standard input
closes.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from queue import SimpleQueue
from typing import Any

import grpc
import uvloop
from grpc_reflection.v1alpha import reflection

from crossbench.serving import inference_pb2 as pb
from crossbench.serving import inference_pb2_grpc as pb_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["Inference"].full_name


class EmptyServicer(pb_grpc.InferenceServicer):
    async def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:  # noqa: N802
        return pb.ScoreResponse(scores=[0.0] * len(request.passages))


class WorkerServicer(pb_grpc.InferenceServicer):
    """Passes each request to one thread, which passes it back at once."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[asyncio.Future[None]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            future = self._queue.get()
            future.get_loop().call_soon_threadsafe(future.set_result, None)

    async def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:  # noqa: N802
        future = asyncio.get_running_loop().create_future()
        self._queue.put(future)
        await future
        return pb.ScoreResponse(scores=[0.0] * len(request.passages))


async def main(servicer: pb_grpc.InferenceServicer) -> None:
    server = grpc.aio.server()
    pb_grpc.add_InferenceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main(WorkerServicer()))
    else:
        asyncio.run(main(EmptyServicer()))
