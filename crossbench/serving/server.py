"""The asyncio gRPC server: starts to listen, drains and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from crossbench.errors import ConfigError
from crossbench.serving import inference_pb2 as pb
from crossbench.serving import inference_pb2_grpc as pb_grpc
from crossbench.serving.guarded_grpc import guarded_server
from crossbench.serving.server_settings import ServerSettings
from crossbench.serving.service import ModelService
from crossbench.serving.servicer import Servicer
from crossbench.serving.telemetry import Telemetry
from crossbench.system.addresses import join_address

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Inference"].full_name
# The error of gRPC's own size limit gives no advice, so the server checks max_request_bytes itself.
# gRPC's limit is this multiple of it and protects the server's memory from huge messages.
HARD_LIMIT_FACTOR = 16


class Server:
    """A gRPC server that runs on the caller's event loop from start() to stop()."""

    def __init__(
        self,
        services: Mapping[str, ModelService],
        settings: ServerSettings,
        telemetry: Telemetry,
        info: pb.ServerInfo,
    ) -> None:
        self._services = services
        self._settings = settings
        self._telemetry = telemetry
        self.info = info
        self._server: grpc.aio.Server | None = None
        self.address = ""

    async def start(self) -> str:
        """Start to listen. Returns HOST:PORT, or [HOST]:PORT for an IPv6 address.

        Raises:
            ConfigError: the port is in use or not permitted, or the host is not on this machine.
        """
        settings = self._settings
        limit = settings.max_request_bytes * HARD_LIMIT_FACTOR
        server = guarded_server(
            [
                ("grpc.max_receive_message_length", min(limit, 2**31 - 1)),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # two servers on one port must be an error
            ]
        )
        servicer = Servicer(self._services, settings, self._telemetry, self.info)
        pb_grpc.add_InferenceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
        checker = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checker, server)
        names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        requested = join_address(settings.host, settings.port)
        try:
            port = server.add_insecure_port(requested)
        except RuntimeError as error:
            settings.check_listen()  # raises an error with the reason
            raise ConfigError(
                f"cannot listen on {requested} ({error}): give another server.host or server.port"
            ) from error
        for service in self._services.values():
            service.start()
        await server.start()
        for name in ("", SERVICE_NAME):
            await checker.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server, self._servicer, self._checker = server, servicer, checker
        self.address = join_address(settings.host, port)
        return self.address

    def precompute_tokens(self, pairs: Iterable[tuple[str, str]]) -> None:
        """With pipeline=infer, cache the token ids of these (query, passage) for every model.

        Call this before the server starts.
        """
        known = list(pairs)
        for service in self._services.values():
            service.precompute_tokens(known)

    async def stop(self) -> None:
        """Reject new requests, give those in flight `grace_s` to finish, then unload the models."""
        if self._server is not None:
            self._servicer.end_streams()
            await self._checker.enter_graceful_shutdown()
            await self._server.stop(self._settings.grace_s)
        for service in self._services.values():
            await asyncio.to_thread(service.close)
        self._telemetry.usage.close()
