"""Reads a table of the file into its Struct: the one walk over fields, which stops at no error.

A reader is a function from what TOML holds to what the Struct holds; it raises `WrongValueError`.
A field's annotation says which: `Annotated[float, duration]`. Without one the type is enough: true
or false, one of a few words, or a table.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from msgspec import Struct
from msgspec.structs import FieldInfo, fields

from daemon.config_report import Finding, WrongValueError, wrong
from daemon.config_values import Read, choice, flag

Table = TypeVar("Table", bound=Struct)
Part = TypeVar("Part", str, int)
Value = TypeVar("Value")


class Example(NamedTuple):
    """In the annotation of a key without a default: the line that whoever forgot it is shown."""

    line: str


def table(model: type[Table]) -> Read[Table]:
    """Reads a table; no key that its model does not know, and none missing."""
    known = {field.name: field for field in fields(model)}

    def read(value: object) -> Table:
        if not isinstance(value, dict):
            raise wrong(value, "write a table")
        missing = [_missing(f) for f in known.values() if f.required and f.name not in value]
        unknown = [_unknown(key, list(known)) for key in value if key not in known]
        parts = ((key, _reader(known[key].type), value[key]) for key in value if key in known)
        return model(**_read_all(parts, [*missing, *unknown]))

    return read


def listing(read: Read[Value]) -> Read[tuple[Value, ...]]:
    """Reads a list, each element by the same reader."""

    def read_list(value: object) -> tuple[Value, ...]:
        if isinstance(value, dict):
            raise wrong(value, "begin it with two brackets, [[...]]: there may be several")
        if not isinstance(value, list):
            raise wrong(value, "write a list: [ ... ]")
        return tuple(_read_all((index, read, part) for index, part in enumerate(value)).values())

    return read_list


def _read_all(
    parts: Iterable[tuple[Part, Read[Value], object]], findings: Iterable[Finding] = ()
) -> dict[Part, Value]:
    """Every part's value, or everything that is wrong in any of them, with what already was."""
    values, findings = {}, list(findings)
    for at, read, value in parts:
        try:
            values[at] = read(value)
        except WrongValueError as error:
            findings += error.below(at)
    if findings:
        raise WrongValueError(findings)
    return values


def _reader(kind: Any) -> Read[Any]:  # noqa: ANN401 - a type form has no type
    if get_origin(kind) is Annotated:
        reader: Read[Any] = kind.__metadata__[0]
        return reader
    if get_origin(kind) is Literal:
        return choice(get_args(kind))
    return flag if kind is bool else table(kind)


def _missing(field: FieldInfo) -> Finding:
    (line,) = (made.line for made in field.type.__metadata__ if isinstance(made, Example))
    return Finding((field.name,), "the key is missing", f"add it: {line}")


def _unknown(key: str, known: list[str]) -> Finding:
    close = get_close_matches(key, known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return Finding((key,), "unknown key", f"{meant}known here: {', '.join(known)}")
