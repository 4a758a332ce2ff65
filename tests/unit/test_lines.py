"""One line of the log: its keys, their order, and that it is never too long."""

import json
from base64 import b64decode
from typing import Any

import pytest

from daemon.core.model import Key, Record, Row, Trigger
from daemon.core.texts import timestamp
from daemon.engine.lines import LONGEST, fields_of_attempt, level_of, make_logger
from daemon.schema import faults_of_line

NASTY = [
    b"a" * 4095,
    b"\xff" * 4095,
    b"\x01" * 4095,
    b'"' * 4095,
    b"\\" * 4095,
    "\N{CRAB}".encode() * 1_000,
    b"\xff\n\0" * 1_300,
    b"\xe2\x80\xa8" * 1_300,
]


def record(**changes: Any) -> Record:
    known: dict[str, Any] = {
        "seq": 5,
        "file_id": 7,
        "watch": "incoming",
        "path": b"a",
        "event": "fail",
        "from_state": "processing",
        "to_state": "failed",
        "version": 4,
        "attempt_id": "a-1",
        "node": "n",
        "at": 1_700_000_000_000_001,
    }
    return Record(**{**known, **changes})


def written(event: str, **fields: Any) -> bytes:
    lines: list[bytes] = []
    make_logger("debug", lines.append).log(20, event, **fields)
    (line,) = lines
    return line


def line_of(made: Record) -> tuple[bytes, dict[str, Any]]:
    raw = written("", _records=[made])
    line = json.loads(raw)
    assert faults_of_line(line) == []
    return raw, line


def test_keys_of_any_line() -> None:
    """Whatever the line is about, it begins with its time, its level and its event."""
    raw = written("daemon.started", node="n", pid=1)
    assert list(json.loads(raw)) == ["timestamp", "level", "event", "node", "pid"]
    raw, _ = line_of(record(path=b"\xff"))
    assert list(json.loads(raw))[:3] == ["timestamp", "level", "event"]


def test_keys_of_a_transition() -> None:
    """The keys stand in their documented order; those that do not apply are left out."""
    raw, line = line_of(record(guard="attempts_left", error="exit status 1", due_at=2_000_000))
    assert raw.endswith(b"}\n")
    assert list(line) == [
        *["timestamp", "level", "event", "outcome", "attempt_id", "file_id", "watch", "path"],
        *["from_state", "to_state", "guard_result", "error"],
        *["guard", "version", "due_at", "node"],
    ]
    assert line["timestamp"] == "2023-11-14T22:13:20.000001Z"
    assert line["due_at"] == "1970-01-01T00:00:02.000000Z"
    assert (line["guard"], line["guard_result"], line["outcome"]) == (
        "attempts_left",
        True,
        "success",
    )


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_timestamp(at: int, text: str) -> None:
    """RFC 3339, UTC, always with six digits of microseconds."""
    assert timestamp(at) == text


@pytest.mark.parametrize("path", NASTY)
@pytest.mark.parametrize("old", [None, b"\xfe" * 4095])
@pytest.mark.parametrize("error", [None, "x" * 4096, "\x00" * 4096, "\N{CRAB}" * 1_024])
def test_no_line_is_too_long(path: bytes, old: bytes | None, error: str | None) -> None:
    """A line fits into LONGEST bytes, whatever its paths and its error; paths stay exact."""
    raw, line = line_of(record(path=path, old_path=old, error=error))
    assert len(raw) <= LONGEST + 1
    assert b"\n" not in raw[:-1]
    for name, exact in (("path", path), ("old_path", old)):
        if exact is not None:
            text = line.get(f"{name}_b64")
            assert (b64decode(text) if text else line[name].encode()) == exact


def test_short_line_is_whole() -> None:
    """Nothing is cut from a line that fits."""
    _, line = line_of(record(error="x" * 4096, path=b"y" * 4095))
    assert (len(line["error"]), len(line["path"])) == (4096, 4095)


@pytest.mark.parametrize("field", ["reason", "error"])
def test_line_about_the_daemon_is_not_too_long(field: str) -> None:
    """What a library has to say is cut as well."""
    raw = written("daemon.degraded", node="n", **{field: "\x01" * 20_000})
    assert len(raw) <= LONGEST + 1


def test_text_that_is_not_unicode() -> None:
    """A lone surrogate, from a path of bytes in an error's text, costs neither line nor daemon."""
    raw = written("daemon.watcher_restarted", node="n", reason="bad name: x\udcff")
    assert json.loads(raw)["reason"].startswith("bad name: x")


@pytest.mark.parametrize(
    ("state", "level"),
    [("failed", "warning"), ("quarantined", "error"), ("done", "info"), ("gone", "info")],
)
def test_level(state: str, level: str) -> None:
    """A state that somebody should look at is more than `info`."""
    assert level_of(record(to_state=state)) == level


def test_attempt_on_an_unknown_file() -> None:
    """A file without a row has no `file_id`; its state does not move."""
    known = Key("w", b"a")
    fields = fields_of_attempt(Trigger(known, "start", "operator"), Row(0, known), "a-1", "n")
    assert (fields["file_id"], fields["from_state"], fields["to_state"]) == (
        None,
        "untracked",
        "untracked",
    )


def test_filtered_level() -> None:
    """A line below the level is not made."""
    lines: list[bytes] = []
    logger = make_logger("error", lines.append)
    logger.log(30, "daemon.ready", node="n", watches=1)
    assert lines == []
