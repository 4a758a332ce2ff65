"""What a line of the log says, and how it becomes bytes. docs/events.md is its documentation."""

import os
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
import structlog
from msgspec import UNSET, Struct
from structlog.typing import EventDict, FilteringBoundLogger

from daemon.core.model import Record, Row, Trigger
from daemon.core.texts import path_fields, readable, timestamp

# journald splits a line at 48 KB and tools choke earlier; one transition has to fit in this.
LONGEST = 16_000
# Six bytes a character at worst, and two paths of 4,096 bytes are exact in 11,000 of base 64.
_SHORT = 200
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# A state that somebody should look at is worth more than `info`.
_LEVEL_OF_STATE = {"failed": "warning", "quarantined": "error"}

_WHERE_THEY_APPLY = (
    "guard",
    "version",
    "step",
    "attempt",
    "duration_ms",
    "size",
    "due_at",
    "evidence",
    "cause",
    "node",
)

_PATHS = ("path", "old_path", "target")

_encode = msgspec.json.Encoder().encode
Sink = Callable[[bytes], None]


class _Line(Struct, omit_defaults=True, gc=False):
    """The line of a committed transition, for the usual case: 1.1 us, a dict costs 3 us more."""

    timestamp: str
    level: str
    event: str
    outcome: str
    attempt_id: str
    file_id: int
    watch: str
    path: str
    from_state: str
    to_state: str
    guard_result: bool | None
    error: str | None
    guard: object
    version: int
    step: object
    attempt: object
    duration_ms: object
    size: object
    due_at: object
    evidence: object
    cause: object
    node: str


def level_of(record: Record) -> str:
    """The level of a committed transition's line."""
    return _LEVEL_OF_STATE.get(record.to_state, "info")


def fields_of(record: Record) -> dict[str, Any]:
    """The fields of a committed transition's line, without `timestamp`, `level` and `event`."""
    fields: dict[str, Any] = {
        "outcome": "success",
        "attempt_id": record.attempt_id,
        "file_id": record.file_id,
        "watch": record.watch,
        **path_fields("path", record.path),
        "from_state": record.from_state,
        "to_state": record.to_state,
        "guard_result": True if record.guard else None,
        "error": record.error,
    }
    for name in _WHERE_THEY_APPLY:
        value = getattr(record, name)
        if value is not None:
            fields[name] = value
    if record.due_at is not None:
        fields["due_at"] = timestamp(record.due_at)
    if record.old_path is not None:
        fields.update(path_fields("old_path", record.old_path))
    if record.target is not None:
        fields.update(path_fields("target", record.target))
    return fields


def fields_of_attempt(trigger: Trigger, row: Row, attempt_id: str, node: str) -> dict[str, Any]:
    """The fields of an attempt that changed nothing: the caller adds `outcome` and the reason."""
    return {
        "outcome": "",
        "attempt_id": attempt_id,
        "file_id": row.id or None,
        "watch": row.key.watch,
        **path_fields("path", row.key.path),
        "from_state": row.state,
        "to_state": row.state,
        "guard_result": None,
        "error": None,
        "version": row.version,
        "cause": trigger.cause,
        "node": node,
    }


def _shorten(line: EventDict) -> EventDict:
    """The same line with its long texts cut; an exact path stands in `path_b64` all the same."""
    cut = dict(line)
    for name in ("error", "reason", *_PATHS):
        text = cut.get(name)
        if isinstance(text, str) and len(text) > _SHORT:
            if name in _PATHS:
                cut.setdefault(f"{name}_b64", b64encode(text.encode()).decode())
            cut[name] = text[:_SHORT] + "..."
    return cut


def _spelled(value: object) -> object:
    """Text that is valid Unicode; anything else as it is."""
    return readable(os.fsencode(value)) if isinstance(value, str) else value


def _render(_logger: object, level: str, event: EventDict) -> tuple[tuple[bytes], dict[str, Any]]:
    """The last processor: keys in their documented order, as one line of JSON.

    Committed transitions come as `_records`, any number in one go: 3 us less for each.
    """
    records: Sequence[Record] | None = event.pop("_records", None)
    if records is None:
        return (_line(level, time.time_ns() // 1000, event),), {}
    return (b"".join([_line_of(level, record) for record in records]),), {}


def _line_of(level: str, record: Record) -> bytes:
    line = _usual(level, record)
    if line is None or len(line) > LONGEST:
        line = _line(level, record.at, {"event": record.event, **fields_of(record)})
    return line


def _usual(level: str, record: Record) -> bytes | None:
    """The line of a transition that moved nothing and has a path that is UTF-8."""
    try:
        path = record.path.decode()
    except UnicodeDecodeError:
        return None
    if record.old_path is not None or record.target is not None:
        return None
    guard, step, error, due_at = record.guard, record.step, record.error, record.due_at
    line = _Line(
        timestamp(record.at),
        level,
        record.event,
        "success",
        record.attempt_id,
        record.file_id,
        record.watch,
        path,
        record.from_state,
        record.to_state,
        True if guard else None,
        error,
        UNSET if guard is None else guard,
        record.version,
        UNSET if step is None else step,
        UNSET if record.attempt is None else record.attempt,
        UNSET if record.duration_ms is None else record.duration_ms,
        UNSET if record.size is None else record.size,
        UNSET if due_at is None else timestamp(due_at),
        UNSET if record.evidence is None else record.evidence,
        UNSET if record.cause is None else record.cause,
        record.node,
    )
    return _encode(line) + b"\n"


def _line(level: str, at: int, event: EventDict) -> bytes:
    name = event.pop("event")
    line = {"timestamp": timestamp(at), "level": level, "event": name, **event}
    try:
        encoded = _encode(line)
    except UnicodeEncodeError:  # an error's own words may name a file that is not UTF-8
        line = {key: _spelled(value) for key, value in line.items()}
        encoded = _encode(line)
    if len(encoded) > LONGEST:
        encoded = _encode(_shorten(line))
    return encoded + b"\n"


class _Sink:
    """What structlog calls with the finished line, whatever the level."""

    def __init__(self, write: Sink) -> None:
        self.debug = self.info = self.warning = self.error = write


def make_logger(level: str, write: Sink) -> FilteringBoundLogger:
    """A structlog logger of our own: an object, for a module-level one stays with its first stream.

    `write` receives each line, and those of `_records` in one piece.
    """
    logger = structlog.wrap_logger(
        _Sink(write),
        processors=[_render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        context_class=dict,
    )
    return cast("FilteringBoundLogger", logger.bind())
