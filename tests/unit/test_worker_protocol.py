"""What a worker is sent: all that a command finds in its environment, in one line."""

import json
from typing import Any

from msgspec.structs import replace

from daemon.core.model import Fingerprint, Key
from daemon.handlers import Job
from daemon.handlers.worker_protocol import lines_of, request

JOB = Job(3, Key("w", b"in/a b"), b"/srv/in/a b", "s", 1, "k", version=5)


def sent(job: Job) -> dict[str, Any]:
    line = lines_of([request(9, job)])
    assert line.index(b"\n") == len(line) - 1
    got: dict[str, Any] = json.loads(line)
    return got


def test_request() -> None:
    """The keys come in a fixed order, and what the step before said in one line."""
    seen = Fingerprint(12, 0, 0, 7, 1)
    job = replace(JOB, seen=seen, previous_json='{"rows":\n 12}')
    assert list(sent(job).items()) == [
        ("id", 9),
        ("path", "/srv/in/a b"),
        ("relpath", "in/a b"),
        ("watch", "w"),
        ("step", "s"),
        ("attempt", 1),
        ("key", "k"),
        ("version", 5),
        ("file_id", 3),
        ("plan", "process"),
        ("size", 12),
        ("previous", {"rows": 12}),
    ]


def test_request_with_a_name_that_is_no_text() -> None:
    """A path that is not UTF-8 is readable, and exact beside it; a removal has no size."""
    told = sent(Job(1, Key("w", b"\xff"), b"/srv/\xff", "s", 1, "k", plan="remove"))
    assert (told["path"], told["path_b64"]) == ("/srv/\\xff", "L3Nydi//")
    assert (told["relpath"], told["relpath_b64"]) == ("\\xff", "/w==")
    assert (told["plan"], told["size"], told["previous"]) == ("remove", None, None)
