"""What only a step of the kind `http` takes: the readers of its values.

Nothing that may be a secret is repeated in what they say: the path of a URL may be one, the value
of a header, and a secret that somebody has written into the configuration itself.
"""

import re
from pathlib import Path
from typing import Annotated

from msgspec import Struct

from daemon import config_values as values
from daemon.config_extras import without
from daemon.config_report import Finding, WrongValueError, wrong
from daemon.config_tables import table

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<user>[^/?#]*@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:[/?][!\x22$-~]*)?"
)
_PORTS = range(1, 65_536)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
# They belong to the message, to its way, or to the event in it; what is sent in them is ours.
_OURS = re.compile(
    r"host|content-length|transfer-encoding|content-encoding|connection|keep-alive|te|trailer"
    r"|upgrade|expect|proxy-.*|accept-encoding|idempotency-key|ce-.*",
    re.IGNORECASE,
)
Headers = tuple[tuple[str, str], ...]


class Secret(Struct, frozen=True, kw_only=True):
    """Where a secret is kept. What it is stands in no configuration."""

    file: Annotated[Path | None, values.folder] = None
    credential: Annotated[str | None, values.name] = None

    def __post_init__(self) -> None:
        """Refuse a secret that is in two places, or in none, or outside of the credentials."""
        if (self.file is None) == (self.credential is None):
            found = "found both" if self.file else "found neither file nor credential"
            remedy = 'write { file = "/path" } or { credential = "name" }'
            raise WrongValueError([Finding((), found, remedy)])
        if self.credential in {".", ".."}:
            remedy = "write the name that LoadCredential= gives it"
            raise WrongValueError([Finding(("credential",), "found no name", remedy)])


def secret(value: object) -> Secret:
    """The place of a secret."""
    if not isinstance(value, dict):
        remedy = 'put it into a file, and write { file = "/path" } or { credential = "name" }'
        raise wrong(value, remedy, "found something that is not the place of a secret")
    return table(Secret)(value)


def url(value: object) -> str:
    """Where files are sent to."""
    match = _URL.fullmatch(value) if isinstance(value, str) else None
    if not match:
        remedy = 'write "https://host/path", in ASCII (%20 for a space), without a "#"'
        raise wrong(value, remedy, "found no URL of the kind http or https")
    if {"{", "}"} & {*match[0]}:
        remedy = "leave it away (%7B, if it is meant): the path is in the event that is sent"
        raise wrong(value, remedy, "found a brace, and nothing is replaced in a URL")
    if match["user"]:
        raise wrong(value, "give a token as `secret`", "found a user before the host of the URL")
    if match["port"] and int(match["port"]) not in _PORTS:
        remedy = f"a port is a number from {_PORTS[0]} to {_PORTS[-1]}"
        raise wrong(value, remedy, f"found the port {match['port']}")
    if refusal := without("http", value, "nothing can be sent"):
        raise refusal
    return match[0]


def origin(address: str) -> str:
    """Scheme, host and port of a URL: of all its parts the one that is never a secret."""
    match = _URL.fullmatch(address)
    assert match  # noqa: S101 - `url` has read it
    port = f":{match['port']}" if match["port"] else ""
    return f"{match['scheme']}://{match['host']}{port}"


def is_exposed(address: str) -> bool:
    """Whether others may read on the way what is sent there."""
    match = _URL.fullmatch(address)
    assert match  # noqa: S101 - as above
    local = re.fullmatch(r"localhost|127(\.[0-9]+){3}|\[::1\]", match["host"])
    return match["scheme"] == "http" and not local


def header(value: object) -> str:
    """The name of a header that is not among those which we write ourselves."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise wrong(value, "write the name of a header, in quotes")
    if _OURS.fullmatch(value):
        raise wrong(value, "leave it away", f"found {value!r}, which is not for you to set")
    return value


def headers(value: object) -> Headers:
    """Headers that go with every request, by their names."""
    if not isinstance(value, dict):
        raise wrong(value, 'write a table: { "X-Team" = "files" }', "found none")
    findings = [finding for name, text in value.items() for finding in _wrong(name, text)]
    names = [name.lower() for name in value]
    findings += [
        Finding((name,), "found again, in other letters", "write it once")
        for index, name in enumerate(value)
        if name.lower() in names[:index]
    ]
    if findings:
        raise WrongValueError(findings)
    return tuple(value.items())


def _wrong(name: str, text: object) -> list[Finding]:
    try:
        header(name)
        if name.lower() == "authorization":
            raise wrong(name, "give a token as `secret`", "found what may be a secret")
        if not isinstance(text, str) or not _FIELD.fullmatch(text):
            raise wrong(text, "write printable ASCII, in quotes", "found another kind of text")
    except WrongValueError as error:
        return error.below(name)
    return []
