"""The JSON Schema of the log's line, shipped with the program, and a light check against it."""

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def line_schema() -> dict[str, Any]:
    """The whole schema, draft 2020-12."""
    text = (files("daemon.schema") / "line.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def faults_of_line(line: dict[str, Any]) -> list[str]:
    """What is wrong with a line: fields missing, unknown, or with a value that is not listed.

    The tests validate with a full implementation; this is what `selftest` needs on any machine.
    """
    event = str(line.get("event"))
    kinds = line_schema()["$defs"]
    kind = kinds.get(event if event.startswith("daemon.") else "transition")
    if kind is None:
        return [f"{event}: no such event"]
    fields = kind["properties"]
    missing = [f"{event}: no {name}" for name in kind["required"] if name not in line]
    unknown = [f"{event}: unknown field {name}" for name in line if name not in fields]
    wrong = [
        f"{event}: {name} is {line[name]!r}"
        for name, rule in fields.items()
        if name in line and line[name] not in rule.get("enum", [line[name]])
    ]
    return missing + unknown + wrong
