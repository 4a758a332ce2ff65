"""A server for what is posted: it reads requests by the letter, and answers whatever a test says.

By the letter, because half of what it has to do no library would do: break off, trickle, lie.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from daemon.config_steps import HttpStep
from daemon.core.model import Fingerprint, Key
from daemon.handlers import Job
from daemon.handlers.http import HttpHandler


class Post(NamedTuple):
    """One request; the names of its headers are in lower case. `number` counts connections."""

    path: str
    headers: dict[str, str]
    body: bytes
    number: int


class Line:
    """The connection that a request came over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def hung_up(self) -> None:
        """Wait until the client has closed its side."""
        with suppress(OSError):
            while await self.reader.read(65_536):
                pass

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


Answer = Callable[[Post, Line], Awaitable[None]]


def response(status: int, body: bytes | str = b"", **headers: str) -> bytes:
    """A whole answer; `Retry_After="7"` becomes a header."""
    raw = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Length: {len(raw)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + raw


def answering(status: int, body: bytes | str = b"", **headers: str) -> Answer:
    """Always this answer."""

    async def answer(_: Post, line: Line) -> None:
        await line.say(response(status, body, **headers))

    return answer


class Posts:
    """A server on a port of its own, and every request that it has got."""

    def __init__(self, answer: Answer, early: Answer | None = None) -> None:
        self.answer = answer
        self.early = early
        self.got: list[Post] = []
        self.connections = 0
        self.port = 0
        self._lines: set[Line] = set()

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        line = Line(reader, writer)
        self._lines.add(line)
        try:
            while not writer.is_closing():
                await self._exchange(line, number)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._lines.discard(line)
            writer.close()

    async def _exchange(self, line: Line, number: int) -> None:
        head = (await line.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(field.split(": ", 1) for field in head[1:] if field)
        headers = {name.lower(): value for name, value in headers.items()}
        path = head[0].split(" ")[1]
        if self.early is not None:
            await self.early(Post(path, headers, b"", number), line)
            return
        body = await line.reader.readexactly(int(headers["content-length"]))
        post = Post(path, headers, body, number)
        self.got.append(post)
        await self.answer(post, line)

    def hang_up(self) -> None:
        """Close every connection, as a server does with those that are idle for too long."""
        for line in self._lines:
            line.close()

    def drop(self) -> None:
        for line in list(self._lines):
            line.reset()


@asynccontextmanager
async def serving(
    answer: Answer, *, early: Answer | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Posts]:
    """Answer what is posted to a port of this host; `early` answers before the body is read."""
    posts = Posts(answer, early)
    server = await asyncio.start_server(posts.speak, "127.0.0.1", 0, ssl=tls)
    posts.port = server.sockets[0].getsockname()[1]
    try:
        yield posts
    finally:
        server.close()
        posts.drop()
        await server.wait_closed()


@asynccontextmanager
async def sending(
    posts: Posts | int, scheme: str = "http", path: str = "/in", **keys: Any
) -> AsyncIterator[HttpHandler]:
    """A handler that posts there, or to a port, of a step with these keys."""
    port = posts if isinstance(posts, int) else posts.port
    step = HttpStep(name="load", http=f"{scheme}://127.0.0.1:{port}{path}", **keys)
    handler = HttpHandler(step, "files1")
    try:
        yield handler
    finally:
        await handler.close()


def job_of(path: Path, **changes: Any) -> Job:
    """A job for a file as it is now, or one for the name of a file alone."""
    seen = None
    if path.exists():
        st = path.lstat()
        seen = Fingerprint(st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino, st.st_dev)
    key = Key("incoming", os.fsencode(path.name))
    job = Job(7, key, os.fsencode(path), "load", 2, "k-1", version=5, seen=seen)
    return replace(job, **changes)
