"""The types of the values in a configuration: what each accepts, and the sentence that refuses."""

import math
import os
import re
import warnings
from pathlib import Path
from typing import Annotated, TypeVar

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

PLACEHOLDERS = ("path", "relpath", "name", "watch", "step")

T = TypeVar("T")

_LONGEST = 3650 * 86400.0  # far beyond any use, and its microseconds still fit the database
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile("".join(rf"(?:([0-9]+(?:\.[0-9]+)?){unit})?" for unit in _UNITS))
_DURATION_FORMS = 'write a duration such as "250ms", "2s", "1m30s", "1h" or "2d", or seconds'
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def wrong(found: str, remedy: str, *below: str | int) -> PydanticCustomError:
    """What is wrong with a value, for the report; `below` leads to the key inside it."""
    context = {"found": found, "remedy": remedy, "below": below}
    return PydanticCustomError("treewarden", "{found}", context)


def _duration(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong(f"found {value!r}", _DURATION_FORMS)
    seconds = _seconds(value) if isinstance(value, str) else value
    if seconds is None:
        raise wrong(f"found {value!r}", _DURATION_FORMS)
    if not 0 <= seconds <= _LONGEST:
        raise wrong(f"found {value!r}", 'a duration is never negative, and at most "3650d"')
    return float(seconds)


def _seconds(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    if not match or not text:
        return None
    amounts = zip(match.groups(), _UNITS.values(), strict=True)
    return math.fsum(float(amount) * unit for amount, unit in amounts if amount)


def _placed(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return Path(os.path.realpath(value))
    if not isinstance(value, str) or not value or "\0" in value:
        raise wrong(f"found {value!r}", "write a path in quotes")
    return Path(os.path.realpath((info.context or Path()) / value))


def _output(value: str, info: ValidationInfo) -> str:
    return value if value == "stdout" else str(_placed(value, info))


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", value):
        raise wrong(f"found {value!r}", "use letters, digits, '_', '.' and '-', at least one")
    return value


def _pattern(value: str) -> str:
    if "\n" in value or "\0" in value:
        raise wrong(f"found {value!r}", "a pattern is one line; '?' stands for any one character")
    if not _compiles(value):
        raise wrong(f"found {value!r}, which is no gitignore pattern", "see 'man gitignore'")
    if GitIgnoreSpecPattern(value).include is None:
        remedy = r"begin with '\#' for a name with a '#', and close each '['"
        raise wrong(f"found {value!r}, which matches nothing", remedy)
    return value


def _compiles(pattern: str) -> bool:
    """Whether the pattern means what git means: pathspec only warns about `[[:alpha:]]`."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            GitIgnoreSpecPattern(pattern)
        except (ValueError, re.error, FutureWarning):
            return False
    return True


def _argument(value: str) -> str:
    if "\0" in value:
        raise wrong(f"found {value!r}", "an argument cannot hold a NUL")
    for token in _BRACES.finditer(value):
        known = token[1] in PLACEHOLDERS
        if not known and token[0] not in {"{{", "}}"}:
            allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise wrong(f"found {token[0]!r} in {value!r}", f"allowed: {allowed}, {{{{ and }}}}")
    return value


def _command(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not value[0]:
        raise wrong("found no program", 'write a list: ["program", "argument", ...]')
    return value


def _any(value: tuple[T, ...]) -> tuple[T, ...]:
    if not value:
        raise wrong("found none", "write at least one")
    return value


def _store(value: object) -> object:
    if isinstance(value, str) and value.startswith(("postgresql:", "postgres:")):
        raise wrong("PostgreSQL is not supported by this version", 'the one store is "sqlite"')
    return value


# TOML has lists, the models have tuples: the outer type is lax, its elements stay strict.
LIST = Field(strict=False)

Duration = Annotated[float, BeforeValidator(_duration)]
Span = Annotated[float, Field(gt=0), BeforeValidator(_duration)]
Folder = Annotated[Path, BeforeValidator(_placed)]
Output = Annotated[str, AfterValidator(_output)]
Name = Annotated[str, AfterValidator(_name)]
Patterns = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], LIST]
Command = Annotated[
    tuple[Annotated[str, AfterValidator(_argument)], ...], LIST, AfterValidator(_command)
]
# pydantic's own min_length counts only the elements that are right, and complains twice.
NOT_EMPTY = AfterValidator(_any)

Store = BeforeValidator(_store)
