"""Which line of a TOML text each key stands on; tomllib does not tell.

The text has been parsed already, so this walks it without checking it: headers and keys are read,
values are only skipped. A key inside an inline table or a list stands on its outer key's line.
"""

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from daemon.errors import Location

_PART = r"""(?: [A-Za-z0-9_-]+ | "(?:\\.|[^"\\])*" | '[^']*' )"""
_KEY = rf"(?P<key> {_PART} (?: [ \t]*\.[ \t]* {_PART} )* )"
_HEADER = re.compile(rf"[ \t]* (?P<open>\[\[?) [ \t]* {_KEY} [ \t]* \]\]?", re.VERBOSE)
_ASSIGNMENT = re.compile(rf"[ \t]* {_KEY} [ \t]* =", re.VERBOSE)
# Up to two quotes may stand right before the three that close a string, hence {3,5}.
_VALUE = re.compile(
    r'''
    """ (?:\\.|[^\\])*? "{3,5} | \'\'\' .*? \'{3,5} | "(?:\\.|[^"\\])*" | '[^']*'
    | \#[^\n]* | (?P<deeper>[\[{]) | (?P<out>[\]}]) | (?P<end>\n) | [^"'\#\[\]{}\n]+
    ''',
    re.VERBOSE | re.DOTALL,
)


def line_numbers(text: str) -> dict[Location, int]:
    """The line of every key and table, such as that of `("watch", 0, "settle", "quiet")`."""
    scan = _Scan()
    at, line = 0, 1
    while at < len(text):
        end = scan.statement(text, at, line)
        line += text.count("\n", at, end)
        at = end
    return scan.lines


def line_of(lines: Mapping[Location, int], location: Location) -> int | None:
    """The line of a key or, where it is not written, of the closest table that would hold it."""
    while location and location not in lines:
        location = location[:-1]
    return lines.get(location)


class _Scan:
    def __init__(self) -> None:
        self.lines: dict[Location, int] = {}
        self.table: Location = ()
        self.last: dict[Location, int] = {}

    def statement(self, text: str, at: int, line: int) -> int:
        """Take in one header, assignment or empty line, and return where the next one begins."""
        if found := _ASSIGNMENT.match(text, at):
            self._note(self._resolve(self.table, _parts(found["key"])), line)
        elif found := _HEADER.match(text, at):
            self._header(_parts(found["key"]), line, repeated=found["open"] == "[[")
        return _after_value(text, found.end() if found else at)

    def _header(self, parts: list[str], line: int, *, repeated: bool) -> None:
        if repeated:
            array = (*self._resolve((), parts[:-1]), parts[-1])
            self._note(array, line)
            self.last[array] = self.last.get(array, -1) + 1
        self.table = self._resolve((), parts)
        self._note(self.table, line)

    def _resolve(self, table: Location, parts: list[str]) -> Location:
        """A header names an array of tables without an index, and means its last element."""
        for part in parts:
            table = (*table, part)
            if table in self.last:
                table = (*table, self.last[table])
        return table

    def _note(self, location: Location, line: int) -> None:
        for length in range(1, len(location) + 1):
            self.lines.setdefault(location[:length], line)


def _parts(dotted: str) -> list[str]:
    tables: Any = tomllib.loads(f"{dotted} = 0")
    parts = []
    while isinstance(tables, dict):
        ((part, tables),) = tables.items()
        parts.append(part)
    return parts


def _after_value(text: str, at: int) -> int:
    depth = 0
    while token := _VALUE.match(text, at):
        at = token.end()
        depth += bool(token["deeper"]) - bool(token["out"])
        if token["end"] and depth == 0:
            break
    return at if token else len(text)
