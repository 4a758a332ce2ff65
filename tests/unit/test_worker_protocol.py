"""What a worker is sent: all that a command finds in its environment, in one line."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.core.model import Fingerprint, Key
from daemon.handlers import Job
from daemon.handlers.said import result_text
from daemon.handlers.worker_protocol import lines_of, request

JOB = Job(3, Key("w", b"in/a b"), b"/srv/in/a b", "s", 1, "k", version=5)


def sent(job: Job) -> dict[str, Any]:
    line = lines_of([request(9, job)])
    assert line.index(b"\n") == len(line) - 1
    got: dict[str, Any] = json.loads(line)
    return got


def test_request() -> None:
    """The keys come in a fixed order, and all of it in one line."""
    seen = Fingerprint(12, 0, 0, 7, 1)
    job = replace(JOB, seen=seen, previous_json='{"rows":12}')
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


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (b'{"rows":\n 12,\r\n"names": ["a b",\t"\\n"]}\r\n', '{"rows":12,"names":["a b","\\n"]}'),
        (b"\n[\n]\n", "[]"),
        (b"\rnull\n", None),
    ],
)
def test_result_is_kept_in_one_line(said: bytes, kept: str | None) -> None:
    """However a handler writes its result: it goes on as a line, a variable or a header."""
    assert result_text(said) == kept


def test_result_with_a_line_break_in_a_string() -> None:
    """That is no JSON, and is kept as nothing."""
    with pytest.raises(ValueError, match="invalid"):
        result_text(b'"a\nb"')
