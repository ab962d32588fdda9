"""Hosts, ports and proxies: HOST:PORT in and out, and which hosts are this machine."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from urllib.parse import urlsplit

import psutil

from crossbench.errors import ConfigError

_OWN_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_WHERE_TO_LISTEN = (
    "give {group}.host=127.0.0.1 for this machine alone, or 0.0.0.0 for its network (::1 and :: "
    "where it has IPv6)"
)
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")


def join_address(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address: `[::1]:50051`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str, key: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; an IPv6 address may have brackets (`[::1]:50051`) or none.

    `key` is what the user calls it (`server.address`).

    Raises:
        ConfigError: it has no host, no port or something besides them.
    """
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    # isdecimal() alone would let digits of other scripts through
    good = bool(re.fullmatch(r"[0-9]{1,5}", port)) and 0 < int(port) <= 65535
    good = good and (_is_ipv6(bare) if ":" in bare or bare != host else _is_name(bare))
    if not good:
        raise ConfigError(
            f"{key} must be HOST:PORT, got {address!r}: give for example {key}=127.0.0.1:50051, "
            f"or for IPv6 {key}=::1:50051"
        )
    return bare, int(port)


def check_host(host: str, group: str) -> str:
    """The host that `group`.host names, without the brackets that an IPv6 address may have.

    Raises:
        ConfigError: it is empty, or has a port or a scheme in it.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (":" in bare and _is_ipv6(bare)) or (bare == host and _is_name(bare)):
        return bare
    try:
        name, port = split_address(host, f"{group}.host")
    except ConfigError:
        what = "is empty" if not host.strip() else f"must be a host's name or address, got {host!r}"
        raise ConfigError(f"{group}.host {what}: {_WHERE_TO_LISTEN.format(group=group)}") from None
    raise ConfigError(
        f"{group}.host={host} has a port in it: give {group}.host={name} {group}.port={port}"
    )


def cannot_listen(group: str, host: str, error: OSError) -> str:
    """What to tell where binding to `host` failed for another reason than its port."""
    if isinstance(error, socket.gaierror):
        why = f"cannot be looked up ({error.strerror})"
    elif ":" in host and not has_ipv6():
        why = f"is an IPv6 address, and IPv6 is switched off here ({error.strerror})"
    else:
        why = f"is no address of this machine ({error.strerror})"
    return f"{group}.host={host} {why}: {_WHERE_TO_LISTEN.format(group=group)}"


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 address, if only loopback's."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def reachable_host(host: str) -> str:
    """Where a client on this machine reaches a server on `host`: loopback for all addresses."""
    bound = host.strip("[]")
    if bound == "::":
        return "::1" if has_ipv6() else "127.0.0.1"
    return "127.0.0.1" if bound == "0.0.0.0" else bound


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine: loopback, `0.0.0.0` or `::`, its hostname, its addresses.

    Names are not looked up, so another name of this machine counts as remote.
    """
    name = host.strip("[]").removesuffix(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        own = {*_OWN_NAMES, socket.gethostname().lower()}
        return name in own or name.endswith(".localhost")
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or ipaddress.IPv6Address(name.partition("%")[0])
    return address.is_loopback or address.is_unspecified or str(address) in _own_addresses()


def proxy_in_use() -> str | None:
    """`http_proxy=…` as the environment has it, without its password; None where it has none."""
    for name in _PROXY_VARIABLES:
        for variable in (name, name.upper()):
            if value := os.environ.get(variable):
                return f"{variable}={re.sub(r'(?<=//)[^/@]*@', '***@', value)}"
    return None


def keep_off_proxy(url: str) -> None:
    """Where `url` is this machine's, tell HTTP clients of this process to use no proxy for it.

    They all read `no_proxy` from the environment. It stays as it is where no proxy is set.
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # no URL: whoever opens it says so
        return
    if not host or proxy_in_use() is None or not is_this_machine(host):
        return
    lower, upper = os.environ.get("no_proxy"), os.environ.get("NO_PROXY")
    for variable, value in (("no_proxy", lower or upper), ("NO_PROXY", upper or lower)):
        known = [word.strip() for word in (value or "").split(",") if word.strip()]
        if host not in known and "*" not in known:
            os.environ[variable] = ",".join([*known, host])


def _own_addresses() -> set[str]:
    addresses = [item for items in psutil.net_if_addrs().values() for item in items]
    internet = (socket.AF_INET, socket.AF_INET6)
    return {item.address.partition("%")[0] for item in addresses if item.family in internet}


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_name(text: str) -> bool:
    """Whether it may be a host's name or an IPv4 address."""
    return bool(re.fullmatch(r"[\w.-]+", text))
