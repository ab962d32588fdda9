"""TLS of the server: checks the files and turns them into gRPC's credentials."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from crossbench.errors import ConfigError
from crossbench.system.secret_files import exposed_to_others, read_file

_END = b"-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The server's certificate and key, paths of PEM files. Without them the server has no TLS.

    With `client_ca`, clients need a certificate of one of these authorities (mutual TLS).

    Raises:
        ConfigError: a file cannot be read or is not PEM, they do not belong together, the
            certificate has expired, or one that is needed is not given.
    """

    cert: str | None
    key: str | None
    client_ca: str | None

    def __post_init__(self) -> None:
        pair = cert_and_key(self.cert, self.key)
        if pair is not None:
            certificate_of(*pair)
        if self.client_ca is None:
            return
        if pair is None:
            raise ConfigError(
                "server.tls.client_ca is given without server.tls.cert and server.tls.key: clients "
                "can show a certificate only to a server that has one, so give these too"
            )
        check_authorities(self.client_ca, "server.tls.client_ca")

    def credentials(self) -> grpc.ServerCredentials | None:
        """Return the credentials of the port; None if it has no TLS.

        With mutual TLS the server's own certificate is accepted too: the clients of this program
        use it, since whoever has its key is this server.
        """
        if self.cert is None or self.key is None:
            return None
        chain = read_file(self.cert, "server.tls.cert")
        pairs = [(read_file(self.key, "server.tls.key"), chain)]
        if self.client_ca is None:
            return grpc.ssl_server_credentials(pairs)
        return grpc.ssl_server_credentials(pairs, self._accepted(chain), require_client_auth=True)

    def _accepted(self, chain: bytes) -> bytes:
        """Return the authorities of clients, and the server's own certificate."""
        assert self.client_ca is not None
        # Only the first certificate of the file: the others are authorities with other customers
        own = chain.partition(_END)[0] + _END + b"\n"
        return read_file(self.client_ca, "server.tls.client_ca") + b"\n" + own

    def context(self) -> ssl.SSLContext | None:
        """Return the same for a port of HTTP; None if it has no TLS."""
        if self.cert is None or self.key is None:
            return None
        context = _with_pair(ssl.PROTOCOL_TLS_SERVER, self.cert, self.key)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.load_verify_locations(
                cadata=self._accepted(read_file(self.cert, "server.tls.cert")).decode("ascii")
            )
        return context

    def name(self) -> str | None:
        """Return a name or address for which the certificate is valid; None without TLS."""
        if self.cert is None or self.key is None:
            return None
        certificate = certificate_of(self.cert, self.key)
        alternatives = dict(reversed(certificate.get("subjectAltName", ())))
        subject = {name: value for ((name, value),) in certificate.get("subject", ())}
        found = alternatives.get("DNS") or alternatives.get("IP Address")
        return str(found or subject.get("commonName", "")).replace("*", "any") or None

    def warning(self) -> str:
        """Return a warning if others can read the key, else nothing."""
        return "" if self.key is None else exposed_to_others(self.key, "server.tls.key")


def cert_and_key(cert: str | None, key: str | None) -> tuple[str, str] | None:
    """Return the paths of a certificate and its key, which belong together; None if not given.

    Raises:
        ConfigError: a file cannot be used, or only one is given.
    """
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        given, missing = ("key", "cert") if cert is None else ("cert", "key")
        raise ConfigError(
            f"server.tls.{given} is given without server.tls.{missing}: give both, as paths of PEM "
            "files"
        )
    check_authorities(cert, "server.tls.cert")
    if b"PRIVATE KEY-----" not in read_file(key, "server.tls.key"):
        raise ConfigError(
            f"server.tls.key={key} has no private key in PEM: give a file with a line "
            "-----BEGIN PRIVATE KEY-----"
        )
    _with_pair(ssl.PROTOCOL_TLS_CLIENT, cert, key)
    return cert, key


def check_authorities(path: str, key: str) -> None:
    """Check a file of certificates, given as the setting `key`.

    Raises:
        ConfigError: it cannot be read, or has no certificate in PEM.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_text(path, key))
    except ssl.SSLError as error:
        raise ConfigError(
            f"{key}={path} has no certificate in PEM ({_reason(error)}): give a file with lines "
            "-----BEGIN CERTIFICATE-----"
        ) from error


def certificate_of(cert: str, key: str) -> dict[str, Any]:
    """Return the certificate of a server as `ssl` decodes it.

    That takes a handshake, here in memory, which also finds a certificate that clients would
    refuse.

    Raises:
        ConfigError: it has expired, is not valid yet, or is not for servers.
    """
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    asking.load_verify_locations(cadata=_text(cert, "server.tls.cert"))
    questions, answers = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(answers, questions)
    server = _with_pair(ssl.PROTOCOL_TLS_SERVER, cert, key).wrap_bio(
        questions, answers, server_side=True
    )
    try:
        for end in (client, server, client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or _reason(error)
        raise ConfigError(
            f"server.tls.cert={cert} would be refused by clients ({reason}): give another "
            "certificate and its key"
        ) from error
    return dict(client.getpeercert() or {})


def _with_pair(protocol: int, cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    try:
        # Without this password OpenSSL would ask for one on the terminal
        context.load_cert_chain(Path(cert).expanduser(), Path(key).expanduser(), lambda: "-")
    except ssl.SSLError as error:
        raise ConfigError(
            f"server.tls.key={key} cannot be used with server.tls.cert={cert} ({_reason(error)}): "
            "give the key of this certificate, without a password"
        ) from error
    return context


def _text(path: str, key: str) -> str:
    return read_file(path, key).decode("ascii", "replace")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
