"""`on_done` and `on_quarantine`: what becomes of a file in the end, and where it goes."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Struct

from daemon.config_names import ON_DONE
from daemon.config_report import show, wrong
from daemon.config_steps import Backoff, Step
from daemon.config_tables import Example, table

PLACEHOLDERS = ("relpath", "directory", "name", "stem", "suffix", "watch", "date", "time")
# One of these must be in it, or all files of a watch would go to one place.
_TELLING = frozenset({"relpath", "name", "stem"})
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def template(value: object) -> str:
    """Where a file goes: an absolute path, which `config_places` has made of what was written."""
    if not isinstance(value, Path):
        raise wrong(value, 'write a path in quotes: "/srv/archive/{date}/{relpath}"')
    written = os.fspath(value)
    names = [token[1] for token in _TOKEN.finditer(written)]
    for token in _TOKEN.finditer(written):
        if token[1] not in PLACEHOLDERS and token[0] not in {"{{", "}}"}:
            allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            found = f"found {token[0]!r} in {show(written)}"
            raise wrong(value, f"allowed: {allowed}, {{{{ and }}}}", found)
    if not _TELLING.intersection(filter(None, names)):
        remedy = "let it end in {relpath} or {name}: '/srv/archive/{relpath}'"
        raise wrong(value, remedy, f"found {show(written)}, one place for all files")
    return written


class Move(Struct, frozen=True, kw_only=True):
    """The file goes to another place, never onto a file that is there, unless `overwrite`."""

    move: Annotated[str, template, Example('move = "/srv/archive/{relpath}"')]
    overwrite: bool = False


After = Move | Literal["delete"]


class FilingStep(Step, frozen=True, kw_only=True):
    """`on_done` as the last step of its watch: it takes the file away."""

    name: str = ON_DONE
    concurrency: int = 4
    attempts: int = 10
    backoff: Backoff = Backoff(first=5.0)
    after: After
    watch: str


def read_on_done(value: object) -> After:
    """The word "delete", or a table that says where to."""
    if value == "delete":
        return "delete"
    return _move(value, '{ move = "/srv/archive/{relpath}" }, or "delete"')


def read_on_quarantine(value: object) -> Move:
    """A table that says where to: what could not be handled is never deleted."""
    return _move(value, '{ move = "/srv/quarantine/{relpath}" }')


def _move(value: object, forms: str) -> Move:
    if not isinstance(value, dict):
        raise wrong(value, f"write {forms}")
    return table(Move)(value)


def base_of(move: str, watch: str) -> Path:
    """The folder up to the first placeholder that differs by file: it has to be there, always."""
    return Path(*_fixed(Path(move.replace("{watch}", watch)).parts))


def _fixed(parts: tuple[str, ...]) -> Iterator[str]:
    """The components before the first with a placeholder, and never the last, which is a file."""
    for part in parts[:-1]:
        if _TOKEN.search(part.replace("{{", "").replace("}}", "")):
            return
        yield part.replace("{{", "{").replace("}}", "}")
