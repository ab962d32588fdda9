"""Find out why a client and a server do not understand each other."""

from __future__ import annotations

import socket
import ssl

from crossbench.serving.access import PUBLIC, ClientAccess
from crossbench.system.addresses import (
    is_this_machine,
    proxy_in_use,
    reachable_host,
    split_address,
)

TIMEOUT_S = 3.0
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def connection_fault(address: str, access: ClientAccess) -> str:
    """Return in words what is wrong with TLS between this client and the server at `address`.

    Empty if nothing is, if nobody listens there, or if a proxy is in between. gRPC itself only
    says that the connection failed, or nothing at all.
    """
    host, port = split_address(address, "server.address")
    where = (reachable_host(host), port)
    if proxy_in_use() is not None and not is_this_machine(host):
        return ""
    try:
        socket.create_connection(where, TIMEOUT_S).close()
    except OSError:
        return ""
    has_tls = _answers_tls(where)
    if access.ca is None:
        return (
            "the server wants TLS: give server.tls.ca=FILE with the certificates to trust, or "
            f"server.tls.ca={PUBLIC} for a public certificate"
            if has_tls
            else ""
        )
    if not has_tls:
        return "the server has no TLS: leave out server.tls, or start it with server.tls.cert"
    return _verification_fault(where, access)


def _answers_tls(where: tuple[str, int]) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(where, TIMEOUT_S) as connection,
            context.wrap_socket(connection),
        ):
            return True
    except OSError:  # ssl.SSLError is one too
        return False


def _verification_fault(where: tuple[str, int], access: ClientAccess) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as gRPC does
    context.set_alpn_protocols(["h2"])
    if access.ca == PUBLIC or access.ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(access.ca)
    if access.cert is not None:
        context.load_cert_chain(access.cert, access.key)
    try:
        with (
            socket.create_connection(where, TIMEOUT_S) as connection,
            context.wrap_socket(
                connection, server_hostname=access.server_name or where[0]
            ) as secure,
        ):
            secure.sendall(_HELLO)
            if secure.recv(1):  # a server that refuses the client's certificate closes instead
                return ""
    except ssl.SSLCertVerificationError as error:
        return (
            f"the server's certificate is refused ({error.verify_message}): give server.tls.ca "
            "with the authority that signed it, and server.tls.server_name if the certificate is "
            "for another name than that of the address"
        )
    except OSError:
        pass
    if access.cert is None:
        return (
            "the server wants a certificate from its clients: give server.tls.cert and "
            "server.tls.key"
        )
    return (
        f"the server does not trust the certificate in {access.cert}: give one that an authority "
        "in its server.tls.client_ca has signed"
    )
