"""From row, event and evidence to the row that follows: tables of cases."""

from typing import Any

import pytest
from msgspec.structs import asdict, replace

from daemon.core.decide import decide
from daemon.core.facts import Facts
from daemon.core.lifecycle import LEGAL
from daemon.core.model import (
    Event,
    Fingerprint,
    Key,
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
SETTLE_AT = 1_500_000
RETRY_AT = 1_700_000
# A row with a past: whatever must not survive a transition shows.
OLD: dict[str, Any] = {
    "version": 4,
    "step": "load",
    "attempt": 3,
    "failures": 1,
    "interruptions": 1,
    "seen": A,
    "done": "old",
    "at": 5,
    "due_at": 77,
    "error": "old trouble",
}
CLEAN: dict[str, Any] = {
    "step": None,
    "attempt": 0,
    "failures": 0,
    "interruptions": 0,
    "due_at": None,
    "error": None,
}
UNCOUNTED = {name: CLEAN[name] for name in ("attempt", "failures", "interruptions", "error")}
UNTIMED: dict[str, Any] = {"due_at": None}
LOOP = "it came back"
TARGET = b"/srv/quarantine/b.csv"
TAKING = {"steps": ("load", "on_done")}
UNDOING = {"removal_steps": ("undo", "tell")}
REMOVING = {"plan": "remove", "seen": None, "step": "undo"}


def facts_for(row: Row, **given: Any) -> Facts:
    usual: dict[str, Any] = {"seen": A, "steps": ("load", "index"), "attempts": 3}
    timing = {"now": NOW, "settle_at": SETTLE_AT, "retry_at": RETRY_AT, "interruptions": 3}
    return Facts(row, **{**usual, **timing, **given})


def decided(facts: Facts, event: Event) -> Transition | Refused:
    trigger = Trigger(KEY, event, "test", error="new trouble", duration_ms=1.5)
    return decide(facts, event, trigger, "try-1", "files1")


Case = tuple[State, dict[str, Any], Event, dict[str, Any], State, dict[str, Any]]
# state, other fields of the row, event, facts -> state, fields that change
CASES: dict[str, Case] = {
    "adopted": (
        *("untracked", {"seen": None}, "discover", {"adopted": True}),
        *("done", {**CLEAN, "seen": A, "done": A.content}),
    ),
    "back, as it was done": (
        *("gone", {"seen": None, "done": A.content}, "discover", {"settled": True}),
        *("done", {**CLEAN, "seen": A}),
    ),
    "back, with another content": (
        *("gone", {"seen": None, "done": A.content}, "discover", {"settled": True, "seen": B}),
        *("ready", {**CLEAN, "seen": B, "step": "load"}),
    ),
    "back, as it was done, perhaps being written": (
        *("gone", {"seen": None, "done": A.content}, "discover", {}),
        *("settling", {**CLEAN, "seen": A, "due_at": SETTLE_AT}),
    ),
    "found settled, only tracked": (
        *("untracked", {"seen": None}, "discover", {"settled": True, "steps": ()}),
        *("done", {**CLEAN, "seen": A, "done": A.content}),
    ),
    "found, only tracked, perhaps being written": (
        *("untracked", {"seen": None}, "discover", {"steps": ()}),
        *("settling", {**CLEAN, "seen": A, "due_at": SETTLE_AT}),
    ),
    "found settled": (
        *("untracked", {"seen": None}, "discover", {"settled": True}),
        *("ready", {**CLEAN, "seen": A, "step": "load"}),
    ),
    "found settled, the end of a chain": (
        *("untracked", {"seen": None}, "discover", {"settled": True, "loop": LOOP}),
        *("quarantined", {**CLEAN, "seen": A, "step": "load", "error": LOOP}),
    ),
    "found settled, and a watch takes away what is done": (
        *("gone", {"done": A.content}, "discover", {"settled": True, **TAKING}),
        *("ready", {**CLEAN, "seen": A, "step": "on_done"}),
    ),
    "found": (
        *("untracked", {"seen": None}, "discover", {}),
        *("settling", {**CLEAN, "seen": A, "due_at": SETTLE_AT}),
    ),
    **{
        f"changed while {state}": (
            *(state, {}, "change", {"seen": B}),
            *("settling", {**CLEAN, "seen": B, "due_at": SETTLE_AT}),
        )
        for state in ("ready", "failed", "quarantined", "done")
    },
    "back in the middle of its removal": (
        *("failed", REMOVING, "change", {"seen": A}),
        *("settling", {**CLEAN, "plan": "process", "seen": A, "done": None, "due_at": SETTLE_AT}),
    ),
    "settled as it was done": (
        *("settling", {"done": B.content}, "settle", {"settled": True, "seen": B}),
        *("done", {**CLEAN, "seen": B}),
    ),
    "settled, only tracked": (
        *("settling", {}, "settle", {"settled": True, "steps": ()}),
        *("done", {**CLEAN, "done": A.content}),
    ),
    "settled once too often": (
        *("settling", {}, "settle", {"settled": True, "seen": B, "loop": LOOP}),
        *("quarantined", {**CLEAN, "seen": B, "step": "load", "error": LOOP}),
    ),
    "settled as it was done, and only that is left to take it away": (
        *("settling", {"done": A.content}, "settle", {"settled": True, **TAKING}),
        *("ready", {**CLEAN, "step": "on_done"}),
    ),
    "settled": (
        *("settling", {}, "settle", {"settled": True, "seen": B}),
        *("ready", {**CLEAN, "seen": B, "step": "load"}),
    ),
    "started": ("ready", {}, "start", {"seen": A_TOUCHED}, "processing", {**UNTIMED, "attempt": 4}),
    "removal started": (
        *("ready", REMOVING, "start", {"seen": None, "removal_steps": ("undo",)}),
        *("processing", {**UNTIMED, "attempt": 4}),
    ),
    "succeeded, a step follows": (
        *("processing", {}, "succeed", {}),
        *("ready", {**UNTIMED, **UNCOUNTED, "step": "index"}),
    ),
    "succeeded at last": (
        *("processing", {"step": "index"}, "succeed", {}),
        *("done", {**CLEAN, "done": A.content}),
    ),
    "succeeded, its step removed from the configuration": (
        *("processing", {"step": "once"}, "succeed", {}),
        *("done", {**CLEAN, "done": A.content}),
    ),
    "taken away": (
        *("processing", {"step": "on_done"}, "succeed", {"seen": None, **TAKING}),
        *("gone", {**CLEAN, "seen": None, "done": A.content}),
    ),
    "taken away, for all that can be seen": (
        *("processing", {"step": "on_done"}, "succeed", {**TAKING}),
        *("gone", {**CLEAN, "seen": None, "done": A.content}),
    ),
    "taken away, another came meanwhile": (
        *("processing", {"step": "on_done"}, "succeed", {"seen": B, **TAKING}),
        *("settling", {**CLEAN, "seen": B, "done": A.content, "due_at": SETTLE_AT}),
    ),
    "succeeded at last, gone meanwhile": (
        *("processing", {"step": "index"}, "succeed", {"seen": None}),
        *("done", {**CLEAN, "done": A.content}),
    ),
    "succeeded, changed meanwhile": (
        *("processing", {}, "succeed", {"seen": B}),
        *("settling", {**CLEAN, "seen": B, "due_at": SETTLE_AT}),
    ),
    "succeeded at last, changed meanwhile": (
        *("processing", {"step": "index"}, "succeed", {"seen": B}),
        *("settling", {**CLEAN, "seen": B, "done": A.content, "due_at": SETTLE_AT}),
    ),
    "removal, a step follows": (
        *("processing", REMOVING, "succeed", {"seen": None, "removal_steps": ("undo", "tell")}),
        *("ready", {**UNTIMED, **UNCOUNTED, "step": "tell"}),
    ),
    "removal succeeded": (
        *("processing", REMOVING, "succeed", {"seen": None, "removal_steps": ("undo",)}),
        *("gone", {**CLEAN, "plan": "process", "done": None}),
    ),
    "removal succeeded, back meanwhile": (
        *("processing", REMOVING, "succeed", {"removal_steps": ("undo",)}),
        *("settling", {**CLEAN, "plan": "process", "seen": A, "done": None, "due_at": SETTLE_AT}),
    ),
    "failed": (
        *("processing", {}, "fail", {}),
        *("failed", {"failures": 2, "due_at": RETRY_AT, "error": "new trouble"}),
    ),
    "failed for the last time": (
        *("processing", {"failures": 2}, "fail", {}),
        *("quarantined", {**UNTIMED, "failures": 3, "error": "new trouble"}),
    ),
    "rejected": (
        *("processing", {}, "reject", {}),
        *("quarantined", {**UNTIMED, "error": "new trouble"}),
    ),
    "interrupted by a stop": (
        *("processing", {"interruptions": 99}, "interrupt", {}),
        *("ready", {**UNTIMED, "error": "new trouble"}),
    ),
    "interrupted by a crash": (
        *("processing", {}, "interrupt", {"crashed": True}),
        *("ready", {**UNTIMED, "interruptions": 2, "error": "new trouble"}),
    ),
    "interrupted by one crash too many": (
        *("processing", {"interruptions": 2}, "interrupt", {"crashed": True}),
        *("quarantined", {**UNTIMED, "interruptions": 3, "error": "new trouble"}),
    ),
    "interrupted, its step removed from the configuration": (
        *("processing", {"step": "once"}, "interrupt", {}),
        *("ready", {**UNTIMED, "step": "load", "error": "new trouble"}),
    ),
    "retried": ("failed", {"step": "index"}, "retry", {}, "ready", UNTIMED),
    "retried by an operator": (
        *("quarantined", {"step": "index"}, "retry", {}),
        *("ready", {**UNTIMED, "failures": 0, "interruptions": 0}),
    ),
    "removal retried": (
        *("failed", REMOVING, "retry", {"seen": None, "removal_steps": ("undo",)}),
        *("ready", UNTIMED),
    ),
    **{
        f"vanished while {state}": (
            *(state, {"done": None}, "vanish", {"seen": None, **UNDOING}),
            *("gone", {**CLEAN, "seen": None}),
        )
        for state in ("settling", "ready", "failed", "quarantined", "held")
    },
    **{
        f"vanished while {state}, and an earlier content was done": (
            *(state, {}, "vanish", {"seen": None, **UNDOING}),
            *("ready", {**CLEAN, **REMOVING}),
        )
        for state in ("settling", "ready", "failed", "quarantined")
    },
    "vanished, and earlier contents were taken away": (
        *("settling", {}, "vanish", {"seen": None, **UNDOING, **TAKING}),
        *("gone", {**CLEAN, "seen": None}),
    ),
    "put aside": (
        *("quarantined", {}, "vanish", {"target": TARGET, **UNDOING}),
        *("gone", {**CLEAN, "seen": None, "error": "old trouble"}),
    ),
    "vanished after it was done": (
        *("done", {}, "vanish", {"seen": None}),
        *("gone", {**CLEAN, "seen": None}),
    ),
    "vanished after it was done, with a plan for that": (
        *("done", {}, "vanish", {"seen": None, "removal_steps": ("undo", "tell")}),
        *("ready", {**CLEAN, **REMOVING}),
    ),
    **{
        f"moved while {state}": (state, {}, "move", {"seen": A_TOUCHED}, state, {"seen": A_TOUCHED})
        for state in ("settling", "ready", "failed", "quarantined", "done", "held")
    },
    "moved to another path": (
        *("done", {}, "move", {"seen": A_TOUCHED, "moved_to": Key("w", b"elsewhere")}),
        *("done", {"seen": A_TOUCHED, "key": Key("w", b"elsewhere")}),
    ),
    "gone, and another file takes the path": (
        *("gone", {"seen": None}, "move", {"seen": None, "moved_to": Key("w", b"elsewhere")}),
        *("gone", {"key": Key("w", b"elsewhere")}),
    ),
    "renamed over, what was done with the new file is known": (
        *("done", {}, "change", {"seen": B, "inherited": B.content}),
        *("settling", {**CLEAN, "seen": B, "due_at": SETTLE_AT, "done": B.content}),
    ),
    "settled with a digest": (
        *("settling", {}, "settle", {"settled": True, "digest": "blake2b:00"}),
        *("ready", {**CLEAN, "step": "load", "digest": "blake2b:00"}),
    ),
    "settled with the digest of what was last done": (
        *("settling", {"done": "blake2b:00"}, "settle"),
        {"seen": B, "settled": True, "digest": "blake2b:00"},
        *("done", {**CLEAN, "seen": B, "digest": "blake2b:00", "done": "blake2b:00"}),
    ),
    "succeeded with a digest on record": (
        *("processing", {"digest": "blake2b:00", "step": "index"}, "succeed", {}),
        *("done", {**CLEAN, "step": None, "done": "blake2b:00"}),
    ),
    **{
        f"held while {state}": (state, {}, "hold", {"seen": B}, "held", UNTIMED)
        for state in ("settling", "ready", "failed", "quarantined", "done")
    },
    "removal released": (
        *("held", REMOVING, "release", {"seen": None, **UNDOING}),
        *("ready", {**UNTIMED, "failures": 0, "interruptions": 0}),
    ),
    "removal released, its file is back": (
        *("held", REMOVING, "release", {**UNDOING}),
        *("settling", {**CLEAN, "plan": "process", "seen": A, "done": None, "due_at": SETTLE_AT}),
    ),
    "removal released, and nothing is undone any more": (
        *("held", REMOVING, "release", {"seen": None}),
        *("settling", {**CLEAN, "plan": "process", "done": None, "due_at": SETTLE_AT}),
    ),
    "released": (
        *("held", {}, "release", {"seen": B}),
        *("settling", {**CLEAN, "seen": B, "due_at": SETTLE_AT}),
    ),
    **{
        f"skipped while {state}": (
            *(state, {}, "skip", {"seen": B}),
            *("done", {**UNTIMED, "step": None, "error": None, "done": B.content}),
        )
        for state in ("settling", "ready", "failed", "quarantined", "held")
    },
    "skipped, gone meanwhile": (
        *("failed", {}, "skip", {"seen": None}),
        *("done", {**UNTIMED, "step": None, "error": None, "done": A.content}),
    ),
    **{
        f"removal skipped while {state}": (
            *(state, REMOVING, "skip", {"seen": None}),
            *("gone", {**CLEAN, "plan": "process", "done": None}),
        )
        for state in ("ready", "failed", "quarantined", "held")
    },
    **{
        f"reset while {state}": (
            *(state, {}, "reset", {"seen": B}),
            *("untracked", {**CLEAN, "seen": B, "done": None}),
        )
        for state in ("done", "failed", "quarantined", "held", "gone")
    },
}


@pytest.mark.parametrize(
    ("state", "known", "event", "given", "to", "changes"), CASES.values(), ids=CASES
)
def test_decide(
    state: State,
    known: dict[str, Any],
    event: Event,
    given: dict[str, Any],
    to: State,
    changes: dict[str, Any],
) -> None:
    """Exactly the named fields change; version is one more, `at` is now, nothing else moves."""
    before = Row(1, KEY, state, **{**OLD, **known})
    decision = decided(facts_for(before, **given), event)
    assert isinstance(decision, Transition)
    expected = replace(before, **{"state": to, "version": 5, "at": NOW, **changes})
    assert asdict(decision.after) == asdict(expected)
    assert decision.before is before


def test_why_it_loops_is_on_record() -> None:
    """The reason of the loop guard is the error of the transition, and of the row."""
    facts = facts_for(Row(1, KEY, "settling", **OLD), settled=True, loop=LOOP)
    decision = decided(facts, "settle")
    assert isinstance(decision, Transition)
    assert (decision.guard, decision.error, decision.after.error) == ("looping", LOOP, LOOP)


def test_every_edge_has_its_case() -> None:
    """The cases above take every (from, event, to) that is legal, but for the twins of `gone`."""
    taken = {(state, event, to) for state, _, event, _, to, _ in CASES.values()}
    taken |= {("gone", event, to) for state, event, to in taken if state == "untracked"}
    taken |= {("untracked", event, to) for state, event, to in taken if event == "discover"}
    assert taken == LEGAL


def test_what_is_put_on_record() -> None:
    """A transition carries its attempt, node, cause, guard, error and duration for the record."""
    decision = decided(facts_for(Row(1, KEY, "processing", **OLD)), "fail")
    assert isinstance(decision, Transition)
    record = (decision.attempt_id, decision.node, decision.cause, decision.guard)
    assert record == ("try-1", "files1", "test", "attempts_left")
    assert (decision.event, decision.error, decision.duration_ms) == ("fail", "new trouble", 1.5)


REFUSED: list[tuple[State, dict[str, Any], Event, dict[str, Any], str, str]] = [
    ("ready", {}, "start", {"seen": B}, "fresh", "by now the disk shows another file, or none"),
    ("ready", {}, "start", {"seen": None}, "fresh", "by now the disk shows another file, or none"),
    (
        "ready",
        {},
        "change",
        {"seen": A_TOUCHED},
        "changed",
        "the disk shows no other content than is known",
    ),
    (
        "ready",
        {},
        "change",
        {"seen": None},
        "changed",
        "the disk shows no other content than is known",
    ),
    ("settling", {}, "settle", {}, "settled", "the file has not settled yet"),
    ("settling", {}, "settle", {"steps": ()}, "settled", "the file has not settled yet"),
    ("settling", {"done": A.content}, "settle", {}, "settled", "the file has not settled yet"),
    ("ready", {}, "vanish", {}, "absent", "the file is there, or that it went is known"),
    (
        "ready",
        REMOVING,
        "vanish",
        {"seen": None},
        "absent",
        "the file is there, or that it went is known",
    ),
    (
        "held",
        {},
        "vanish",
        {"target": TARGET},
        "absent",
        "the file is there, or that it went is known",
    ),
    (
        "done",
        {},
        "vanish",
        {"removal_steps": ("undo",)},
        "absent",
        "the file is there, or that it went is known",
    ),
    ("done", {}, "move", {"seen": B}, "fresh", "by now the disk shows another file, or none"),
    ("processing", {}, "start", {}, "no_edge", "start is not allowed in state processing"),
    ("processing", {}, "hold", {}, "no_edge", "hold is not allowed in state processing"),
    ("held", {}, "change", {"seen": B}, "no_edge", "change is not allowed in state held"),
]


@pytest.mark.parametrize(("state", "known", "event", "given", "guard", "reason"), REFUSED)
def test_refused(
    state: State,
    known: dict[str, Any],
    event: Event,
    given: dict[str, Any],
    guard: str,
    reason: str,
) -> None:
    """A refusal is a value that names the guard, or `no_edge`, and says so in words."""
    refusal = decided(facts_for(Row(1, KEY, state, **{**OLD, **known}), **given), event)
    assert isinstance(refusal, Refused)
    assert refusal.guard == guard
    assert refusal.reason.endswith(reason)
