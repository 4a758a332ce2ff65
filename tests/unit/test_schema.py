"""The published schema of the line, its light check, and its documentation agree."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from daemon.core.lifecycle import EVENTS, STATES
from daemon.schema import faults_of_line, line_schema

DOCUMENT = Path(__file__).parents[2] / "docs" / "events.md"
GOOD: dict[str, Any] = {
    "timestamp": "2026-01-02T03:04:05.678901Z",
    "level": "info",
    "event": "start",
    "outcome": "success",
    "attempt_id": "a-1",
    "file_id": 1,
    "watch": "w",
    "path": "p",
    "from_state": "ready",
    "to_state": "processing",
    "guard_result": True,
    "error": None,
}
STOPPING = {
    "timestamp": GOOD["timestamp"],
    "level": "info",
    "event": "daemon.stopping",
    "node": "n",
    "running": 0,
}


def test_schema_is_one() -> None:
    """The schema is a valid schema of its draft."""
    jsonschema.Draft202012Validator.check_schema(line_schema())


def test_schema_knows_the_life_cycle() -> None:
    """Its states and events are those of the life cycle, and `look`."""
    fields = line_schema()["$defs"]["transition"]["properties"]
    assert set(fields["from_state"]["enum"]) == set(STATES) == set(fields["to_state"]["enum"])
    assert set(fields["event"]["enum"]) == {*EVENTS, "look"}


@pytest.mark.parametrize("line", [GOOD, STOPPING], ids=lambda line: str(line["event"]))
def test_good_line(line: dict[str, Any]) -> None:
    """A line as documented passes both checks."""
    jsonschema.Draft202012Validator(line_schema()).validate(line)
    assert faults_of_line(line) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"path": None, "_drop": "path"}, "no path"),
        ({"surprise": 1}, "unknown field surprise"),
        ({"to_state": "lost"}, "to_state is 'lost'"),
        ({"event": "daemon.unheard"}, "no such event"),
    ],
)
def test_bad_line(change: dict[str, Any], fault: str) -> None:
    """Both checks refuse what is not documented, and the light one says what it is."""
    line = {**GOOD, **change}
    line.pop(str(line.pop("_drop", "")), None)
    assert not jsonschema.Draft202012Validator(line_schema()).is_valid(line)
    assert any(fault in found for found in faults_of_line(line))


def test_document_names_everything() -> None:
    """docs/events.md names every field and every event of the schema, and no event besides."""
    text = DOCUMENT.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_.]+)`", text))
    for name, kind in line_schema()["$defs"].items():
        assert set(kind["properties"]) <= named, f"missing for {name}"
    daemon_events = {name for name in line_schema()["$defs"] if name != "transition"}
    assert {name for name in named if name.startswith("daemon.")} == daemon_events
    assert set(EVENTS) <= named
