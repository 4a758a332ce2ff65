"""From what pydantic says about a configuration to sentences that its author can act on."""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from daemon.errors import Problem
from daemon.toml_lines import Location, line_numbers, line_of

_REMEDIES = {
    "bool_type": "write true or false",
    "finite_number": "write a finite number",
    "float_type": "write a number",
    "greater_than": "it must be more than {gt:g}",
    "greater_than_equal": "it must be at least {ge:g}",
    "int_from_float": "write a whole number",
    "int_type": "write a whole number",
    "less_than_equal": "it must be at most {le:g}",
    "literal_error": "allowed: {expected}",
    "model_type": "write a table",
    "string_too_short": "it must not be empty",
    "string_type": "write a text in quotes",
    "tuple_type": "write a list: [ ... ]",
}
_SHOWN = 80


class Finding(NamedTuple):
    """One thing that is wrong, before its line is known."""

    at: Location
    found: str
    remedy: str


def explain(error: ValidationError, root: type[BaseModel], raw: dict[str, Any]) -> list[Finding]:
    """One finding for each of pydantic's; `raw` is what it was given, `root` the model for it."""
    return [_explain(detail, root, raw) for detail in error.errors(include_url=False)]


def to_problems(findings: Iterable[Finding], file: str, text: str) -> list[Problem]:
    """The findings with their lines, in the order of the file."""
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


def _explain(detail: ErrorDetails, root: type[BaseModel], raw: dict[str, Any]) -> Finding:
    at, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    if kind == "treewarden":
        return Finding((*at, *context["below"]), context["found"], context["remedy"])
    if kind == "missing":
        return Finding(at, "the key is missing", _example(str(at[-1]), _model_at(root, at[:-1])))
    if kind == "extra_forbidden":
        return Finding(at, "unknown key", _known(str(at[-1]), _model_at(root, at[:-1])))
    remedy = _REMEDIES.get(kind, detail["msg"]).format(**context)
    # Not `detail["input"]`, which may be a step on the way, such as 0.0 for "0s".
    written: Any = raw
    for part in at:
        written = written[part]
    return Finding(at, f"found {_show(written)}", remedy)


def _example(key: str, model: type[BaseModel]) -> str:
    examples = model.model_fields[key].examples
    return f"add it: {key} = {json.dumps(examples[0])}" if examples else f"add it: [[{key}]]"


def _known(key: str, model: type[BaseModel]) -> str:
    keys = list(model.model_fields)
    close = get_close_matches(key, keys, n=1)
    return (f"did you mean {close[0]}? " if close else "") + "known here: " + ", ".join(keys)


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel]:  # noqa: ANN401 - a type form has no type
    (model,) = (
        kind
        for kind in (annotation, *get_args(annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    )
    return model


def _show(value: Any) -> str:  # noqa: ANN401 - whatever TOML can hold
    match value:
        case dict():
            return "a table"
        case list():
            return "a list" if value else "an empty list"
        case bool():
            return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _quoted(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else repr(part)
