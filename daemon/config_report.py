"""From what is wrong with a configuration to sentences that its author can act on."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from daemon.errors import Location, Problem

_SHOWN = 80
# Python refuses to write out an integer of thousands of digits, but TOML may hold one: 0xfff...
_DECIMAL_BITS = 256


class Finding(NamedTuple):
    """One thing that is wrong, before its line is known."""

    at: Location
    found: str
    remedy: str


class WrongValueError(ValueError):
    """A value that cannot be used, with everything that is wrong in it, located below it.

    `load` makes a `ConfigError` of it.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = list(findings)
        super().__init__("; ".join(f"{dotted(at)}: {found}" for at, found, _ in self.findings))

    def below(self, part: str | int) -> list[Finding]:
        """The findings, as located from the table or list that has the value at `part`."""
        return [finding._replace(at=(part, *finding.at)) for finding in self.findings]


def wrong(value: object, remedy: str, found: str | None = None) -> WrongValueError:
    """One thing that is wrong with a value: `found`, by default the value itself."""
    return WrongValueError([Finding((), found or f"found {show(value)}", remedy)])


def to_problems(findings: Iterable[Finding], file: str, text: str) -> list[Problem]:
    """The findings with their lines, in the order of the file."""
    # Imported here: a configuration without a fault, which is most of them, needs no lines.
    from daemon.toml_lines import line_numbers, line_of  # noqa: PLC0415

    lines = line_numbers(text)
    problems = [
        Problem(file, line_of(lines, at), dotted(at), found, remedy)
        for at, found, remedy in findings
    ]
    return sorted(problems, key=lambda problem: problem.line or 0)


def dotted(location: Location) -> str:
    """A key as its author would name it: `watch[0].settle.quiet`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{_quoted(part)}" for part in location)
    return "".join(parts).removeprefix(".")


def show(value: Any) -> str:  # noqa: ANN401 - whatever TOML can hold
    """A value as it reads in a sentence."""
    match value:
        case dict():
            return "a table"
        case list():
            return "a list" if value else "an empty list"
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > _DECIMAL_BITS:
            text = hex(value)
        case str():
            text = repr(value)
        case _:
            text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _quoted(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else repr(part)
