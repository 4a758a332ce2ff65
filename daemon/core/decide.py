"""From a row, a trigger and the evidence to a `Transition`, or to a `Refused`. Pure.

`compare` is the eye: it tells which event the difference between disk and row calls for.
`decide` is the will: it asks the life cycle for the edge and works out the row that follows.
"""

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from daemon.core.facts import Facts
from daemon.core.lifecycle import Edge, choose
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

# After these the file is compared with the disk once more: what changed under the handler's
# hands must not wait for the next scan.
OUTCOMES: frozenset[str] = frozenset({"succeed", "fail", "reject", "interrupt"})

Advance = Callable[[Facts, State, str | None], Row]


def compare(facts: Facts) -> Event | None:
    """The event that the disk calls for, or None where disk and row agree (the usual case)."""
    row = facts.row
    if row.state in {"untracked", "gone"}:
        return "discover" if facts.seen else None
    if row.state == "processing":
        return None
    if facts.absent:
        # What is to be undone waits for the operator's hand as well: see `release`.
        return None if row.state == "held" and facts.removal_planned else "vanish"
    if row.state == "settling":
        return "settle" if facts.settled else None
    if facts.changed and row.state != "held":
        return "change"
    # An alarm was set by the monotonic clock: when it rings the time is up, whatever the wall says.
    due = facts.alarm or (row.due_at is not None and row.due_at <= facts.now)
    return "retry" if row.state == "failed" and due else None


def decide(
    facts: Facts, event: Event, trigger: Trigger, attempt_id: str, node: str
) -> Transition | Refused:
    """What this event does to this row, on this evidence.

    `trigger` says why it came (`cause`, `error`, `duration_ms` end up on record);
    `attempt_id` names this attempt, refused or not; `node` is the machine's name.
    """
    edge = choose(facts, event)
    if not isinstance(edge, Edge):
        return Refused(edge, _reason(facts.row.state, event, edge))
    return Transition(
        before=facts.row,
        after=_ADVANCE[event](facts, edge.to, trigger.error),
        event=event,
        attempt_id=attempt_id,
        node=node,
        guard=edge.guard,
        cause=trigger.cause,
        error=facts.loop if edge.guard == "looping" else trigger.error,
        duration_ms=trigger.duration_ms,
        target=trigger.target,
    )


def discover_alike(
    first: Transition, others: Iterable[tuple[Key, Fingerprint, int, int, str]]
) -> list[Transition]:
    """What `decide` says of other new files, seen on the same evidence as `first` was.

    Given of each are path, fingerprint, the time of its next look, rank and `attempt_id`, for which
    no guard asks: `equivalence` has the proof. A fifth of what it costs to decide each.
    """
    event, node, guard, cause = first.event, first.node, first.guard, first.cause
    evidence, after = first.evidence, first.after
    to, version, step, plan, at = after.state, after.version, after.step, after.plan, after.at
    is_done, waits = after.done is not None, after.due_at is not None
    return [
        Transition(
            Row(0, key),
            # By position, as in `_anew`, without what is None for all that is new.
            Row(
                0,
                key,
                to,
                version,
                step,
                plan,
                0,  # attempt
                0,  # failures
                0,  # interruptions
                seen,
                seen.content if is_done else None,
                at,
                settle_at if waits else None,
                rank=rank,
            ),
            event,
            attempt_id,
            node,
            guard,
            cause,
            evidence,
        )
        for key, seen, settle_at, rank, attempt_id in others
    ]


# What it means that one says no, for those that say it last.
_REFUSALS = {
    "fresh": ": by now the disk shows another file, or none",
    "changed": ": the disk shows no other content than is known",
    "settled": ": the file has not settled yet",
    "absent": ": the file is there, or that it went is known",
}


def _reason(state: State, event: Event, guard: str) -> str:
    if guard == "no_edge":
        return f"{event} is not allowed in state {state}"
    return f"{event} in state {state} was refused by the guard {guard}{_REFUSALS.get(guard, '')}"


def _next(facts: Facts, to: State, **changes: object) -> Row:
    """The row one version on. A timer belongs to the state that set it and ends with it."""
    version = facts.row.version + 1
    fields = {"due_at": None, "rank": facts.rank, **changes}
    return replace(facts.row, state=to, version=version, at=facts.now, **fields)


def _anew(facts: Facts, to: State, _error: str | None) -> Row:
    """A content begins its life: settle it, hand it to the first step, or call it done.

    What a removal plan has touched is not done any more, even if the very same file comes back.
    """
    row = facts.row
    known = row.done if row.plan == "process" else None
    # By position: naming the fields to replace costs 2 us more, and every file passes here.
    return Row(
        row.id,
        row.key,
        to,
        row.version + 1,
        facts.first_step if to in {"ready", "quarantined"} else None,
        "process",
        0,  # attempt
        0,  # failures
        0,  # interruptions
        facts.seen,
        facts.content if to == "done" and facts.seen else facts.inherited or known,
        facts.now,
        facts.settle_at if to == "settling" else None,
        facts.loop if to == "quarantined" else None,
        facts.digest,
        None,  # result
        facts.rank,
    )


def _start(facts: Facts, to: State, _error: str | None) -> Row:
    """Count the attempt before it is made: a file that kills the daemon must not do so for ever."""
    return _next(facts, to, attempt=facts.row.attempt + 1)


def _succeed(facts: Facts, to: State, _error: str | None) -> Row:
    """What was done is the content the handler was given, whatever stands there now."""
    content = None if facts.step_follows else facts.row.content
    if to == "gone":
        return _over(facts, content)
    if to == "settling":
        anew = _anew(facts, to, None)
        return replace(anew, done=content) if content else anew
    done = content or facts.row.done
    step = facts.next_step if to == "ready" else None
    counts = {"attempt": 0, "failures": 0, "interruptions": 0}
    result = facts.result if step else None
    return _next(facts, to, step=step, done=done, result=result, error=None, **counts)


def _over(facts: Facts, done: str | None) -> Row:
    """Nothing is there any more, and nothing is left to do about it."""
    anew = _anew(facts, "gone", None)
    return replace(anew, seen=None, digest=None, done=done or anew.done)


def _fail(facts: Facts, to: State, error: str | None) -> Row:
    due_at = facts.retry_at if to == "failed" else None
    return _next(facts, to, failures=facts.row.failures + 1, error=error, due_at=due_at)


def _reject(facts: Facts, to: State, error: str | None) -> Row:
    return _next(facts, to, error=error)


def _interrupt(facts: Facts, to: State, error: str | None) -> Row:
    count = facts.row.interruptions + (1 if facts.crashed else 0)
    return _next(facts, to, step=facts.known_step, interruptions=count, error=error)


def _retry(facts: Facts, to: State, _error: str | None) -> Row:
    """Out of quarantine only an operator retries, and gives all the attempts again."""
    if facts.row.state == "quarantined":
        return _next(facts, to, step=facts.known_step, failures=0, interruptions=0)
    return _next(facts, to, step=facts.known_step)


def _vanish(facts: Facts, to: State, _error: str | None) -> Row:
    """Off the disk: either that is all, or the removal plan begins at its first step.

    Why a file was quarantined stays with it when it is put aside.
    """
    removing = to == "ready"
    error = facts.row.error if facts.put_aside else None
    step = facts.removal_steps[0] if removing else None
    plan = "remove" if removing else "process"
    counts = {"attempt": 0, "failures": 0, "interruptions": 0}
    fresh = {"seen": None, "digest": None, "result": None, "error": error}
    return _next(facts, to, plan=plan, step=step, **fresh, **counts)


def _move(facts: Facts, to: State, _error: str | None) -> Row:
    key = facts.moved_to or facts.row.key
    return _next(facts, to, key=key, seen=facts.seen, due_at=facts.row.due_at)


def _hold(facts: Facts, to: State, _error: str | None) -> Row:
    return _next(facts, to)


def _release(facts: Facts, to: State, _error: str | None) -> Row:
    """Begin anew; but what has to be undone, and is not through, goes on where it was."""
    if to == "settling":
        return _anew(facts, to, None)
    return _next(facts, to, step=facts.known_step, failures=0, interruptions=0)


def _skip(facts: Facts, to: State, _error: str | None) -> Row:
    if to == "gone":
        return _over(facts, None)
    content = facts.row.content if facts.fresh else facts.content or facts.row.content
    return _next(facts, to, step=None, done=content, error=None)


def _reset(facts: Facts, to: State, _error: str | None) -> Row:
    return replace(_anew(facts, to, None), done=None)


_ADVANCE: dict[Event, Advance] = {
    "discover": _anew,
    "change": _anew,
    "settle": _anew,
    "start": _start,
    "succeed": _succeed,
    "fail": _fail,
    "reject": _reject,
    "interrupt": _interrupt,
    "retry": _retry,
    "vanish": _vanish,
    "move": _move,
    "hold": _hold,
    "release": _release,
    "skip": _skip,
    "reset": _reset,
}
