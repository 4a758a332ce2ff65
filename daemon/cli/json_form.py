"""The answers as JSON, each one object on a line of its own. Keys are stable."""

import os
from collections.abc import Iterable
from typing import Any

import msgspec

from daemon import __version__
from daemon.cli.answers import (
    STATES,
    Explanation,
    Status,
    StepStatus,
    WatchStatus,
    seconds_since,
)
from daemon.cli.checks import Finding
from daemon.core.model import Record, Row
from daemon.core.settle import Condition
from daemon.core.texts import path_fields, readable, timestamp
from daemon.engine.detection import Detection
from daemon.engine.standing import Standing
from daemon.errors import Problem

_encode = msgspec.json.Encoder().encode


def of_status(status: Status, now: int) -> bytes:
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
            "watches": [
                _watch_json(watch, now, running=status.pid is not None) for watch in status.watches
            ],
        }
    )


def _watch_json(watch: WatchStatus, now: int, *, running: bool) -> dict[str, Any]:
    root = {"path": None} if watch.root is None else path_fields("path", watch.root)
    oldest = watch.oldest_ready
    return {
        "name": watch.name,
        **root,
        "configured": watch.root is not None,
        "total": sum(watch.files.values()),
        "files": {state: watch.files.get(state, 0) for state in STATES},
        "oldest_ready_seconds": None if oldest is None else seconds_since(oldest, now),
        "next_retry_at": _time(watch.next_retry),
        "steps": [_step_json(step, running=running) for step in watch.steps],
        "detection": _detection_json(watch.detection) if running else None,
        "removals": _removals_json(watch.detection),
    }


def _step_json(step: StepStatus, *, running: bool) -> dict[str, Any]:
    """`running`: of the daemon; what it said of itself is of no use once it has gone."""
    standing = step.standing if running else Standing()
    return {
        "name": step.name,
        "waiting": step.waiting,
        "running": step.running if running else 0,
        "open_since": _time(standing.open_since),
        "failures": standing.failures,
        "error": standing.error,
        "probe_at": _time(standing.probe_at),
        "paused": standing.paused,
        "silent_since": _time(standing.silent_since),
        "survivors": [
            {
                "pid": one.pid,
                "since": timestamp(one.since),
                "files": list(one.files),
                "action": one.action,
            }
            for one in standing.survivors
        ],
    }


def _detection_json(detection: Detection | None) -> dict[str, Any] | None:
    if detection is None:
        return None
    latency = detection.latency_us
    return {
        "mode": detection.mode,
        "reason": detection.reason,
        "latency_ms": None if latency is None else latency / 1000,
        "directories": detection.directories,
        "silent_since": _time(detection.silent_since),
        "overflows": detection.overflows,
        "restarts": detection.restarts,
        "missed": detection.missed_ever,
    }


def _removals_json(detection: Detection | None) -> dict[str, Any]:
    told = detection or Detection()
    frozen, missing = told.frozen, told.frozen_missing
    return {"frozen": frozen is not None, "reason": frozen, "missing": missing}


def of_row(row: Row, now: int) -> bytes:
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
        "age_seconds": seconds_since(row.at, now),
        "due_at": _time(row.due_at),
        "size": row.seen.size if row.seen else None,
        "error": row.error,
    }


def of_file(row: Row, history: Iterable[Record], now: int) -> bytes:
    """A file with everything that its row holds, and its transitions."""
    seen = row.seen
    disk = {
        "mtime_ns": seen.mtime_ns if seen else None,
        "ctime_ns": seen.ctime_ns if seen else None,
        "ino": seen.ino if seen else None,
        "dev": seen.dev if seen else None,
        "done": row.done,
        "result": None if row.result is None else msgspec.Raw(row.result.encode()),
    }
    return _encode(
        {**_row_fields(row, now), **disk, "transitions": [_record_json(r) for r in history]}
    )


def _record_json(record: Record) -> dict[str, Any]:
    fields = msgspec.structs.asdict(record)
    for name in ("file_id", "watch", "path"):  # the file's own, said once
        del fields[name]
    for name in ("old_path", "target"):
        path = fields.pop(name)
        fields |= {name: None} if path is None else path_fields(name, path)
    return {**fields, "at": timestamp(record.at), "due_at": _time(record.due_at)}


def _time(at: int | None) -> str | None:
    return None if at is None else timestamp(at)


def of_explanation(found: Explanation, path: str) -> bytes:
    """One object; a path that no watch has is as it was asked for."""
    named = found.key.path if found.key else os.fsencode(path)
    return _encode(
        {
            "watch": found.key.watch if found.key else None,
            **path_fields("path", named),
            "state": found.state,
            "waits": found.waits,
            "conditions": [_condition_json(condition) for condition in found.conditions],
            "sentences": [_valid(sentence) for sentence in found.sentences],
        }
    )


def _condition_json(condition: Condition) -> dict[str, Any]:
    """A set's with its manifest, and all of its members with what they lack."""
    name, satisfied, sentence, inventory = condition
    fields = {"name": name, "satisfied": satisfied, "sentence": _valid(sentence)}
    if inventory is None:
        return fields
    members = [
        {**path_fields("path", path), "lacks": lack} for path, lack in inventory.members.items()
    ]
    return {**fields, **path_fields("manifest", inventory.manifest), "members": members}


def _valid(text: str) -> str:
    return readable(os.fsencode(text))


def of_problem(found: Problem) -> bytes:
    """What is wrong with a configuration; its keys are those of a finding, and three more."""
    about = {"level": "error", "what": "configuration", "detail": found.found}
    where = {"file": found.file, "line": found.line, "key": found.key or None}
    return _encode({**about, "remedy": found.remedy, **where})


def of_finding(found: Finding) -> bytes:
    """One thing that was looked at."""
    return _encode(found._asdict())
