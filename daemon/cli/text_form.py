"""The answers as text for a person: aligned, and nothing in them that a terminal obeys."""

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from daemon import __version__
from daemon.cli.answers import (
    STATES,
    Explanation,
    Status,
    WatchStatus,
    Widths,
    seconds_since,
)
from daemon.cli.checks import Finding
from daemon.core.model import Record, Row
from daemon.core.texts import shown, timestamp
from daemon.engine.detection import Detection
from daemon.engine.standing import Standing
from daemon.errors import Problem
from daemon.locate import DEFAULT_CONFIG

_STATE_WIDTH = max(map(len, STATES))
# Found by a scan because that is how they are found.
_BY_DESIGN = frozenset({"start", "poll"})
_LONGEST = 300
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def of_status(status: Status, now: int) -> Iterator[str]:
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
    if steps := [cells for watch in status.watches for cells in _step_cells(watch, status, now)]:
        yield ""
        yield from _table([["watch", "step", "waiting", "running", "state"], *steps])
    if notes := [*_notes(status, now), *_survivors(status, now)]:
        yield ""
        yield from _table(notes)


def _watch_cells(watch: WatchStatus, now: int) -> list[str]:
    present = [f"{watch.files[state]} {state}" for state in STATES if state in watch.files]
    gone = [] if watch.root is not None else ["(no longer configured)"]
    oldest, retry = watch.oldest_ready, watch.next_retry
    return [
        shown(watch.name),
        str(sum(watch.files.values())),
        "-" if oldest is None else span(seconds_since(oldest, now)),
        "-" if retry is None else _until(retry, now),
        ", ".join(present + gone) or "-",
    ]


def _step_cells(watch: WatchStatus, status: Status, now: int) -> Iterator[list[str]]:
    for step in watch.steps:
        runs = status.pid is not None
        counts = [str(step.waiting), str(step.running if runs else 0)]
        state = of_standing(step.standing, now) if runs else "-"
        yield [shown(watch.name), shown(step.name), *counts, state]


def of_standing(standing: Standing, now: int) -> str:
    """How a step stands, in a few words."""
    if standing.silent_since is not None:
        return f"no answer from the disk for {span(seconds_since(standing.silent_since, now))}"
    if standing.open_since is None:
        return f"paused: {standing.paused}" if standing.paused else "ok"
    since = span(seconds_since(standing.open_since, now))
    probe = "" if standing.probe_at is None else f", next try {_until(standing.probe_at, now)}"
    return f"open for {since}{probe}: {shown(shortened(standing.error))}"


def shortened(error: str | None) -> str:
    """A handler may have much to say; this much of it goes into one sentence."""
    text = (error or "no reason is on record").strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _notes(status: Status, now: int) -> Iterator[list[str]]:
    """What is worth a line: how a watch sees its changes, and what is amiss with that."""
    for watch in status.watches:
        detection = watch.detection
        if detection is None:
            continue
        if status.pid is not None and (told := ", ".join(_watching(detection, now))):
            yield [shown(watch.name), told]
        if detection.frozen is not None:
            yield [shown(watch.name), _frozen(status, watch.name, detection)]


def _survivors(status: Status, now: int) -> Iterator[list[str]]:
    """Handlers that outlived a killed daemon, while this one waits for their end."""
    for watch in status.watches if status.pid is not None else ():
        for step in watch.steps:
            for one in step.standing.survivors:
                files = "1 file" if len(one.files) == 1 else f"one of {len(one.files)} files"
                manner = "is waited for" if one.action == "wait" else "is being ended"
                who = f"pid {one.pid}, begun {span(seconds_since(one.since, now))} ago,"
                told = f"has outlived a killed daemon with {files} of step {shown(step.name)}"
                yield [shown(watch.name), f"{who} {told}, and {manner}"]


def _watching(detection: Detection, now: int) -> Iterator[str]:
    if (since := detection.silent_since) is not None:
        yield f"no answer from its file system for {span(seconds_since(since, now))}"
    if detection.mode != "inotify":
        how = "polled" if detection.mode == "polled" else "watched in part, the rest polled"
        yield f"{how} ({shown(detection.reason)})" if detection.reason else how
    if detection.latency_us is not None:
        yield f"latency {detection.latency_us / 1000:.1f} ms"
    for count, what in ((detection.overflows, "overflow"), (detection.restarts, "restart")):
        if count:
            yield f"{count} {what}{'' if count == 1 else 's'}"
    missed = {c: n for c, n in detection.missed_ever.items() if n and c not in _BY_DESIGN}
    if missed:
        causes = ", ".join(f"{number} {cause}" for cause, number in missed.items())
        yield f"{sum(missed.values())} files found by scans only ({causes})"


def _frozen(status: Status, watch: str, detection: Detection) -> str:
    reason = shown(detection.frozen or "")
    if status.pid is None:
        return f"removals were frozen when the daemon stopped: {reason}"
    missing = detection.frozen_missing
    files = "" if missing is None else f", {missing} files missing"
    command = shown(shlex.join(confirmation(status.config, watch)))
    return f"removals frozen{files}: {reason}; if they were meant to go: {command}"


def confirmation(config: Path, watch: str) -> list[str]:
    """What an operator types to let removals of a watch pass."""
    place = [] if config == DEFAULT_CONFIG else ["--config", os.fspath(config)]
    name = ["--", watch] if watch.startswith("-") else [watch]
    return ["treewarden", "reconcile", "--confirm-removals", *place, *name]


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def of_row(row: Row, widths: Widths, now: int) -> str:
    """A file in one line: state, watch, step, attempt, age, path."""
    return (
        f"{row.state:<{_STATE_WIDTH}}  {row.key.watch:<{widths.watch}}  "
        f"{row.step or '-':<{widths.step}}  {row.attempt or '-':>3}  "
        f"{span(seconds_since(row.at, now)):>6}  {shown(row.key.path)}"
    )


def of_file(row: Row, history: Iterable[Record], now: int) -> Iterator[str]:
    """A file with everything that its row holds, and its transitions."""
    yield f"{shown(row.key.path)}"
    yield from _table([[f"  {name}", value] for name, value in _facts(row, now) if value])
    yield ""
    for record in history:
        yield from _record_text(record)


def _facts(row: Row, now: int) -> Iterator[tuple[str, str]]:
    yield "watch", shown(row.key.watch)
    yield "state", f"{row.state}, for {span(seconds_since(row.at, now))}"
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
    yield "result", shown(row.result or "")
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
        "target": None if record.target is None else shown(record.target),
    }
    told = "  ".join(f"{name}={value}" for name, value in notes.items() if value is not None)
    yield f"{timestamp(record.at)}  {record.event:<9}  {edge:<24}  {told}".rstrip()
    if record.error:
        yield f"{'':27}  error: {shown(record.error)}"


def of_explanation(found: Explanation, path: str) -> Iterator[str]:
    """The file and its state, and under it a line for each sentence."""
    name = shown(found.key.path if found.key else os.fsencode(path))
    watch = f" of {shown(found.key.watch)}" if found.key else ""
    yield f"{name}{watch}: {found.state or 'not known'}"
    for sentence in found.sentences:
        yield f"  {shown(sentence)}"


def of_problem(found: Problem) -> str:
    """What is wrong with a configuration."""
    return f"error  {shown(str(found))}"


def of_findings(found: Sequence[Finding]) -> Iterator[str]:
    """A line each: the level, what it is about, the detail, the remedy."""
    level, what = max(len(f.level) for f in found), max(len(f.what) for f in found)
    for one in found:
        remedy = f"; {one.remedy}" if one.remedy else ""
        yield f"{one.level:<{level}}  {one.what:<{what}}  {one.detail}{remedy}"


def _until(at: int, now: int) -> str:
    return "now" if at <= now else f"in {span((at - now) / 1_000_000)}"


def span(seconds: float) -> str:
    """The two largest units: `45s`, `3m20s`, `2d4h`."""
    left = int(seconds)
    parts: list[str] = []
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
