"""The readers of single values: what each accepts, and the sentence that refuses the rest."""

import math
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from daemon.config_report import show, wrong

PLACEHOLDERS = ("path", "relpath", "name", "watch", "step")

T_co = TypeVar("T_co", covariant=True)
Read = Callable[[Any], T_co]

_LONGEST = 3650 * 86400.0  # far beyond any use, and its microseconds still fit the database
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile("".join(rf"(?:([0-9]+(?:\.[0-9]+)?){unit})?" for unit in _UNITS))
_DURATION_FORMS = 'write a duration such as "250ms", "2s", "1m30s", "1h" or "2d", or seconds'
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME_MAX = 255
_MARKER = re.compile(r"[^{}/\0]*\{(?:name|stem)\}[^{}/\0]*")


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise wrong(value, "write true or false")
    return value


def text(value: object) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise wrong(value, "write a text in quotes")
    return value


def some_text(value: object) -> str:
    """Any text but an empty one."""
    written = text(value)
    if not written:
        raise wrong(value, "it must not be empty")
    return written


def choice(allowed: tuple[str, ...]) -> Read[str]:
    """One of a few words."""
    *others, last = map(repr, allowed)
    remedy = f"allowed: {', '.join(others)} or {last}" if others else f"allowed: {last}"

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise wrong(value, remedy)
        return value

    return read


def whole(least: int, most: int | None = None) -> Read[int]:
    """A whole number between two bounds, both allowed."""
    remedy = f"write a whole number, {_bounds(least, most)}"

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong(value, remedy)
        if value < least or (most is not None and value > most):
            raise wrong(value, remedy)
        return value

    return read


def number(least: float, most: float | None = None) -> Read[float]:
    """A number between two bounds, both allowed."""
    remedy = f"write a finite number, {_bounds(least, most)}"
    highest = sys.float_info.max if most is None else most

    def read(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise wrong(value, remedy)
        if not least <= value <= highest:
            raise wrong(value, remedy)
        return float(value)

    return read


def _bounds(least: float, most: float | None) -> str:
    return f"at least {least}" + ("" if most is None else f" and at most {most}")


def duration(value: object) -> float:
    """A span of time in seconds, perhaps none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong(value, _DURATION_FORMS)
    seconds = _seconds(value) if isinstance(value, str) else value
    if seconds is None:
        raise wrong(value, _DURATION_FORMS)
    if not 0 <= seconds <= _LONGEST:
        raise wrong(value, 'a duration is never negative, and at most "3650d"')
    return float(seconds)


def _seconds(written: str) -> float | None:
    match = _DURATION.fullmatch(written)
    if not match or not written:
        return None
    amounts = zip(match.groups(), _UNITS.values(), strict=True)
    return math.fsum(float(amount) * unit for amount, unit in amounts if amount)


def span(value: object) -> float:
    """A span of time in seconds, and not none."""
    if not (seconds := duration(value)):
        raise wrong(value, "it must be more than 0")
    return seconds


def folder(value: object) -> Path:
    """A path, which `config_places` has made absolute if it could."""
    if not isinstance(value, Path):
        raise wrong(value, "write a path in quotes")
    return value


def output(value: object) -> str:
    """Standard output, or the path of a file, made absolute like that of a folder."""
    if value != "stdout" and not isinstance(value, Path):
        raise wrong(value, 'write "stdout", or a path, as a text in quotes')
    return str(value)


def name(value: object) -> str:
    """What stands in lines, in environment variables and in questions on the command line."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", value):
        raise wrong(value, "use letters, digits, '_', '.' and '-', at least one, in quotes")
    return value


def pattern(value: object) -> str:
    """A gitignore pattern that can match something."""
    written = text(value)
    if "\n" in written or "\0" in written:
        raise wrong(value, "a pattern is one line; '?' stands for any one character")
    try:
        means_something = _means_something(written)
    except (ValueError, re.error, FutureWarning) as error:
        found = f"found {show(value)}, which is no gitignore pattern"
        raise wrong(value, "see 'man gitignore'", found) from error
    if not means_something:
        remedy = r"begin with '\#' for a name with a '#', and close each '['"
        raise wrong(value, remedy, f"found {show(value)}, which matches nothing")
    return written


def _means_something(written: str) -> bool:
    """Whether the pattern matches anything; raises where it does not mean what git means."""
    # Imported here: without patterns a start need not wait for it.
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of `[[:alpha:]]` pathspec only warns
        return GitIgnoreSpecPattern(written).include is not None


def marker(value: object) -> str:
    """The name of the file that says of another one that it is complete, made from its name."""
    remedy = (
        "write a file name with {name} or {stem} once, no other brace and no '/': '{name}.done'"
    )
    if not isinstance(value, str) or not _MARKER.fullmatch(value):
        raise wrong(value, remedy)
    if value == "{name}":
        raise wrong(value, remedy, f"found {show(value)}, which is the file itself")
    if value == "{stem}":
        raise wrong(value, remedy, f"found {show(value)}, by which every file is a marker")
    if len(value.encode()) > _NAME_MAX:
        raise wrong(value, f"a file's name has at most {_NAME_MAX} bytes: '{{name}}.done'")
    return value


def glob(value: object) -> str:
    """A shell pattern for the name of a file, in whichever folder."""
    written = some_text(value)
    if "/" in written or "\0" in written:
        raise wrong(value, "write a pattern for a file's name alone, without a '/': '*.manifest'")
    return written


def plain_argument(value: object) -> str:
    """An argument of a program, as it is."""
    written = text(value)
    if "\0" in written:
        raise wrong(value, "an argument cannot hold a NUL")
    return written


def argument(value: object) -> str:
    """An argument of a command; a name in braces stands for something of the file's."""
    written = plain_argument(value)
    for token in _BRACES.finditer(written):
        known = token[1] in PLACEHOLDERS
        if not known and token[0] not in {"{{", "}}"}:
            allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            found = f"found {token[0]!r} in {show(value)}"
            raise wrong(value, f"allowed: {allowed}, {{{{ and }}}}", found)
    return written


def reference(value: object) -> str:
    """Where a Python function is: `package.module:function`."""
    written = text(value)
    module, colon, names = written.partition(":")
    parts = [*module.split("."), *names.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise wrong(value, 'write "module:function", in names of Python')
    return written


def store(value: object) -> str:
    """The one kind of database there is, and a word to who wants the one that will follow."""
    if isinstance(value, str) and value.startswith(("postgresql:", "postgres:")):
        found = "PostgreSQL is not supported by this version"
        raise wrong(value, 'the one store is "sqlite"', found)
    return choice(("sqlite",))(value)
