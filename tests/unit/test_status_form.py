"""What `status` says of how changes are found, as text and as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import json_form, reasons, text_form
from daemon.cli.answers import Status, WatchStatus
from daemon.cli.evidence import Evidence, Scene
from daemon.cli.places import Place
from daemon.core.model import Key, Row
from daemon.core.settle import Look
from daemon.engine.detection import Detection
from daemon.engine.standing import Standing
from daemon.locate import DEFAULT_CONFIG


def status(
    detection: Detection | None,
    *,
    name: str = "w",
    pid: int | None = 7,
    config: Path = DEFAULT_CONFIG,
) -> Status:
    watch = WatchStatus(name, b"/srv/in", {"done": 1}, None, None, detection)
    return Status(config, pid, Path("/state"), Path("/state/db"), 0, 2, 0, [watch])


def notes(detection: Detection | None, **fields: Any) -> list[str]:
    """The lines below the table."""
    lines = list(text_form.of_status(status(detection, **fields), 0))
    table = lines.index("") + 1
    below = lines[table + 2 :]
    assert below[:1] in ([], [""])
    return below[1:]


def seen(**fields: Any) -> Detection:
    missed = fields.pop("missed", {})
    detection = Detection(**fields)
    for cause, files in missed.items():
        detection.miss(cause, files)
    return detection


@pytest.mark.parametrize(
    ("detection", "said"),
    [
        (None, []),
        (seen(), []),
        (seen(missed={"start": 9, "poll": 3}), []),
        (seen(latency_us=2_345), ["w  latency 2.3 ms"]),
        (seen(mode="polled"), ["w  polled"]),
        (seen(mode="polled", reason="nfs4"), ["w  polled (nfs4)"]),
        (
            seen(mode="partly", reason="a limit", latency_us=16_000),
            ["w  watched in part, the rest polled (a limit), latency 16.0 ms"],
        ),
        (seen(overflows=1, restarts=2), ["w  1 overflow, 2 restarts"]),
        (
            seen(missed={"overflow": 10, "start": 5, "burst": 2}),
            ["w  12 files found by scans only (10 overflow, 2 burst)"],
        ),
        (seen(mode="polled", reason="a\x1b[2J"), ["w  polled (a\\x1b[2J)"]),
    ],
)
def test_only_what_is_worth_a_line(detection: Detection | None, said: list[str]) -> None:
    """Plain inotify needs none; what is by design, as at the start, is not held against anybody."""
    assert notes(detection) == said


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({}, "w"),
        ({"config": Path("/a b/c")}, "--config '/a b/c' w"),
        ({"name": "-x"}, "-- -x"),
    ],
)
def test_frozen_removals_come_with_the_command(fields: dict[str, Any], command: str) -> None:
    """The reason, how many files wait, and what to type where they were meant to go."""
    frozen = seen(frozen="the root is lost: x", frozen_missing=250)
    (line,) = notes(frozen, **fields)
    assert line.endswith(
        "removals frozen, 250 files missing: the root is lost: x; "
        f"if they were meant to go: treewarden reconcile --confirm-removals {command}"
    )


def test_after_a_stop() -> None:
    """Nothing is said of a watcher that is not there any more; frozen removals still are."""
    stopped = seen(frozen="reason", mode="polled", latency_us=5)
    assert notes(stopped, pid=None) == ["w  removals were frozen when the daemon stopped: reason"]
    assert notes(seen(latency_us=5), pid=None) == []


def as_json(detection: Detection | None, **fields: Any) -> dict[str, Any]:
    (watch,) = json.loads(json_form.of_status(status(detection, **fields), 0))["watches"]
    found: dict[str, Any] = watch
    return found


def test_as_json() -> None:
    """Every number, those by design included; after a stop only whether removals are frozen."""
    detection = seen(
        mode="partly",
        reason="a limit",
        latency_us=2_345,
        directories=12,
        overflows=1,
        restarts=2,
        missed={"start": 5, "overflow": 10},
        frozen="reason",
        frozen_missing=250,
    )
    found = as_json(detection)
    assert found["detection"] == {
        "mode": "partly",
        "reason": "a limit",
        "latency_ms": 2.345,
        "directories": 12,
        "silent_since": None,
        "overflows": 1,
        "restarts": 2,
        "missed": {"start": 5, "overflow": 10},
    }
    removals = {"frozen": True, "reason": "reason", "missing": 250}
    assert found["removals"] == removals
    stopped = as_json(detection, pid=None)
    assert (stopped["detection"], stopped["removals"]) == (None, removals)


def test_as_json_before_anything_was_told() -> None:
    """A daemon that has only just started has said nothing yet."""
    found = as_json(None)
    assert found["detection"] is None
    assert found["removals"] == {"frozen": False, "reason": None, "missing": None}


def test_step_without_an_answer() -> None:
    """Of a step whose files wait for a disk that hangs `status` and `explain` say since when."""
    silent = Standing(silent_since=1_000_000)
    now = 121_000_000
    assert text_form.of_standing(silent, now) == "no answer from the disk for 2m"
    key = Key("w", b"a")
    scene = Scene(Place(Path("/state"), {"w": b"/srv/in"}, {}), {}, None, running=True)
    for state in ("ready", "processing"):
        row = Row(1, key, state, step="on_done", at=now)
        look = Look("unseen")
        evidence = Evidence(key, None, row, None, look, None, [], now, standing=silent)
        found = reasons.explained(scene, evidence, "")
        said = "Step on_done has had no answer from the disk for 2m: its files wait."
        assert said in found.sentences
        assert found.waits
