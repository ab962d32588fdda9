"""Limits on what a client can hold without sending a request: connections, streams, watchers."""

from __future__ import annotations

from dataclasses import dataclass

from crossbench.errors import ConfigError

# How long a new connection may take to say hello: to finish TLS, send HTTP/2's preface and settings
HELLO_S = 10
# How long a client may take to acknowledge the server's settings or a ping
ANSWER_S = 20
# The server pings a connection on which it has received nothing for this long
PING_AFTER_S = 60
# How long the requests of a connection may still take once it has reached its age
GRACE_S = 300
MAX_METADATA_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of the whole server, and the times after which it closes a connection.

    Clients of gRPC notice a closed connection at once and open another one for their next request.

    Raises:
        ConfigError: a value is not positive.
    """

    max_connections: int
    max_requests: int  # that have begun, also those that have sent only their headers
    max_watchers: int  # streams of WatchMetrics
    idle_s: float  # a connection without requests is closed
    age_s: float | None  # a connection is replaced, and its requests have GRACE_S to end

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_requests", "max_watchers", "idle_s", "age_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(
                    f"server.connections.{name} must be more than 0, got {value}: raise it"
                )

    def options(self) -> list[tuple[str, int]]:
        """Return the options of a gRPC server."""
        options = [
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.max_concurrent_streams", self.max_requests),
            ("grpc.max_metadata_size", MAX_METADATA_BYTES // 2),
            ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.server_handshake_timeout_ms", HELLO_S * 1000),
            ("grpc.http2.settings_timeout", ANSWER_S * 1000),
            ("grpc.http2.ping_timeout_ms", ANSWER_S * 1000),
            ("grpc.keepalive_time_ms", PING_AFTER_S * 1000),
            ("grpc.keepalive_timeout_ms", ANSWER_S * 1000),
            ("grpc.max_connection_idle_ms", round(self.idle_s * 1000)),
        ]
        if self.age_s is not None:
            options.append(("grpc.max_connection_age_ms", round(self.age_s * 1000)))
            options.append(("grpc.max_connection_age_grace_ms", GRACE_S * 1000))
        return options
