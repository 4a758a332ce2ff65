"""Files as the body of a request: whole, as they settled, and never a part that looks whole."""

import asyncio
import hashlib
import hmac
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.config_http import Secret
from daemon.handlers import Job, Outcome
from daemon.handlers.http import HttpHandler
from daemon.handlers.http_upload import LARGE
from tests.contract.posts import Line, Post, Posts, answering, job_of, response, sending, serving

DEADLINE = 10
HUGE = 40 * LARGE  # more than all buffers on the way together


def made(folder: Path, size: int, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


@pytest.mark.parametrize("size", [0, 1, LARGE, LARGE + 1, 5 * LARGE])
async def test_file(tmp_path: Path, size: int) -> None:
    """A file arrives as it is, with its length, and with what the event has in headers."""
    path = made(tmp_path, size, "a b%ä.csv")
    job = job_of(path, previous_json='{"a": 1}')
    async with serving(answering(204)) as posts, sending(posts, body="file") as handler:
        assert (await handler.run(job)).verdict == "success"
    (post,) = posts.got
    assert post.body == path.read_bytes()
    assert "transfer-encoding" not in post.headers
    assert post.headers.items() >= {
        ("content-length", str(size)),
        ("content-type", "application/octet-stream"),
        ("idempotency-key", "k-1"),
        ("ce-specversion", "1.0"),
        ("ce-id", "k-1"),
        ("ce-source", "/treewarden/files1/incoming"),
        ("ce-type", "treewarden.file"),
        ("ce-subject", "a%2520b%2525%25C3%25A4.csv"),
        ("ce-watch", "incoming"),
        ("ce-step", "load"),
        ("ce-attempt", "2"),
        ("ce-version", "5"),
        ("ce-fileid", "7"),
        ("ce-previous", "{%22a%22:%201}"),
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", post.headers["ce-time"])


async def test_content_type_of_a_file(tmp_path: Path) -> None:
    """What kind of file it is may be said by the step."""
    keys: dict[str, Any] = {"body": "file", "headers": (("content-type", "text/csv"),)}
    async with serving(answering(204)) as posts, sending(posts, **keys) as handler:
        await handler.run(job_of(made(tmp_path, 5)))
    assert posts.got[0].headers["content-type"] == "text/csv"


def _is_signed(post: Post, header: str, secret: bytes) -> bool:
    fields = dict(field.split("=") for field in post.headers[header].split(","))
    said = f"{fields['t']}.{post.headers['idempotency-key']}.".encode() + post.body
    return hmac.new(secret, said, hashlib.sha256).hexdigest() == fields["v1"]


@pytest.mark.parametrize("size", [None, 5, LARGE + 1])
async def test_signature(tmp_path: Path, size: int | None) -> None:
    """Event, small file and streamed file are signed alike, and the secret itself is not sent."""
    (tmp_path / "key").write_bytes(b"0123456789abcdef\n")
    (tmp_path / "key").chmod(0o600)
    keys: dict[str, Any] = {
        "auth": "hmac-sha256",
        "secret": Secret(file=tmp_path / "key"),
        "signature_header": "X-Signed",
        "body": "event" if size is None else "file",
    }
    async with serving(answering(204)) as posts, sending(posts, **keys) as handler:
        outcome = await handler.run(job_of(made(tmp_path, size or 0)))
        assert outcome.verdict == "success"
    (post,) = posts.got
    assert _is_signed(post, "x-signed", b"0123456789abcdef")
    assert not _is_signed(post._replace(body=post.body + b"x"), "x-signed", b"0123456789abcdef")
    assert "0123456789abcdef" not in str(post)


@asynccontextmanager
async def stalled(path: Path) -> AsyncIterator[tuple[asyncio.Task[Outcome], Callable[[], int]]]:
    """An upload that has begun, and what lets it go on; that tells how much has arrived, too."""
    begun, go = asyncio.Event(), asyncio.Event()
    got = 0

    async def wait(_: Post, line: Line) -> None:
        nonlocal got
        begun.set()
        await go.wait()
        while more := await line.reader.read(65_536):
            got += len(more)
        line.close()

    def finish() -> int:
        go.set()
        return got

    async with (
        serving(answering(204), early=wait) as posts,
        sending(posts, body="file") as handler,
        asyncio.timeout(DEADLINE),
    ):
        run = asyncio.create_task(handler.run(job_of(path)))
        await begun.wait()
        yield run, finish


def _appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _truncated(path: Path) -> None:
    os.truncate(path, LARGE)


def _rewritten(path: Path) -> None:
    st = path.stat()
    with path.open("r+b") as file:
        file.seek(HUGE - 1)
        file.write(b"x")
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


@pytest.mark.parametrize("change", [_appended, _truncated, _rewritten])
async def test_changed_while_it_is_sent(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """The request of a file that changes ends before its end: no server takes it for the file."""
    path = made(tmp_path, HUGE)
    async with stalled(path) as (run, finish):
        change(path)
        finish()
        outcome = await run
        assert (outcome.verdict, outcome.suspect) == ("retry", False)
        assert outcome.error in {
            "the file was changed while it was read",
            "the file has become shorter while it was read",
        }
        assert finish() < HUGE


async def test_cancel_while_it_is_sent(tmp_path: Path) -> None:
    """A cancellation closes file and connection, whatever was going on."""
    path = made(tmp_path, HUGE)
    async with stalled(path) as (run, finish):
        assert path in _open_files()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        finish()
    await _closed(path)


async def _closed(path: Path) -> None:
    """Wait until the thread that was reading has come back: nothing else closes the file."""
    async with asyncio.timeout(DEADLINE):
        while path in _open_files():  # noqa: ASYNC110 - a descriptor has no event
            await asyncio.sleep(0)


def _open_files() -> set[Path]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(link.readlink())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("turns", range(12))
async def test_cancel_at_every_turn(tmp_path: Path, turns: int) -> None:
    """Wherever a cancellation comes, the file is closed soon."""
    path = made(tmp_path, 3 * LARGE)
    async with serving(answering(204)) as posts, sending(posts, body="file") as handler:
        run = asyncio.create_task(handler.run(job_of(path)))
        for _ in range(turns):
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await _closed(path)


def _linked(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def _made_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _replaced(path: Path) -> None:
    path.unlink()
    made(path.parent, 6)


@pytest.mark.parametrize("swap", [_linked, _made_a_pipe, _replaced, Path.unlink])
async def test_another_in_its_place(tmp_path: Path, swap: Callable[[Path], None]) -> None:
    """What is put in the place of the file that has settled is not sent, nor waited for."""
    path = made(tmp_path, 5)
    job = job_of(path)
    swap(path)
    async with serving(answering(204)) as posts, sending(posts, body="file") as handler:
        outcome = await handler.run(job)
    assert (outcome.verdict, outcome.suspect, posts.connections) == ("retry", False, 0)
    assert outcome.error


async def test_refused_in_the_middle(tmp_path: Path) -> None:
    """A server that answers before it has read all is heard, where it lets us hear it."""

    async def refuse(_: Post, line: Line) -> None:
        await line.say(response(413, "too large", Connection="close"))
        await line.hung_up()
        line.close()

    job = job_of(made(tmp_path, HUGE))
    server = serving(answering(204), early=refuse)
    async with server as posts, sending(posts, body="file") as handler:
        outcome = await handler.run(job)
    assert (outcome.verdict, outcome.error) == ("reject", "HTTP 413: too large")


@pytest.mark.parametrize("size", [5, HUGE])
async def test_broken_off_in_the_middle(tmp_path: Path, size: int) -> None:
    """A connection that breaks while we send: tried again; a large file is not sent twice."""

    async def reset(_: Post, line: Line) -> None:
        await line.reader.read(1)
        line.reset()

    job = job_of(made(tmp_path, size))
    server = serving(answering(204), early=reset)
    async with server as posts, sending(posts, body="file") as handler:
        outcome = await handler.run(job)
    assert (outcome.verdict, outcome.suspect) == ("retry", True)
    assert posts.connections == (1 if size > LARGE else 2)


async def _ten(handler: HttpHandler, job: Job) -> list[str]:
    return [(await handler.run(job)).verdict for _ in range(10)]


async def test_connections_are_kept(tmp_path: Path) -> None:
    """Ten posts one after the other go over one connection."""
    job = job_of(made(tmp_path, 5))
    async with serving(answering(200, "{}")) as posts, sending(posts, body="file") as handler:
        assert await _ten(handler, job) == ["success"] * 10
    assert posts.connections == 1


async def test_no_more_connections_than_places(tmp_path: Path) -> None:
    """There are at most as many connections as the step has places."""
    job = job_of(made(tmp_path, 5))
    async with serving(answering(204)) as posts, sending(posts, concurrency=3) as handler:
        await asyncio.gather(*(_ten(handler, job) for _ in range(10)))
    assert posts.connections == 3


async def _hang_up_on_the_second(post: Post, line: Line, posts: Posts) -> None:
    if sum(before.number == post.number for before in posts.got) > 1:
        line.close()
    else:
        await line.say(response(204))


@pytest.mark.parametrize("body", ["event", "file"])
async def test_stale_connection(tmp_path: Path, body: Any) -> None:
    """A connection that the server closes when it is used again costs no attempt."""
    job = job_of(made(tmp_path, 5))
    async with serving(answering(204)) as posts, sending(posts, body=body) as handler:
        posts.answer = lambda post, line: _hang_up_on_the_second(post, line, posts)
        assert await _ten(handler, job) == ["success"] * 10
    assert {post.headers["idempotency-key"] for post in posts.got} == {"k-1"}
    assert {post.body for post in posts.got if body == "file"} <= {
        (tmp_path / "a.csv").read_bytes()
    }


async def test_idle_connections_are_closed(tmp_path: Path) -> None:
    """A server that has closed all its idle connections is asked over new ones."""
    job = job_of(made(tmp_path, 5))
    async with serving(answering(204)) as posts, sending(posts, concurrency=3) as handler:
        for _ in range(3):
            runs = await asyncio.gather(*(handler.run(job) for _ in range(3)))
            assert {run.verdict for run in runs} == {"success"}
            posts.hang_up()
    assert len(posts.got) == 9


async def test_event_has_no_file(tmp_path: Path) -> None:
    """For an event the file is not even opened."""
    job = job_of(made(tmp_path, 5))
    (tmp_path / "a.csv").unlink()
    async with serving(answering(204)) as posts, sending(posts) as handler:
        assert (await handler.run(job)).verdict == "success"
    assert msgspec.json.decode(posts.got[0].body)["data"]["size"] == 5
