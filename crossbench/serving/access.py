"""What a client needs to get in: authorities that it trusts, its own certificate, its token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import grpc

from crossbench.errors import ConfigError
from crossbench.serving.bearer import authorization, read_token
from crossbench.serving.tls import cert_and_key, check_authorities
from crossbench.system.addresses import is_this_machine, split_address
from crossbench.system.secret_files import exposed_to_others, read_file

PUBLIC = "public"  # the authorities that gRPC itself trusts


@dataclass(frozen=True, slots=True)
class ClientAccess:
    """How a client recognises the server and gets in. All are paths of files except `server_name`.

    Without `ca` the client talks plain text. `ca` has the authorities that it trusts in PEM, or is
    `public`. `cert` and `key` are its own, for mutual TLS. `server_name` is the name in the
    server's certificate if it is not that of the address. The files hold the secrets, this object
    does not, so that it may be stored and printed.

    Raises:
        ConfigError: a file cannot be used, or one that is needed is not given.
    """

    ca: str | None
    cert: str | None
    key: str | None
    server_name: str | None
    token_file: str | None

    def __post_init__(self) -> None:
        pair = cert_and_key(self.cert, self.key)
        if self.ca is None and (pair is not None or self.server_name is not None):
            raise ConfigError(
                "server.tls is given without server.tls.ca: give a PEM file of the authorities "
                f"that this client trusts, or server.tls.ca={PUBLIC} for a public certificate"
            )
        if self.ca not in (None, PUBLIC):
            check_authorities(str(self.ca), "server.tls.ca")
        if self.token_file is not None:
            read_token(self.token_file)

    @classmethod
    def of(cls, paths: Mapping[str, str]) -> ClientAccess:
        """Return the access of `as_paths`."""
        return cls(**{field.name: paths.get(field.name) for field in fields(cls)})

    def as_paths(self) -> dict[str, str]:
        """Return the values that are given, for another process on this machine."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return {
            name: value
            if name == "server_name" or value == PUBLIC
            else str(Path(value).expanduser().resolve())
            for name, value in given.items()
        }

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return gRPC's credentials; None for plain text."""
        if self.ca is None:
            return None
        roots = None if self.ca == PUBLIC else read_file(self.ca, "server.tls.ca")
        if self.cert is None or self.key is None:
            return grpc.ssl_channel_credentials(roots)
        key = read_file(self.key, "server.tls.key")
        return grpc.ssl_channel_credentials(roots, key, read_file(self.cert, "server.tls.cert"))

    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """Return the metadata of each call; None without a token."""
        return None if self.token_file is None else (authorization(read_token(self.token_file)),)

    def warnings(self, address: str) -> list[str]:
        """Return what is not safe about this access to the server at `address`, in words."""
        found = []
        if self.key is not None:
            found.append(exposed_to_others(self.key, "server.tls.key"))
        if self.token_file is not None:
            found.append(exposed_to_others(self.token_file, "server.token_file"))
            host = split_address(address, "server.address")[0]
            if self.ca is None and not is_this_machine(host):
                found.append(
                    f"the token travels in plain text to {host}, where others on the network can "
                    "read it: give the server a certificate, and this client server.tls.ca"
                )
        return [warning for warning in found if warning]


OPEN = ClientAccess(None, None, None, None, None)  # to a server without TLS and token
