"""docs/state-machine.md shows the life cycle as it is declared: diagram and table are compared."""

import re
from pathlib import Path
from typing import get_args

import pytest

from daemon.core.diagram import mermaid, table
from daemon.core.lifecycle import TABLE
from daemon.core.model import Event, State

DOCUMENT = Path(__file__).parents[2] / "docs" / "state-machine.md"
ARROW = re.compile(r" {4}(\w+) --> (\w+) : ([\w \[\],]+(<br/>[\w \[\],]+)*)")
GENERATED = {"diagram": f"```mermaid\n{mermaid()}\n```", "table": table()}


@pytest.mark.parametrize(("name", "text"), GENERATED.items(), ids=GENERATED)
def test_the_document_is_fresh(name: str, text: str) -> None:
    """What stands between the markers is generated; a failure shows the text that belongs there."""
    begin, end = f"<!-- {name}: generated, see the end of this page -->\n", f"\n<!-- end {name} -->"
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document.count(begin) == document.count(end) == 1
    shown = document.partition(begin)[2].partition(end)[0]
    assert shown == text, f"put this between the markers of {name}:\n\n{text}\n"


def test_every_edge_is_drawn() -> None:
    """The diagram has each edge with its event and guard; `else` where others were asked first."""
    head, start, *arrows = mermaid().splitlines()
    assert (head, start) == ("stateDiagram-v2", "    [*] --> untracked")
    drawn = set()
    for arrow in arrows:
        match = ARROW.fullmatch(arrow)
        assert match, arrow
        for label in match[3].split("<br/>"):
            event, _, guards = label.partition(" [")
            names = guards.removesuffix("]").split(", ")
            drawn |= {(match[1], event, name.replace("else", ""), match[2]) for name in names}
    declared = {
        (state, event, edge.guard or "", edge.to)
        for (state, event), edges in TABLE.items()
        for edge in edges
    }
    assert drawn == declared


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_is_explained(state: State) -> None:
    """Each state has a line of its own in the list of states."""
    assert f"\n| `{state}` | " in DOCUMENT.read_text(encoding="utf-8")


def test_every_event_has_its_row() -> None:
    """The table names each event and each guard."""
    text = table()
    guards = {edge.guard for edges in TABLE.values() for edge in edges if edge.guard}
    assert [name for name in (*get_args(Event), *guards) if f"`{name}`" not in text] == []


def test_every_guard_is_explained() -> None:
    """Each guard has a line that says what it asks."""
    text = DOCUMENT.read_text(encoding="utf-8")
    guards = {edge.guard for edges in TABLE.values() for edge in edges if edge.guard}
    assert [name for name in guards if f"\n| `{name}` | " not in text] == []
