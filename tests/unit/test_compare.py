"""What a look calls for, and what holds for every decision on every combination of facts."""

from collections.abc import Iterator
from itertools import product
from typing import Any, get_args

import pytest
from msgspec.structs import replace

from daemon.core.decide import compare, decide
from daemon.core.facts import Facts
from daemon.core.lifecycle import LEGAL, TABLE
from daemon.core.model import (
    Event,
    Fingerprint,
    Key,
    Plan,
    Refused,
    Row,
    State,
    Transition,
    Trigger,
)

KEY = Key("incoming", b"a/b.csv")
A = Fingerprint(size=10, mtime_ns=1_000, ctime_ns=1_000, ino=7, dev=1)
A_TOUCHED = A._replace(ctime_ns=9_999, dev=2)  # another mode, another mount: the same content
B = A._replace(size=11)
NOW = 1_000_000
REMOVING: dict[str, Any] = {"plan": "remove", "seen": None, "step": "undo"}


def facts_for(state: State, known: dict[str, Any], given: dict[str, Any]) -> Facts:
    """A row that knows the content A, which the disk shows too, but for what is given."""
    row = Row(1, KEY, state, 4, **{"step": "load", "seen": A, "due_at": 77, **known})
    timing = {"now": NOW, "settle_at": NOW + 1, "retry_at": NOW + 2}
    usual: dict[str, Any] = {"seen": A, "steps": ("load",), "attempts": 3, "interruptions": 3}
    return Facts(row, **{**usual, **timing, **given})


def decided(facts: Facts, event: Event) -> Transition | Refused:
    return decide(facts, event, Trigger(KEY, event, "test"), "try-1", "files1")


COMPARED: list[tuple[State, dict[str, Any], dict[str, Any], Event | None]] = [
    *[(state, {"seen": None}, {}, "discover") for state in ("untracked", "gone")],
    *[(state, {"seen": None}, {"seen": None}, None) for state in ("untracked", "gone")],
    *[
        (state, {}, {"seen": None}, "vanish")
        for state in ("settling", "ready", "failed", "quarantined", "done", "held")
    ],
    *[
        (state, {"due_at": None}, {"seen": A_TOUCHED}, None)
        for state in ("settling", "ready", "failed", "quarantined", "done", "held")
    ],
    *[
        (state, {}, {"seen": B}, "change")
        for state in ("ready", "failed", "quarantined", "done")
    ],
    ("held", {}, {"seen": B}, None),
    ("settling", {}, {"seen": B}, None),
    ("settling", {}, {"settled": True}, "settle"),
    ("settling", {}, {"settled": True, "seen": B}, "settle"),
    *[("processing", {}, {"seen": seen}, None) for seen in (None, A, B)],
    *[
        (state, REMOVING, {"seen": None}, None)
        for state in ("ready", "processing", "quarantined", "done", "held")
    ],
    ("failed", {**REMOVING, "due_at": NOW + 1}, {"seen": None}, None),
    ("failed", {**REMOVING, "due_at": NOW}, {"seen": None}, "retry"),
    ("failed", REMOVING, {"seen": A}, "change"),
    ("failed", {"due_at": NOW}, {}, "retry"),
    ("failed", {"due_at": NOW + 1}, {}, None),
    ("failed", {"due_at": NOW + 1}, {"alarm": True}, "retry"),
    ("failed", {"due_at": NOW}, {"seen": B}, "change"),
    ("ready", {"due_at": NOW}, {"alarm": True}, None),
    ("quarantined", {"due_at": NOW}, {"alarm": True}, None),
]  # fmt: skip


@pytest.mark.parametrize(("state", "known", "given", "event"), COMPARED)
def test_compare(
    state: State, known: dict[str, Any], given: dict[str, Any], event: Event | None
) -> None:
    """A look sends the one event that the disk calls for, and nothing where disk and row agree."""
    assert compare(facts_for(state, known, given)) == event


def every_facts() -> Iterator[Facts]:
    """All states with every combination of what the rules look at: 27,648 of them."""
    flags = (True, False)
    plans: tuple[Plan, ...] = get_args(Plan)
    dimensions = (get_args(State), (None, A), plans, (0, 2), (0, 2), (None, A.content), (0, NOW))
    for state, seen, plan, failures, interruptions, done, due_at in product(*dimensions):
        step = "load" if plan == "process" else "undo"
        known = {"step": step, "plan": plan, "seen": seen, "done": done, "due_at": due_at}
        known |= {"failures": failures, "interruptions": interruptions}
        policy = product((None, A, B), ((), ("load",)), ((), ("undo",)), flags, (0, 1))
        for now, steps, removal, flag, kind in policy:
            given = {"seen": now, "steps": steps, "removal_steps": removal, "settled": flag}
            yield facts_for(state, known, given | {"crashed": flag, "adopted": flag and not kind})


def test_a_look_is_never_refused() -> None:
    """Whatever `compare` calls for, `decide` allows: a look ends in a transition or in nothing."""
    for facts in every_facts():
        event = compare(facts)
        assert event is None or isinstance(decided(facts, event), Transition), (facts, event)


def test_looks_come_to_rest() -> None:
    """Looking again on the same evidence changes nothing after at most three transitions."""
    for facts in every_facts():
        row, taken = facts.row, 0
        while event := compare(replace(facts, row=row, alarm=False)):
            decision = decided(replace(facts, row=row), event)
            assert isinstance(decision, Transition)
            row, taken = decision.after, taken + 1
            assert taken <= 3, facts


def test_invariants() -> None:
    """Every transition is legal, one version on, and keeps a timer or a step only where it may."""
    for facts in every_facts():
        for event in get_args(Event):
            decision = decided(facts, event)
            edges = TABLE.get((facts.row.state, event), ())
            if isinstance(decision, Refused):
                assert decision.guard in {"no_edge", *(edge.guard for edge in edges)}
                continue
            check_transition(facts, event, decision)


def check_transition(facts: Facts, event: Event, decision: Transition) -> None:
    before, after = decision.before, decision.after
    assert (before.state, event, after.state) in LEGAL
    assert (after.version, after.at) == (before.version + 1, NOW)
    assert (after.id, after.key) == (before.id, before.key)
    assert after.due_at is None or after.state in {"settling", "failed"} or event == "move"
    planned = facts.steps if after.plan == "process" else facts.removal_steps
    if after.state == "ready" and event != "move":
        assert after.step in planned if planned else after.step is None
    if after.state in {"untracked", "settling", "gone"} and event != "move":
        assert (after.plan, after.step, after.attempt) == ("process", None, 0)
