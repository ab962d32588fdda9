"""The deployment of Ray Serve: each replica is a server of ours that listens on no port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from crossbench.errors import NotServing
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.on_ray.account import SharedAccount, reset_peaks, use_of_processes
from crossbench.serving.on_ray.call import CallEnded, Gate, RayCall, RayContext
from crossbench.serving.on_ray.merging import ReplicaCounters
from crossbench.serving.on_ray.roster import APP, DEPLOYMENT, NAMESPACE, ROSTER, told_failure
from crossbench.serving.server import Server

UNLOAD_S = 5.0  # for unloading the models

ReplyT = TypeVar("ReplyT", bound=Message)


class MakeServer(Protocol):
    """Builds a server whose replicas of the model share `cores`. It can be pickled."""

    def __call__(self, *, cores: int) -> Server: ...


class Scorer:
    """A replica. Ray calls the methods that are named as the RPCs with the bytes of a request.

    A method that ends a call with an error returns an empty message, because Ray would lose the
    metadata of the status if it raised. The client gets the status and no message.
    """

    async def __init__(self, make_server: MakeServer, cores: int, replicas: int) -> None:  # type: ignore[misc]
        import ray
        from ray import serve

        self._machine = ray.util.get_node_ip_address()
        roster = ray.get_actor(ROSTER, namespace=NAMESPACE)
        await roster.begin.remote(serve.get_replica_context().replica_id.unique_id)
        try:
            self._server = await asyncio.to_thread(make_server, cores=cores)
            self._server.start_workers()
            self._gate = Gate(self._server.settings)
        except Exception as error:
            await roster.fail.remote(*told_failure(self._machine, error))
            raise
        handle = serve.get_deployment_handle(DEPLOYMENT, APP)
        self._servicer = self._server.servicer(SharedAccount(handle, roster, replicas))

    async def check_health(self) -> None:
        """Ray replaces a replica for which this raises an error several times."""
        if not self._server.intake.serving:
            raise NotServing("no worker of the model can serve")

    async def __del__(self) -> None:
        """Ray awaits this when it ends the replica in an orderly way."""
        if "_server" in vars(self):  # otherwise it has failed to load the model
            await self._server.stop(UNLOAD_S)

    async def Score(self, data: bytes, grpc_context: RayContext) -> pb.ScoreResponse:
        return await self._answer("Score", pb.ScoreResponse, data, grpc_context)

    async def ScorePairs(self, data: bytes, grpc_context: RayContext) -> pb.ScoreResponse:
        return await self._answer("ScorePairs", pb.ScoreResponse, data, grpc_context)

    async def Embed(self, data: bytes, grpc_context: RayContext) -> pb.EmbedResponse:
        return await self._answer("Embed", pb.EmbedResponse, data, grpc_context)

    async def GetInfo(self, data: bytes, grpc_context: RayContext) -> pb.ServerInfo:
        return await self._answer("GetInfo", pb.ServerInfo, data, grpc_context)

    async def GetMetrics(self, data: bytes, grpc_context: RayContext) -> pb.Metrics:
        return await self._answer("GetMetrics", pb.Metrics, data, grpc_context)

    async def ResetMetrics(self, data: bytes, grpc_context: RayContext) -> pb.ResetMetricsResponse:
        return await self._answer("ResetMetrics", pb.ResetMetricsResponse, data, grpc_context)

    async def WatchMetrics(
        self, data: bytes, grpc_context: RayContext
    ) -> AsyncIterator[pb.Metrics]:
        call = RayCall(grpc_context)
        if refusal := self._refusal(grpc_context):
            await call.abort(*refusal)
        # A stream has no message to return with its status, so CallEnded goes on to Ray
        async for metrics in self._servicer.WatchMetrics(data, call):
            yield metrics

    async def own_info(self) -> bytes:
        return self._server.info.SerializeToString()

    async def own_counters(self, proxies: list[tuple[str, int]]) -> ReplicaCounters:
        intake = self._server.intake
        processes = use_of_processes(self._machine, proxies)
        return ReplicaCounters(intake.metrics(), intake.telemetry.recent_ms(), processes)

    async def own_reset(self, proxies: list[tuple[str, int]]) -> None:
        self._server.intake.telemetry.reset()
        await reset_peaks(self._machine, proxies)

    async def _answer(
        self, name: str, kind: type[ReplyT], data: bytes, grpc_context: RayContext
    ) -> ReplyT:
        call = RayCall(grpc_context)
        if refusal := self._refusal(grpc_context):
            call.refuse(*refusal)
            return kind()
        rpc: Any = getattr(self._servicer, name)
        try:
            reply: ReplyT = await rpc(data, call)
        except CallEnded:
            return kind()
        return reply

    def _refusal(self, grpc_context: RayContext) -> tuple[grpc.StatusCode, str] | None:
        refusal = self._gate.refusal(grpc_context)
        if refusal is not None:
            self._server.intake.telemetry.request_failed(refusal[0].name)
        return refusal
