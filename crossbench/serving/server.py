"""The server: starts to listen for gRPC and HTTP, drains and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from crossbench.errors import ConfigError
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.bearer import TokenCheck, read_token
from crossbench.serving.guarded_grpc import guarded_server
from crossbench.serving.intake import Intake
from crossbench.serving.rpcs import SERVICE_NAME
from crossbench.serving.server_settings import ServerSettings
from crossbench.serving.service import ModelService
from crossbench.serving.servicer import Account, OwnAccount, Servicer
from crossbench.serving.strict_handlers import StrictRegistry
from crossbench.serving.telemetry import Telemetry
from crossbench.system.addresses import join_address

if TYPE_CHECKING:
    from crossbench.serving.http.listener import Listener

# The error of gRPC's own size limit gives no advice, so the server checks max_request_bytes itself.
# gRPC refuses messages above this multiple of it while it receives them.
HARD_LIMIT_FACTOR = 2


log = logging.getLogger(__name__)

POLL_S = 0.01
FLUSH_S = 0.3  # for the last replies
UNLOAD_S = 15.0  # for unloading the models; a worker process that takes longer is killed


class Server:
    """Serves gRPC, and HTTP if it has a port, on the caller's loop, from start() to stop()."""

    def __init__(
        self,
        services: Mapping[str, ModelService],
        settings: ServerSettings,
        telemetry: Telemetry,
        info: pb.ServerInfo,
    ) -> None:
        self._services = services
        self.settings = settings
        self._telemetry = telemetry
        self.info = info
        self.intake = Intake(services, settings, telemetry)
        self._working = False
        self._server: grpc.aio.Server | None = None
        self._http: Listener | None = None
        self.address = ""
        self.http_url = ""  # of the HTTP port, if there is one

    async def start(self) -> str:
        """Start to listen. Returns HOST:PORT, or [HOST]:PORT for an IPv6 address.

        Raises:
            ConfigError: the port is in use or not permitted, or the host is not on this machine.
        """
        settings = self.settings
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
        self.servicer(OwnAccount(self.intake, self.info)).add_to(server)
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
        self._loop = asyncio.get_running_loop()
        for service in self._services.values():
            service.pool.crew.availability.changed = self._workers_changed
        self.start_workers()
        if settings.http.port is not None:
            self._http = self._listen_http()
        await server.start()
        if self._http is not None:
            self.http_url = self._http.start()
        self._server, self._checker = server, checker
        await self._show_health()
        self.address = join_address(settings.host, port)
        return self.address

    def servicer(self, account: Account) -> Servicer:
        """Return the RPCs of this server, which tell of `account`."""
        return Servicer(self.intake, self.settings.connections.max_watchers, account)

    def start_workers(self) -> None:
        """Let the workers compute until stop(). start() does this too; call it instead if somebody
        else listens and calls the RPCs of servicer()."""
        self._working = True
        for service in self._services.values():
            service.start()

    def _listen_http(self) -> Listener:
        # uvicorn is imported only if it is needed
        from crossbench.serving.http.app import App
        from crossbench.serving.http.listener import Listener

        token_file = self.settings.token_file
        token = None if token_file is None else read_token(token_file)
        return Listener(App(self.intake, self.settings, token, self.info), self.settings)

    def _interceptors(self) -> list[TokenCheck]:
        """Return what checks each RPC: nothing without a token, since it costs time."""
        if self.settings.token_file is None:
            return []

        def refused(method: str) -> None:
            if method.startswith(f"/{SERVICE_NAME}/"):
                self._telemetry.request_failed(grpc.StatusCode.UNAUTHENTICATED.name)

        return [TokenCheck(read_token(self.settings.token_file), refused)]

    def precompute_tokens(self, pairs: Iterable[tuple[str, str]]) -> None:
        """With pipeline=infer, cache the token ids of these (query, passage) for every model.

        Call this before the server starts.
        """
        known = list(pairs)
        for service in self._services.values():
            service.precompute_tokens(known)

    async def stop(self, unload_s: float = UNLOAD_S) -> None:
        """Refuse new requests, give those in flight `grace_s` to finish, then unload the models.

        Requests that then have no answer fail with UNAVAILABLE. Takes at most about
        `grace_s + unload_s + 0.5` seconds: workers and tokenizers that hang are left behind, and
        worker processes that have not ended are killed.
        """
        if self._working:
            # Health checks say NOT_SERVING first, and the port stays open: who calls gets an answer
            if self._server is not None:
                await self._checker.enter_graceful_shutdown()
            self.intake.drain()
            await _until(lambda: not self._telemetry.in_flight, self.settings.grace_s)
            for service in self._services.values():
                service.pool.shut()
            listening = [part for part in (self._server, self._http) if part is not None]
            await asyncio.gather(*(part.stop(FLUSH_S) for part in listening))
        await self._unload(unload_s)
        self._telemetry.usage.close()

    @property
    def grace_s(self) -> float:
        """How long stop() waits for requests in flight."""
        return self.settings.grace_s

    def kill(self) -> None:
        """Kill all worker processes at once."""
        for service in self._services.values():
            for replica in service.replicas:
                replica.kill()

    async def _unload(self, unload_s: float) -> None:
        # In threads that nobody joins: an engine may hang when it is asked to end
        threads = [
            threading.Thread(target=service.close, name="unload", daemon=True)
            for service in self._services.values()
        ]
        for thread in threads:
            thread.start()
        if not await _until(lambda: not any(t.is_alive() for t in threads), unload_s):
            log.warning("a model was not unloaded within %g s: it is left behind", unload_s)
            self.kill()

    def _workers_changed(self) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._show_health()))

    async def _show_health(self) -> None:
        """Say SERVING if every model has a worker that can serve."""
        serving = self.intake.serving
        status = health_pb2.HealthCheckResponse
        for name in ("", SERVICE_NAME):
            await self._checker.set(name, status.SERVING if serving else status.NOT_SERVING)


async def _until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition; return whether it came true in time."""
    end_s = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        if asyncio.get_running_loop().time() > end_s:
            return False
        await asyncio.sleep(POLL_S)
    return True
