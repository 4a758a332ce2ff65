"""The life cycle: its edges as one table, and its equality with the library's own engine."""

from itertools import product
from typing import Any, get_args

import pytest
from msgspec.structs import replace
from statemachine import State as Node
from statemachine import StateMachine

from daemon.core import lifecycle
from daemon.core.decide import discover_alike
from daemon.core.equivalence import differences, discoveries, every_outcome, random_lives
from daemon.core.facts import Facts
from daemon.core.lifecycle import (
    EVENTS,
    LEGAL,
    STATES,
    TABLE,
    Edge,
    LifeCycle,
    _compile,
    choose,
)
from daemon.core.model import Event, Fingerprint, Key, Row, State, Transition

SEEN = Fingerprint(1, 1, 1, 1, 1)
UNDONE: tuple[State, ...] = ("settling", "ready", "failed", "done")
STARTED: tuple[State, ...] = ("ready", "failed", "quarantined", "held")

# The whole life cycle, a second time: event, the states it leaves, its guards in their order.
EDGES: list[tuple[Event, tuple[State, ...], list[tuple[str | None, State]]]] = [
    (
        "discover",
        ("untracked", "gone"),
        [
            ("adopted", "done"),
            ("left_behind", "ready"),
            ("as_done", "done"),
            ("tracked_only", "done"),
            ("looping", "quarantined"),
            ("settled", "ready"),
            (None, "settling"),
        ],
    ),
    ("change", ("ready", "failed", "quarantined", "done"), [("changed", "settling")]),
    (
        "settle",
        ("settling",),
        [
            ("left_behind", "ready"),
            ("as_done", "done"),
            ("tracked_only", "done"),
            ("looping", "quarantined"),
            ("settled", "ready"),
        ],
    ),
    ("start", ("ready",), [("fresh", "processing")]),
    (
        "succeed",
        ("processing",),
        [
            ("changed", "settling"),
            ("step_follows", "ready"),
            ("removal", "gone"),
            ("taken", "gone"),
            (None, "done"),
        ],
    ),
    ("fail", ("processing",), [("attempts_left", "failed"), (None, "quarantined")]),
    ("reject", ("processing",), [(None, "quarantined")]),
    ("interrupt", ("processing",), [("interruptions_left", "ready"), (None, "quarantined")]),
    ("retry", ("failed", "quarantined"), [(None, "ready")]),
    ("vanish", ("held",), [("absent", "gone")]),
    (
        "vanish",
        ("quarantined",),
        [("put_aside", "gone"), ("removal_planned", "ready"), ("absent", "gone")],
    ),
    ("vanish", UNDONE, [("removal_planned", "ready"), ("absent", "gone")]),
    ("move", ("settling",), [("fresh", "settling")]),
    ("move", ("ready",), [("fresh", "ready")]),
    ("move", ("failed",), [("fresh", "failed")]),
    ("move", ("quarantined",), [("fresh", "quarantined")]),
    ("move", ("done",), [("fresh", "done")]),
    ("move", ("held",), [("fresh", "held")]),
    ("move", ("gone",), [("fresh", "gone")]),
    ("hold", ("settling", "ready", "failed", "quarantined", "done"), [(None, "held")]),
    ("release", ("held",), [("removal_pending", "ready"), (None, "settling")]),
    ("skip", ("settling",), [(None, "done")]),
    ("skip", STARTED, [("removal", "gone"), (None, "done")]),
    ("reset", ("done", "failed", "quarantined", "held", "gone"), [(None, "untracked")]),
]
EXPECTED = {(source, event): edges for event, sources, edges in EDGES for source in sources}
PAIRS = list(product(get_args(State), get_args(Event)))


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=str)
def test_edges(state: State, event: Event) -> None:
    """Each state and event has the edges of the table, with their guards, in their order."""
    edges = [(edge.guard, edge.to) for edge in TABLE.get((state, event), ())]
    assert edges == EXPECTED.get((state, event), [])


def test_the_nouns_are_those_of_the_model() -> None:
    """Nine states and fifteen events, plain strings, the same in the class and in the types."""
    assert get_args(State) == STATES
    assert {type(state) for state in STATES} == {str}
    assert set(EVENTS) == set(get_args(Event))
    assert (len(STATES), len(EVENTS)) == (9, 15)


def test_legal_is_what_the_table_can_do() -> None:
    """`LEGAL` holds each (from, event, to) of the table and nothing else."""
    assert {
        (state, event, to) for (state, event), edges in EXPECTED.items() for _, to in edges
    } == LEGAL


def test_every_state_is_reached_and_left() -> None:
    """No state is a trap, and each one can be entered: a file never gets stuck by design."""
    assert {to for _, _, to in LEGAL} == set(STATES)
    assert {source for source, _, _ in LEGAL} == set(STATES)


def test_guards_are_questions_to_the_facts() -> None:
    """Each guard is an attribute of `Facts` and answers with a bool, never with something true."""
    facts = Facts(Row(1, Key("w", b"f")), seen=SEEN)
    guards = {edge.guard for edges in TABLE.values() for edge in edges if edge.guard}
    assert {type(getattr(facts, guard)) for guard in guards} == {bool}


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in EXPECTED])
def test_no_edge(state: State, event: Event) -> None:
    """A state that does not know the event refuses it as `no_edge`, whatever the facts."""
    facts = Facts(Row(1, Key("w", b"f"), state), seen=SEEN, settled=True, adopted=True)
    assert choose(facts, event) == "no_edge"


def test_the_first_open_edge_is_taken() -> None:
    """Where several edges are open, the one that stands first wins."""
    facts = Facts(Row(1, Key("w", b"f")), seen=SEEN, settled=True, adopted=True)
    assert choose(facts, "discover") == TABLE["untracked", "discover"][0]


def test_a_refusal_names_the_last_guard() -> None:
    """Where all edges are closed, the answer is the guard that was asked last."""
    facts = Facts(Row(1, Key("w", b"f"), "settling"), seen=SEEN, steps=("load",))
    assert choose(facts, "settle") == "settled"


def _declare(**guard: Any) -> type[StateMachine]:
    class Declared(StateMachine):
        ready = Node(initial=True, value="ready")
        done = Node(value="done")
        start = ready.to(done, **guard)
        reset = done.to(ready)

    return Declared


@pytest.mark.parametrize(
    "guard",
    [{"cond": ["fresh", "settled"]}, {"cond": "nonsense"}, {"unless": "fresh"}, {"cond": "!fresh"}],
    ids=str,
)
def test_what_the_table_cannot_say_is_refused(
    guard: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two guards on an edge, an unknown one, or a negated one stop the program at import."""
    monkeypatch.setattr(lifecycle, "LifeCycle", _declare(**guard))
    with pytest.raises(TypeError, match="one guard an edge"):
        _compile()


def test_table_and_engine_are_equal() -> None:
    """On every state, event and guard outcome, and over random lives, both decide the same."""
    assert differences() == []


def test_the_engine_agrees_on_facts_themselves() -> None:
    """python-statemachine resolves the guards on a `Facts` handed over as a listener."""
    row = Row(1, Key("w", b"f"), seen=SEEN)
    machine = LifeCycle(listeners=[Facts(row, seen=SEEN, settled=True, steps=("load",))])
    machine.send("discover")
    assert machine.current_state_value == "ready"


ALWAYS = Edge(None, lambda _: True, "ready")
TAMPERED = {
    "an edge too many": (("done", "retry"), (ALWAYS,)),
    "an edge gone": (("settling", "settle"), TABLE["settling", "settle"][1:]),
    "another order": (("untracked", "discover"), TABLE["untracked", "discover"][::-1]),
    "another target": (("held", "release"), (ALWAYS,)),
    "a guard lost": (("ready", "start"), (Edge(None, lambda _: True, "processing"),)),
    "a guard swapped": (("ready", "start"), (Edge("fresh", lambda f: f.settled, "processing"),)),
}


@pytest.mark.parametrize(("key", "edges"), TAMPERED.values(), ids=TAMPERED)
def test_a_difference_is_found(
    key: tuple[State, Event], edges: tuple[Edge, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that was tampered with is told from the engine, by both ways of asking."""
    monkeypatch.setitem(TABLE, key, edges)
    assert any(f"{key[1]} in state {key[0]}" in text for text in every_outcome())
    assert list(random_lives(lives=50, steps=100, seed=1))


@pytest.mark.parametrize("field", ["done", "rank", "seen", "at", "step", "due_at"])
def test_a_discovery_that_differs_is_found(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is what is decided of files together, if it is not what each is told alone."""

    def tampered(*given: Any) -> list[Transition]:
        together = discover_alike(*given)
        other = replace(together[-1].after, **{field: None})
        return [*together[:-1], replace(together[-1], after=other)]

    assert list(discoveries(bundles=50, seed=1)) == []
    monkeypatch.setattr("daemon.core.equivalence.discover_alike", tampered)
    assert list(discoveries(bundles=50, seed=1))
