"""The asyncio gRPC server: starts to listen, drains and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from crossbench.errors import ConfigError
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.bearer import TokenCheck, read_token
from crossbench.serving.guarded_grpc import guarded_server
from crossbench.serving.server_settings import ServerSettings
from crossbench.serving.service import ModelService
from crossbench.serving.servicer import SERVICE_NAME, Servicer
from crossbench.serving.strict_handlers import StrictRegistry
from crossbench.serving.telemetry import Telemetry
from crossbench.system.addresses import join_address

# The error of gRPC's own size limit gives no advice, so the server checks max_request_bytes itself.
# gRPC refuses messages above this multiple of it while it receives them.
HARD_LIMIT_FACTOR = 2


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
            interceptors=self._interceptors(),
            options=[
                ("grpc.max_receive_message_length", min(limit, 2**31 - 1)),
                ("grpc.max_send_message_length", -1),
                ("grpc.server.max_pending_requests", settings.max_pending_requests),
                ("grpc.server.max_pending_requests_hard_limit", 2 * settings.max_pending_requests),
                ("grpc.so_reuseport", 0),  # two servers on one port must be an error
                *settings.connections.options(),
            ],
            maximum_concurrent_rpcs=settings.connections.max_requests,
        )
        servicer = Servicer(self._services, settings, self._telemetry, self.info)
        servicer.add_to(server)
        checker = health.aio.HealthServicer()
        registry = StrictRegistry(server)
        health_pb2_grpc.add_HealthServicer_to_server(checker, registry)
        names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(names), registry
        )
        requested = join_address(settings.host, settings.port)
        credentials = settings.tls.credentials()
        try:
            if credentials is None:
                port = server.add_insecure_port(requested)
            else:
                port = server.add_secure_port(requested, credentials)
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

    def _interceptors(self) -> list[TokenCheck]:
        """Return what checks each RPC: nothing without a token, since it costs time."""
        if self._settings.token_file is None:
            return []

        def refused(method: str) -> None:
            if method.startswith(f"/{SERVICE_NAME}/"):
                self._telemetry.request_failed(grpc.StatusCode.UNAUTHENTICATED.name)

        return [TokenCheck(read_token(self._settings.token_file), refused)]

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
