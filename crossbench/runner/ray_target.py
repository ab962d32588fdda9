"""target=ray_serve: replicas of our server behind the gRPC proxies of Ray Serve."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from crossbench.errors import ConfigError, TargetDied
from crossbench.runner.pinning import Cores
from crossbench.runner.ray_session import RaySession, check_room, elsewhere
from crossbench.serving.on_ray.roster import APP, DEPLOYMENT, ROSTER
from crossbench.serving.scheduler import require_at_least
from crossbench.serving.server_settings import ServerSettings
from crossbench.system.addresses import is_loopback, is_this_machine, join_address
from crossbench.wording import counted

log = logging.getLogger(__name__)

POLL_S = 0.1
STARTS = 3  # tries to start a replica whose process dies
QUIET = {"enable_access_log": False, "log_level": "WARNING"}
PROXY_LOCATION = {"head": "HeadOnly", "every_node": "EveryNode"}

T = TypeVar("T")


@dataclass
class RayServe:
    """Replicas of our server, each with `cpus` cores and `gpus` GPUs, wherever Ray has room.

    conf/target/ray_serve.yaml describes the values.

    Raises:
        ConfigError: a value cannot be used.
    """

    name: str
    replicas: int
    cpus: int
    gpus: float
    address: str | None
    proxies: Literal["head", "every_node"]
    max_ongoing_requests: int
    place_timeout_s: float
    host: str
    port: int
    grace_s: float
    cores: Cores | None = field(default=None, init=False)
    cluster: RaySession = field(default_factory=RaySession, init=False)
    _thread: ThreadPoolExecutor | None = field(default=None, init=False)
    _roster: Any = field(default=None, init=False)
    _serving: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        for key in ("replicas", "cpus", "max_ongoing_requests"):
            require_at_least(f"target.{key}", getattr(self, key), 1)
        for key, value in (("gpus", self.gpus), ("place_timeout_s", self.place_timeout_s)):
            require_at_least(f"target.{key}", value, 0)
        if (self.address or "").startswith("ray://"):
            raise ConfigError(
                f"target.address={self.address} is that of a Ray client: give the address "
                "of the cluster itself, such as target.address=HOST:6379, or auto"
            )

    def check(self, server: ServerSettings) -> None:
        """Refuse what Ray's proxies cannot do.

        Raises:
            ConfigError: the server should have TLS or an HTTP port.
        """
        if server.tls.cert is not None:
            raise ConfigError(
                f"server.tls.cert={server.tls.cert}: the proxies of Ray Serve have no TLS, so the "
                "requests would travel in plain text. Leave server.tls out and put a proxy with "
                "TLS in front, or give another target"
            )
        if server.http.port is not None:
            raise ConfigError(
                f"server.http.port={server.http.port}: target=ray_serve serves gRPC only. Leave "
                "server.http.port out, or give another target"
            )

    async def open(self, make_server: Callable[..., Any]) -> str:
        """Start or join Ray, deploy the replicas and return the HOST:PORT of a proxy.

        Raises:
            BackendUnavailable: Ray is not installed here, or a replica lacks its engine.
            ConfigError: the port is in use, Ray Serve runs already, or Ray has no room.
            TargetUnreachable: no cluster answers at `address`.
            TargetDied: a replica failed.
            CrossbenchError: what `make_server` raised in a replica.
        """
        try:
            return await self._in_thread(lambda: self._open(make_server))
        finally:
            _take_back_sigterm()

    async def close(self) -> None:
        """Let requests in flight end, remove the replicas, and end the Ray that open() started."""
        await self._in_thread(self._close)
        if self._thread is not None:
            self._thread.shutdown()

    async def _in_thread(self, action: Callable[[], T]) -> T:
        # One thread for all calls of Ray, whose processes end when the thread ends that started it
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)

    def _open(self, make_server: Callable[..., Any]) -> str:
        port = free_port(self.port)
        if self.address is None:
            self.cluster.start()
        else:
            self.cluster.join(self.address)
        address = self._proxy_address(port)
        check_room(self.cluster.nodes(), self.replicas, self.cpus, self.gpus)
        self._start_serve(port)
        self._deploy(make_server)
        self._wait()
        return address

    def _proxy_address(self, port: int) -> str:
        """Return where the proxy of the head listens.

        Raises:
            ConfigError: `server.host` is a loopback address, and the cluster has other machines.
        """
        nodes = self.cluster.nodes()
        others = elsewhere(nodes)
        if others and is_loopback(self.host):
            raise ConfigError(
                f"server.host={self.host} lets in calls from this machine only, but the Ray "
                f"cluster has other machines ({', '.join(others)}): give server.host=0.0.0.0, and "
                "server.token_file if not everyone on the network may call"
            )
        head = next(node.machine for node in nodes if node.is_head)
        return join_address("127.0.0.1" if is_this_machine(head) else head, port)

    def _start_serve(self, port: int) -> None:
        import ray
        from ray import serve

        from crossbench.serving.on_ray.roster import Roster

        if _serve_runs():
            raise ConfigError(
                "Ray Serve runs already on this cluster, and its gRPC services are fixed when it "
                "starts: end it with `serve shutdown`, or give another cluster"
            )
        self._roster = ray.remote(Roster).options(name=ROSTER, num_cpus=0).remote()
        ray.get(self._roster.state.remote())  # the proxies look for it
        self._serving = True
        serve.start(
            proxy_location=PROXY_LOCATION[self.proxies],
            # Ray Serve has no way to do without; the application is of no use over HTTP
            http_options={"host": "127.0.0.1", "port": free_port(0)},
            grpc_options={
                "port": port,
                "grpc_servicer_functions": ["crossbench.serving.on_ray.ingress.add_rpcs"],
            },
            logging_config=QUIET,
        )

    def _deploy(self, make_server: Callable[..., Any]) -> None:
        from ray import serve

        from crossbench.serving.on_ray.replica import UNLOAD_S, Scorer

        deployment = serve.deployment(
            Scorer,
            name=DEPLOYMENT,
            num_replicas=self.replicas,
            ray_actor_options={"num_cpus": self.cpus, "num_gpus": self.gpus},
            max_ongoing_requests=self.max_ongoing_requests,
            max_constructor_retry_count=STARTS,
            graceful_shutdown_wait_loop_s=POLL_S,
            graceful_shutdown_timeout_s=self.grace_s + UNLOAD_S,
            logging_config=QUIET,
        )
        application = deployment.bind(make_server, self.cpus, self.replicas)
        # The proxies find an application by its route, for gRPC too
        target = serve.RunTarget(application, name=APP, route_prefix=f"/{APP}")
        serve.run_many([target], wait_for_applications_running=False)

    def _wait(self) -> None:
        """Wait until all replicas serve.

        Raises:
            ConfigError: Ray has found no place for a replica within `place_timeout_s`.
            CrossbenchError: why a replica cannot start.
        """
        import ray
        from ray import serve

        end_s = time.monotonic() + self.place_timeout_s
        while True:
            begun, failure = ray.get(self._roster.state.remote())
            if failure is not None:
                error, trace = failure
                if isinstance(error, TargetDied):  # to the cell's log
                    log.error("%s", trace)
                raise error
            application = serve.status().applications[APP]
            if application.status == "RUNNING":
                return
            if application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise TargetDied(f"a replica cannot start: {application.message}")
            if begun < self.replicas and time.monotonic() > end_s:
                raise ConfigError(
                    f"Ray found a place for {begun} of {counted(self.replicas, 'replica')} within "
                    f"{self.place_timeout_s:g} s: end what else uses the cluster, raise "
                    "target.place_timeout_s, or give fewer target.replicas or target.cpus"
                )
            time.sleep(POLL_S)

    def _close(self) -> None:
        try:
            if self._serving:
                from ray import serve

                serve.delete(APP)  # it waits for requests in flight
                if self.address is not None:  # a Ray of our own takes its Serve along
                    serve.shutdown()
        except Exception as error:  # a cluster that has gone
            log.warning("Ray Serve was not ended: %s", error)
        finally:
            with contextlib.suppress(ImportError):
                self.cluster.leave()


def _take_back_sigterm() -> None:
    """Let Python handle SIGTERM again. Call this in the main thread.

    Ray's native code has put its own handler before, which prints a stack trace and ends the
    process with SIGABRT three seconds later, whatever Python does meanwhile.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _serve_runs() -> bool:
    import ray

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def free_port(port: int) -> int:
    """Return `port`, or any free one if it is 0.

    Raises:
        ConfigError: it is in use. Ray's proxies would share it with another program of Ray.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ConfigError(
            f"server.port={port} cannot be used ({error.strerror}): end what listens there, or "
            "give another server.port, or server.port=0 for any free port"
        ) from error
