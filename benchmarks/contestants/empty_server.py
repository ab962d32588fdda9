"""A grpc.aio server of our service that does no work: every score is zero.

It has crossbench's generated messages and nothing else of it. It prints its address, and ends when
its standard input closes.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

from crossbench.serving import inference_pb2 as pb
from crossbench.serving import inference_pb2_grpc as pb_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["Inference"].full_name


class EmptyServicer(pb_grpc.InferenceServicer):
    async def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:  # noqa: N802
        return pb.ScoreResponse(scores=[0.0] * len(request.passages))


async def main() -> None:
    server = grpc.aio.server()
    pb_grpc.add_InferenceServicer_to_server(EmptyServicer(), server)  # type: ignore[no-untyped-call]
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
