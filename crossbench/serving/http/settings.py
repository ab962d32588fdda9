"""The settings of the HTTP port."""

from __future__ import annotations

from dataclasses import dataclass

from crossbench.errors import ConfigError


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The port on which the server also answers HTTP; None: it does not, 0: any free port.

    A request must arrive within `receive_s` seconds after its headers, and its reply must be taken
    in that time.

    Raises:
        ConfigError: a value is out of range.
    """

    port: int | None
    receive_s: float

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ConfigError(
                f"server.http.port must be 0 (any free port) to 65535, got {self.port}: give one "
                "of these, or null for no HTTP"
            )
        if not self.receive_s > 0:
            raise ConfigError(f"server.http.receive_s must be above 0, got {self.receive_s}")
