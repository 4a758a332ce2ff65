"""Where the metrics are to be served: can it be listened at, and who could ask there."""

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from daemon.cli.checks import Finding, quoted
from daemon.cli.checks.folders import examine_writable, may, missing
from daemon.config_address import Address, TcpAddress, UnixAddress

WHAT = "metrics.listen"
# Family, and the address as the kernel takes it, which depends on the family.
Place = tuple[socket.AddressFamily, Any]


def examine_address(address: Address, *, running: bool) -> Iterator[Finding]:
    """Everything about the address; what a daemon that runs has taken is not tried."""
    if isinstance(address, UnixAddress):
        yield _socket(address.path)
        return
    try:
        places = _places(address)
        if not running:
            _try(places)
    except OSError as error:
        detail = f"{address}: {error.strerror}"
        yield Finding("error", WHAT, detail, "name an address of this host, and a free port")
    else:
        yield _openness(address, places)


def _places(address: TcpAddress) -> list[Place]:
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, name) for family, _, _, _, name in found]


def _try(places: Iterable[Place]) -> None:
    """Bind without listening: with this option, a daemon that starts just now is not in our way.

    Nor are we in its.
    """
    for family, name in places:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(name)


def _openness(address: TcpAddress, places: Iterable[Place]) -> Finding:
    if all(_is_loopback(str(name[0])) for _, name in places):
        return Finding("ok", WHAT, f"{address}, for this host alone")
    detail = f"{address}: other hosts may ask as well, and nobody needs a password"
    remedy = "listen on 127.0.0.1 or a unix socket, or see that a firewall stands before it"
    return Finding("warning", WHAT, detail, remedy)


def _is_loopback(host: str) -> bool:
    return ip_address(host.partition("%")[0]).is_loopback


def _socket(path: Path) -> Finding:
    if reason := missing(path.parent):
        return Finding("error", WHAT, reason, "make it, or name a socket elsewhere")
    if os.path.lexists(path) and not path.is_socket():
        detail = f"{quoted(path)} is there, and is no socket"
        return Finding("error", WHAT, detail, "remove it, or name another")
    if not may(path.parent, os.W_OK | os.X_OK):
        return examine_writable(WHAT, path.parent)
    return Finding("ok", WHAT, f"{quoted(path)}, for its owner and group")
