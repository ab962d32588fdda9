"""The address and the limits of a server."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from crossbench.errors import ConfigError
from crossbench.serving.access import ClientAccess
from crossbench.serving.bearer import read_token
from crossbench.serving.connections import ConnectionLimits
from crossbench.serving.http.settings import HttpSettings
from crossbench.serving.scheduler import require_at_least
from crossbench.serving.tls import ServerTls
from crossbench.system.addresses import check_host, is_loopback, listen_error_message
from crossbench.system.secret_files import exposed_to_others

BYTE_LIMITS = ("max_request_bytes", "max_text_bytes")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The server's address and limits, and who may use it. `port` 0 means any free port.

    A request is refused if it would wait longer than `max_queue_ms` (None: no such bound). gRPC
    itself drops requests if more than `max_pending_requests` have not reached the server's code.
    With `token_file`, clients must send the token in that file.
    """

    name: str
    host: str
    port: int
    max_pairs: int
    max_request_bytes: int
    max_text_bytes: int
    max_queue_pairs: int
    max_queue_ms: float | None
    max_pending_requests: int
    grace_s: float
    tls: ServerTls
    token_file: str | None
    connections: ConnectionLimits
    http: HttpSettings

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"server.port must be 0 (any free port) to 65535, got {self.port}")
        for key in (*BYTE_LIMITS, "max_pairs", "max_queue_pairs", "max_pending_requests"):
            require_at_least(f"server.{key}", getattr(self, key), 1)
        if self.max_queue_ms is not None:
            require_at_least("server.max_queue_ms", self.max_queue_ms, 1)
        object.__setattr__(self, "host", check_host(self.host, "server"))
        if self.token_file is not None:
            read_token(self.token_file)
        if self.port and self.port == self.http.port:
            raise ConfigError(
                f"server.port and server.http.port are both {self.port}: give two ports"
            )

    def client_access(self) -> ClientAccess:
        """Return how the clients of this program get into this server."""
        tls, mutual = self.tls, self.tls.client_ca is not None
        return ClientAccess(
            ca=tls.cert,
            cert=tls.cert if mutual else None,
            key=tls.key if mutual else None,
            server_name=tls.name(),
            token_file=self.token_file,
        )

    def warnings(self) -> list[str]:
        """Return in words who may come in without being asked, and which secrets lie open."""
        found = [self.tls.warning(), self._openness()]
        if self.token_file is not None:
            found.append(exposed_to_others(self.token_file, "server.token_file"))
        return [warning for warning in found if warning]

    def _openness(self) -> str:
        encrypted = self.tls.cert is not None
        asks = self.token_file is not None or self.tls.client_ca is not None
        if is_loopback(self.host) or (encrypted and asks):
            return ""
        opened = [] if asks else ["everyone who can reach this machine may use the server"]
        missing = [] if asks else ["server.token_file or server.tls.client_ca"]
        if not encrypted:
            opened.append("others on the network can read what is sent")
            missing.insert(0, "server.tls.cert and server.tls.key")
        return (
            f"server.host={self.host} is not loopback: {' and '.join(opened)}. Give "
            f"{', and '.join(missing)}, or server.host=127.0.0.1"
        )

    def check_listen(self) -> None:
        """Check that the server can listen, before it loads a model. Binds and releases the ports.

        Raises:
            ConfigError: a port is in use or not permitted, or the host is not on this machine.
        """
        self._check_port("server.port", self.port)
        if self.http.port is not None:
            self._check_port("server.http.port", self.http.port)

    def _check_port(self, key: str, port: int) -> None:
        try:
            addresses = socket.getaddrinfo(self.host, port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = addresses[0]
            with socket.socket(family, kind, protocol) as probe:
                # Like gRPC, accept a port that has only connections in TIME_WAIT
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            raise ConfigError(self.cannot_listen(key, port, error)) from error

    def cannot_listen(self, key: str, port: int, error: OSError) -> str:
        """Return in words why the server cannot listen on `port`, the value of `key`."""
        if error.errno == errno.EADDRINUSE:
            return (
                f"{key}={port} is already in use on {self.host}, perhaps by another "
                f"`python -m crossbench.serve`: stop that process, or give another {key}, or "
                f"{key}=0 for any free port"
            )
        if error.errno == errno.EACCES:
            return (
                f"this user may not listen on {key}={port} of {self.host}: give a port "
                f"above 1023, or {key}=0 for any free port"
            )
        return listen_error_message("server", self.host, error)
