"""What is special to the `http` kind: what is sent, and what every kind of answer means."""

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon import __version__
from daemon.config_steps import HttpStep
from daemon.handlers import RESULT_BYTES
from daemon.handlers.http import HttpHandler
from daemon.handlers.http_answer import LONGEST_WAIT, READ_BYTES
from tests.contract.posts import Line, Post, answering, job_of, response, sending, serving

FILE = Path("/srv/incoming/a b%.csv")
JSON = "application/json"


async def test_event() -> None:
    """The event is CloudEvents 1.0 in the structured mode, its id the idempotency key."""
    async with serving(answering(204)) as posts, sending(posts, path="/in?x=%2F") as handler:
        before = datetime.now(UTC)
        assert (await handler.run(job_of(FILE))).verdict == "success"
    (post,) = posts.got
    assert post.path == "/in?x=%2F"
    assert post.headers.items() >= {
        ("content-type", "application/cloudevents+json; charset=utf-8"),
        ("idempotency-key", "k-1"),
        ("user-agent", f"treewarden/{__version__}"),
        ("accept-encoding", "identity"),
    }
    event = msgspec.json.decode(post.body)
    at = datetime.fromisoformat(event.pop("time"))
    assert before <= at <= datetime.now(UTC)
    assert event == {
        "specversion": "1.0",
        "id": "k-1",
        "source": "/treewarden/files1/incoming",
        "type": "treewarden.file",
        "subject": "a%20b%25.csv",
        "datacontenttype": "application/json",
        "data": {
            "watch": "incoming",
            "path": "/srv/incoming/a b%.csv",
            "relpath": "a b%.csv",
            "step": "load",
            "attempt": 2,
            "version": 5,
            "file_id": 7,
        },
    }


async def test_event_of_a_file(tmp_path: Path) -> None:
    """Size and time of the file as it had settled are in the event, and what came before."""
    (tmp_path / "a").write_bytes(b"12345")
    job = job_of(tmp_path / "a", previous_json='{"rows": 12}')
    async with serving(answering(204)) as posts, sending(posts) as handler:
        await handler.run(job)
    data = msgspec.json.decode(posts.got[0].body)["data"]
    assert (data["size"], data["previous"]) == (5, {"rows": 12})
    assert job.seen
    at = datetime.fromisoformat(data["modified"]).timestamp()
    assert at == pytest.approx(job.seen.mtime_ns / 1e9, abs=1e-5)


async def test_name_that_is_not_utf_8() -> None:
    """Such a name is readable in the event, and exact beside it and in the subject."""
    job = job_of(FILE.with_name("a\udcff\n"))
    async with serving(answering(204)) as posts, sending(posts) as handler:
        await handler.run(job)
    event = msgspec.json.decode(posts.got[0].body)
    assert event["subject"] == "a%FF%0A"
    assert event["data"]["relpath"] == "a\\xff\n"
    assert event["data"]["relpath_b64"] == "Yf8K"
    assert event["data"]["path_b64"] == "L3Nydi9pbmNvbWluZy9h/wo="


@pytest.mark.parametrize("body", ["event", "file"])
async def test_event_of_a_removal(body: Any) -> None:
    """Of a file that is gone there is the event alone, of another type, whatever the body."""
    job = job_of(FILE, plan="remove")
    async with serving(answering(204)) as posts, sending(posts, body=body) as handler:
        assert (await handler.run(job)).verdict == "success"
    assert msgspec.json.decode(posts.got[0].body)["type"] == "treewarden.file.removed"


async def test_headers() -> None:
    """The step's headers go along, and may take the place of our name."""
    headers = (("X-Team", "files"), ("user-agent", "me"))
    async with serving(answering(204)) as posts, sending(posts, headers=headers) as handler:
        await handler.run(job_of(FILE))
    assert posts.got[0].headers.items() >= {("x-team", "files"), ("user-agent", "me")}


@pytest.mark.parametrize(
    ("status", "verdict", "suspect"),
    [
        (200, "success", False),
        (204, "success", False),
        (301, "unavailable", False),
        (302, "unavailable", False),
        (307, "unavailable", False),
        (400, "reject", False),
        (401, "reject", True),
        (403, "reject", True),
        (404, "reject", True),
        (405, "reject", True),
        (407, "reject", True),
        (408, "retry", True),
        (409, "reject", False),
        (410, "reject", True),
        (413, "reject", False),
        (422, "reject", False),
        (425, "retry", True),
        (429, "unavailable", False),
        (500, "retry", True),
        (501, "retry", True),
        (502, "retry", True),
        (503, "unavailable", False),
        (504, "retry", True),
    ],
)
async def test_status(status: int, verdict: str, suspect: bool) -> None:  # noqa: FBT001
    """Each status has its verdict, and whether it may be another's fault than the file's."""
    async with serving(answering(status)) as posts, sending(posts) as handler:
        outcome = await handler.run(job_of(FILE))
    assert (outcome.verdict, outcome.suspect) == (verdict, suspect)
    assert (outcome.error or f"HTTP {status}").startswith(f"HTTP {status}")


async def test_redirects_are_not_followed() -> None:
    """A server that redirects to itself, for ever, is asked once, and the error says what to do."""
    async with serving(answering(302, Location="/in")) as posts, sending(posts) as handler:
        outcome = await handler.run(job_of(FILE))
    assert len(posts.got) == 1
    assert outcome.error == (
        "HTTP 302, and redirects are not followed: `http` has to name the final address"
    )


@pytest.mark.parametrize("status", [408, 429, 500, 503])
@pytest.mark.parametrize(
    ("written", "after"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 1),
        ("9" * 400, LONGEST_WAIT),
        (timedelta(minutes=50), pytest.approx(3000, abs=60)),
        (timedelta(minutes=-5), 1),
        (timedelta(days=900), LONGEST_WAIT),
        ("Fri, 31 Dec 9999 99:99:99 GMT", None),
        ("-7", None),
        ("soon", None),
        ("", None),
        ("\u0667", None),
    ],
)
async def test_retry_after(status: int, written: str | timedelta, after: float | None) -> None:
    """`Retry-After` is honoured in both its forms, between the first backoff and an hour."""
    if isinstance(written, timedelta):
        written = format_datetime(datetime.now(UTC) + written, usegmt=True)
    answer = answering(status, Retry_After=written)
    async with serving(answer) as posts, sending(posts) as handler:
        outcome = await handler.run(job_of(FILE))
    assert outcome.after == after


@pytest.mark.parametrize(
    ("body", "kind", "result"),
    [
        ('{"rows": 12}', JSON, '{"rows":12}'),
        ("[1, null]", "application/problem+JSON; charset=utf-8", "[1,null]"),
        ('{"rows": 12}', "text/plain", None),
        ('{"rows": 12', JSON, None),
        ('{"rows": 12} {}', JSON, None),
        (b'"\xff"', JSON, None),
        ("", JSON, None),
        ("[" * 5000 + "]" * 5000, JSON, None),
        (f'"{"x" * (RESULT_BYTES - 2)}"', JSON, f'"{"x" * (RESULT_BYTES - 2)}"'),
        (f'"{"x" * (RESULT_BYTES - 1)}"', JSON, None),
        (f'"{"x" * READ_BYTES}"', JSON, None),
    ],
)
async def test_result(body: Any, kind: str, result: str | None) -> None:
    """An answer that is JSON, and short, is what the next step gets; any other is a success too."""
    answer = answering(200, body, Content_Type=kind)
    async with serving(answer) as posts, sending(posts) as handler:
        outcome = await handler.run(job_of(FILE))
    assert (outcome.verdict, outcome.result) == ("success", result)


async def test_what_the_server_says() -> None:
    """The end of an answer is the error, as text that a line and a database take."""
    said = b"\xc3\xa4" * 4000 + b"\x00 \xff no such table\n"
    async with serving(answering(400, said)) as posts, sending(posts) as handler:
        outcome = await handler.run(job_of(FILE))
    assert outcome.error
    assert outcome.error.endswith("ä\\x00 \\xff no such table")
    assert outcome.error.startswith("HTTP 400: ä")
    assert len(outcome.error.encode()) < 4200


async def test_huge_answer() -> None:
    """Of an answer without end 64 KB are read, and then its connection is closed."""
    sent = 0

    async def flood(_: Post, line: Line) -> None:
        nonlocal sent
        await line.say(response(500, "y")[:-1].replace(b": 1\r", b": 99999999999\r"))
        while True:
            await line.say(b"x" * 65_536)
            sent += 65_536

    async with serving(flood) as posts, sending(posts) as handler:
        outcome = await handler.run(job_of(FILE))
        assert outcome.verdict == "retry"
        assert outcome.error
        assert 4000 < len(outcome.error) < 4200
        posts.answer = answering(204)
        assert (await handler.run(job_of(FILE))).verdict == "success"
    assert posts.connections == 2
    assert sent < 20_000_000


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "answered something that is not HTTP"),
        (b"\0\0\0\x12\x04\0\0\0\0\0\0", "answered something that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "answered something that is not HTTP"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200", "closed the connection without an answer"),
        (response(200, "x" * 10)[:-1], "broke off its answer"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            "broke off its answer",
        ),
    ],
)
async def test_no_answer(raw: bytes, error: str) -> None:
    """Garbage, half an answer and none: tried again, and perhaps not the file's fault."""

    async def say(_: Post, line: Line) -> None:
        await line.say(raw)
        line.close()

    async with serving(say) as posts, sending(posts) as handler:
        outcome = await handler.run(job_of(FILE))
        where = f"http://127.0.0.1:{posts.port}"
    assert (outcome.verdict, outcome.suspect) == ("retry", True)
    assert outcome.error == f"{where} {error}"


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"])
async def test_trickling_server(head: bytes) -> None:
    """A server that is never silent for long, and never done, does not hold a file for ever."""

    async def trickle(_: Post, line: Line) -> None:
        await line.say(head or b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            await line.say(b"x")
            await asyncio.sleep(0.01)  # the server's pace

    async with serving(trickle) as posts, sending(posts, timeout=0.3) as handler:
        outcome = await handler.run(job_of(FILE))
    if outcome.error != "timed out after 0.3s":  # its header was too long before that
        assert not head
    assert (outcome.verdict, outcome.suspect) == ("retry", True)


async def test_connection_refused() -> None:
    """Where nobody listens no file is to blame."""
    async with serving(answering(204)) as posts:
        pass
    async with sending(posts, path="/secret/path") as handler:
        outcome = await handler.run(job_of(FILE))
    assert outcome.verdict == "unavailable"
    where = f"http://127.0.0.1:{posts.port}"
    assert outcome.error == f"cannot connect to {where}: Connection refused"


async def test_connection_that_is_not_made() -> None:
    """A host that is silent is given up after `connect`, and no file is to blame."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        # The kernel takes one more than it was told to, and then nobody.
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)  # noqa: FBT003
            one.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        async with sending(port, connect=0.2) as handler:
            outcome = await handler.run(job_of(FILE))
        for one in waiting:
            one.close()
    assert outcome.verdict == "unavailable"
    assert outcome.error == f"no connection to http://127.0.0.1:{port} in 0.2s"


async def test_host_that_is_not_found() -> None:
    """A name that nobody knows is no file's fault."""
    handler = HttpHandler(HttpStep(name="load", http="https://nowhere.invalid/x"), "files1")
    outcome = await handler.run(job_of(FILE))
    await handler.close()
    assert outcome.verdict == "unavailable"
    assert (outcome.error or "").startswith("the host of https://nowhere.invalid is not found")
