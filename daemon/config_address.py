"""Where the metrics are served: the reader of that address, and what serving there takes."""

import re
from pathlib import Path
from typing import NamedTuple

from daemon.config_extras import without
from daemon.config_report import show, wrong

_FORMS = 'write "host:port", "[::1]:port" or "unix:/path", in quotes'
_HOST_PORT = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})")
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_PORTS = range(1, 65_536)
# The kernel's room for the name of a socket, without the NUL that ends it.
_LONGEST = 107


class TcpAddress(NamedTuple):
    """A port of this host; where the host has several addresses, at all of them."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(NamedTuple):
    """A socket in the file system."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def read_address(value: object) -> Address:
    """An address that can be served: `config_places` has made a path of what is one."""
    address = _socket(value) if isinstance(value, Path) else _port(value)
    if refusal := without("metrics", value, f"{address} cannot be served"):
        raise refusal
    return address


def _socket(path: Path) -> UnixAddress:
    if len(bytes(path)) > _LONGEST:
        found = f"found a path of {len(bytes(path))} bytes"
        raise wrong(path, f"the path of a socket has at most {_LONGEST} bytes", found)
    return UnixAddress(path)


def _port(value: object) -> TcpAddress:
    match = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise wrong(value, _FORMS)
    bracketed, plain, port = match.groups()
    if not (_is_ipv6(bracketed) if bracketed else _is_host(plain)):
        remedy = "name an address of this host, such as 127.0.0.1 or [::1], or its name"
        raise wrong(value, remedy, f"found {show(value)}, where no host can be meant")
    if int(port) not in _PORTS:
        raise wrong(value, f"a port is a number from {_PORTS[0]} to {_PORTS[-1]}")
    return TcpAddress(bracketed or plain, int(port))


def _is_host(text: str) -> bool:
    """Whether it is a name, or an address in four numbers: 127.1 is neither."""
    if not re.fullmatch(r"[0-9.]+", text):
        return bool(_HOST.fullmatch(text))
    from ipaddress import IPv4Address  # noqa: PLC0415 - 3 ms that few configurations need

    return _reads(IPv4Address, text)


def _is_ipv6(text: str) -> bool:
    from ipaddress import IPv6Address  # noqa: PLC0415 - as above

    return _reads(IPv6Address, text)


def _reads(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
