"""What a handler is given for a row, and what its answer is to the life cycle."""

import hashlib

from daemon.core.model import Event, Key, Row, Trigger
from daemon.engine.trees import Tree
from daemon.handlers import Job, Outcome, Verdict

_EVENTS: dict[Verdict, Event] = {
    "success": "succeed",
    "retry": "fail",
    "reject": "reject",
    "defer": "interrupt",
    "unavailable": "interrupt",
}
_CAUSES: dict[Verdict, str] = {"defer": "shortage", "unavailable": "unavailable"}


def job_of(tree: Tree, row: Row) -> Job:
    """The job that a row stands for, at its own step."""
    return Job(
        row.id,
        row.key,
        tree.absolute(row.key.path),
        row.step or "",
        row.attempt,
        idempotency_key(row.key, row),
        row.version,
        row.plan,
        row.seen,
        row.result,
    )


def idempotency_key(key: Key, row: Row) -> str:
    """The same for the same content and step, on every attempt and after every restart."""
    content = row.content or f"removed-{row.done}"
    parts = (key.watch.encode(), key.path, content.encode(), (row.step or "").encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def accident(error: BaseException) -> Outcome:
    """What it means that a handler raised, which none should: mostly that this attempt failed."""
    text = f"{type(error).__name__}: {error}"
    # A thread that asyncio wanted for it, or memory: what the machine lacks is no file's fault.
    is_short = isinstance(error, MemoryError) or "can't start new thread" in text
    return Outcome("defer" if is_short else "retry", text)


def trigger_of(row: Row, outcome: Outcome) -> Trigger:
    """The trigger for what became of a row that was started at this version."""
    # An exception may name a path that is not UTF-8, and the database takes no such text.
    error = outcome.error and outcome.error.encode("utf-8", "backslashreplace").decode()
    return Trigger(
        row.key,
        _EVENTS[outcome.verdict],
        _CAUSES.get(outcome.verdict, "handler"),
        version=row.version,
        error=error,
        duration_ms=outcome.duration_ms,
        after=outcome.after,
        result=outcome.result,
        target=outcome.target,
    )


def interruption(row: Row, cause: str) -> Trigger:
    """The trigger for a row whose handler was ended, or never began."""
    return Trigger(row.key, "interrupt", cause, version=row.version)
