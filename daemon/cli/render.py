"""What answers look like, as text and as JSON. The only module of the command line that prints."""

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import msgspec

from daemon import __version__
from daemon.core.model import Record, Row, State
from daemon.core.texts import path_fields, readable, shown, timestamp
from daemon.errors import ServiceError

Item = TypeVar("Item")

STATES: tuple[str, ...] = get_args(State)
_CHUNK = 1_000
_STATE_WIDTH = max(map(len, STATES))
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_encode = msgspec.json.Encoder().encode


class WatchStatus(NamedTuple):
    """One watch; `root` is None for one that the configuration no longer has."""

    name: str
    root: bytes | None
    files: dict[str, int]
    oldest_ready: int | None
    next_retry: int | None


class Status(NamedTuple):
    """The daemon, its database, and its watches; `pid` is None when it does not run."""

    pid: int | None
    state_dir: Path
    database: Path
    size: int
    schema: int
    owed: int
    watches: list[WatchStatus]


class Widths(NamedTuple):
    """How wide the columns of `ls` are: it prints its first line before it knows the last."""

    watch: int
    step: int


def print_lines(lines: Iterable[str | bytes]) -> None:
    """Write lines to standard output; a reader that has gone away ends the command in silence.

    Raises:
        ServiceError: standard output cannot be written.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    encoding = sys.stdout.encoding or "utf-8"
    encoded = (s if isinstance(s, bytes) else s.encode(encoding, "backslashreplace") for s in lines)
    try:
        for chunk in _chunks(encoded):
            sys.stdout.buffer.write(b"\n".join(chunk) + b"\n")
            sys.stdout.buffer.flush()
    except OSError as error:
        # What is left in the buffer would be tried, and complained about, once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise ServiceError(f"standard output: {error.strerror}") from error


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The first line at once, and the others in bundles: 1,000,000 writes are seconds."""
    waiting = iter(items)
    size = 1
    while chunk := list(islice(waiting, size)):
        yield chunk
        size = _CHUNK


def status_json(status: Status, now: int) -> bytes:
    """One object."""
    return _encode(
        {
            "version": __version__,
            "running": status.pid is not None,
            "pid": status.pid,
            "state_dir": readable(os.fsencode(status.state_dir)),
            "database": {
                "path": readable(os.fsencode(status.database)),
                "size": status.size,
                "schema": status.schema,
            },
            "lines_owed": status.owed,
            "watches": [_watch_json(watch, now) for watch in status.watches],
        }
    )


def _watch_json(watch: WatchStatus, now: int) -> dict[str, Any]:
    root = {"path": None} if watch.root is None else path_fields("path", watch.root)
    oldest = watch.oldest_ready
    return {
        "name": watch.name,
        **root,
        "configured": watch.root is not None,
        "total": sum(watch.files.values()),
        "files": {state: watch.files.get(state, 0) for state in STATES},
        "oldest_ready_seconds": None if oldest is None else _seconds(oldest, now),
        "next_retry_at": _time(watch.next_retry),
    }


def status_text(status: Status, now: int) -> Iterator[str]:
    """What the daemon is about, then a table of its watches."""
    life = "not running" if status.pid is None else f"running, pid {status.pid or 'unknown'}"
    database = f"{shown(os.fsencode(status.database))}, {_size(status.size)}"
    yield f"treewarden    {__version__}, {life}"
    yield f"state folder  {shown(os.fsencode(status.state_dir))}"
    yield f"database      {database}, schema {status.schema}"
    yield f"lines owed    {status.owed}"
    yield ""
    head = ["watch", "files", "oldest ready", "next retry", "states"]
    yield from _table([head, *(_watch_cells(watch, now) for watch in status.watches)])


def _watch_cells(watch: WatchStatus, now: int) -> list[str]:
    present = [f"{watch.files[state]} {state}" for state in STATES if state in watch.files]
    gone = [] if watch.root is not None else ["(no longer configured)"]
    oldest, retry = watch.oldest_ready, watch.next_retry
    return [
        shown(watch.name),
        str(sum(watch.files.values())),
        "-" if oldest is None else _span(_seconds(oldest, now)),
        "-" if retry is None else _until(retry, now),
        ", ".join(present + gone) or "-",
    ]


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def row_text(row: Row, widths: Widths, now: int) -> str:
    """A file in one line: state, watch, step, attempt, age, path."""
    return (
        f"{row.state:<{_STATE_WIDTH}}  {row.key.watch:<{widths.watch}}  "
        f"{row.step or '-':<{widths.step}}  {row.attempt or '-':>3}  "
        f"{_span(_seconds(row.at, now)):>6}  {shown(row.key.path)}"
    )


def row_json(row: Row, now: int) -> bytes:
    """A file as one object."""
    return _encode(_row_fields(row, now))


def _row_fields(row: Row, now: int) -> dict[str, Any]:
    return {
        "file_id": row.id,
        "watch": row.key.watch,
        **path_fields("path", row.key.path),
        "state": row.state,
        "version": row.version,
        "step": row.step,
        "plan": row.plan,
        "attempt": row.attempt,
        "failures": row.failures,
        "interruptions": row.interruptions,
        "at": timestamp(row.at),
        "age_seconds": _seconds(row.at, now),
        "due_at": _time(row.due_at),
        "size": row.seen.size if row.seen else None,
        "error": row.error,
    }


def file_json(row: Row, history: Iterable[Record], now: int) -> bytes:
    """A file with everything that its row holds, and its transitions."""
    seen = row.seen
    disk = {
        "mtime_ns": seen.mtime_ns if seen else None,
        "ctime_ns": seen.ctime_ns if seen else None,
        "ino": seen.ino if seen else None,
        "dev": seen.dev if seen else None,
        "done": row.done,
    }
    return _encode(
        {**_row_fields(row, now), **disk, "transitions": [_record_json(r) for r in history]}
    )


def _record_json(record: Record) -> dict[str, Any]:
    fields = msgspec.structs.asdict(record)
    for name in ("file_id", "watch", "path"):  # the file's own, said once
        del fields[name]
    old_path = fields.pop("old_path")
    moved = {"old_path": None} if old_path is None else path_fields("old_path", old_path)
    return {**fields, "at": timestamp(record.at), "due_at": _time(record.due_at), **moved}


def file_text(row: Row, history: Iterable[Record], now: int) -> Iterator[str]:
    """A file with everything that its row holds, and its transitions."""
    yield f"{shown(row.key.path)}"
    yield from _table([[f"  {name}", value] for name, value in _facts(row, now) if value])
    yield ""
    for record in history:
        yield from _record_text(record)


def _facts(row: Row, now: int) -> Iterator[tuple[str, str]]:
    yield "watch", shown(row.key.watch)
    yield "state", f"{row.state}, for {_span(_seconds(row.at, now))}"
    yield "step", row.step or ""
    yield "plan", row.plan
    yield "tries", f"attempt {row.attempt}, failures {row.failures}, cut off {row.interruptions}"
    yield "due", f"{timestamp(row.due_at)}, {_until(row.due_at, now)}" if row.due_at else ""
    yield "error", shown(row.error or "")
    if seen := row.seen:
        yield "size", f"{seen.size} bytes"
        yield "modified", timestamp(seen.mtime_ns // 1000)
        yield "changed", timestamp(seen.ctime_ns // 1000)
        yield "inode", f"{seen.ino} on device {seen.dev}"
    yield "done", f"content {row.done}" if row.done else ""
    yield "row", f"id {row.id}, version {row.version}"


def _record_text(record: Record) -> Iterator[str]:
    """A line, and under it what the transition has beyond an ordinary one."""
    edge = f"{record.from_state} -> {record.to_state}"
    notes = {
        "guard": record.guard,
        "cause": record.cause,
        "evidence": record.evidence,
        "step": record.step,
        "attempt": record.attempt,
        "took": None if record.duration_ms is None else f"{record.duration_ms:g} ms",
        "from": None if record.old_path is None else shown(record.old_path),
    }
    told = "  ".join(f"{name}={value}" for name, value in notes.items() if value is not None)
    yield f"{timestamp(record.at)}  {record.event:<9}  {edge:<24}  {told}".rstrip()
    if record.error:
        yield f"{'':27}  error: {shown(record.error)}"


def _seconds(since: int, now: int) -> float:
    """The clock may have been put back since."""
    return max(0, now - since) / 1_000_000


def _time(at: int | None) -> str | None:
    return None if at is None else timestamp(at)


def _until(at: int, now: int) -> str:
    return "now" if at <= now else f"in {_span((at - now) / 1_000_000)}"


def _span(seconds: float) -> str:
    """The two largest units: `45s`, `3m20s`, `2d4h`."""
    left = int(seconds)
    parts = []
    for unit, length in _UNITS:
        count, left = divmod(left, length)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return "".join(parts[:2]) or "0s"


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:  # noqa: PLR2004 - what the units mean
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
