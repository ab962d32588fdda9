"""Network addresses: parse and format HOST:PORT, recognise this machine, bypass proxies."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from urllib.parse import urlsplit

import psutil

from crossbench.errors import ConfigError
from crossbench.system.credentials import hide_argument

_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_HOST_ADVICE = (
    "give {group}.host=127.0.0.1 to listen on this machine only, or 0.0.0.0 to listen on all "
    "networks (::1 and :: for IPv6)"
)
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")


def join_address(host: str, port: int) -> str:
    """Return HOST:PORT, with brackets around an IPv6 address: `[::1]:50051`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str, key: str) -> tuple[str, int]:
    """Return the host and port of HOST:PORT; brackets around an IPv6 address are optional.

    `key` is the name of the setting, for example `server.address`.

    Raises:
        ConfigError: the host or the port is missing or invalid, or there is additional text.
    """
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    # str.isdecimal() also accepts digits of other scripts
    valid = bool(re.fullmatch(r"[0-9]{1,5}", port)) and 0 < int(port) <= 65535
    valid = valid and (_is_ipv6(bare) if ":" in bare or bare != host else _is_name(bare))
    if not valid:
        raise ConfigError(
            f"{key} must be HOST:PORT, got {address!r}: give for example {key}=127.0.0.1:50051, "
            f"or for IPv6 {key}=::1:50051"
        )
    return bare, int(port)


def check_host(host: str, group: str) -> str:
    """Return the value of `group`.host without brackets around an IPv6 address.

    Raises:
        ConfigError: the value is empty, or contains a port or a scheme.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (":" in bare and _is_ipv6(bare)) or (bare == host and _is_name(bare)):
        return bare
    try:
        name, port = split_address(host, f"{group}.host")
    except ConfigError:
        fault = "is empty" if not host.strip() else f"must be a host name or address, got {host!r}"
        raise ConfigError(f"{group}.host {fault}: {_HOST_ADVICE.format(group=group)}") from None
    raise ConfigError(
        f"{group}.host={host} contains a port: give {group}.host={name} {group}.port={port}"
    )


def listen_error_message(group: str, host: str, error: OSError) -> str:
    """Return the error message for a failed bind to `host` that the port did not cause."""
    if isinstance(error, socket.gaierror):
        fault = f"cannot be resolved ({error.strerror})"
    elif ":" in host and not has_ipv6():
        fault = f"is an IPv6 address, but IPv6 is disabled on this machine ({error.strerror})"
    else:
        fault = f"is not an address of this machine ({error.strerror})"
    return f"{group}.host={host} {fault}: {_HOST_ADVICE.format(group=group)}"


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 address, be it only the loopback address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def reachable_host(host: str) -> str:
    """Return the host that local clients connect to if a server listens on `host`.

    That is the loopback address if the server listens on all addresses, else `host` itself.
    """
    bound = host.strip("[]")
    if bound == "::":
        return "::1" if has_ipv6() else "127.0.0.1"
    return "127.0.0.1" if bound == "0.0.0.0" else bound  # nosec B104  # compared, not bound


def is_this_machine(host: str) -> bool:
    """Whether `host` is this machine: loopback, `0.0.0.0`, `::`, its hostname or its addresses.

    Names are not resolved, so any other name of this machine counts as remote.
    """
    name = host.strip("[]").removesuffix(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        own_names = {*_LOOPBACK_NAMES, socket.gethostname().lower()}
        return name in own_names or name.endswith(".localhost")
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or ipaddress.IPv6Address(name.partition("%")[0])
    return address.is_loopback or address.is_unspecified or str(address) in _own_addresses()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    name = host.strip("[]").removesuffix(".").lower()
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return name in _LOOPBACK_NAMES or name.endswith(".localhost")


def proxy_in_use() -> str | None:
    """Return the proxy variable of the environment as `http_proxy=…`, without any credentials.

    Returns None if no proxy is set.
    """
    for name in _PROXY_VARIABLES:
        for variable in (name, name.upper()):
            if value := os.environ.get(variable):
                return f"{variable}={hide_argument(value)}"
    return None


def bypass_proxy(url: str) -> None:
    """Add the host of `url` to `no_proxy` if it is this machine, so that HTTP clients skip proxies.

    All HTTP clients of this process read `no_proxy`. Without a proxy, nothing is changed.
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # not a URL: the client that opens it reports that
        return
    if not host or proxy_in_use() is None or not is_this_machine(host):
        return
    lower, upper = os.environ.get("no_proxy"), os.environ.get("NO_PROXY")
    for variable, value in (("no_proxy", lower or upper), ("NO_PROXY", upper or lower)):
        hosts = [item.strip() for item in (value or "").split(",") if item.strip()]
        if host not in hosts and "*" not in hosts:
            os.environ[variable] = ",".join([*hosts, host])


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
    """Whether `text` has the form of a host name or an IPv4 address."""
    return bool(re.fullmatch(r"[\w.-]+", text))
