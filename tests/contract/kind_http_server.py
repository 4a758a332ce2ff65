"""The server of the `http` kind, in a process of its own: it behaves as the path of the URL says.

It ends when its standard input does.
"""

import asyncio
import os
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec

from tests.contract.posts import Answer, Line, Post, answering, response, serving


async def _talk(post: Post, line: Line) -> None:
    event = msgspec.json.decode(post.body)
    data = event["data"]
    said = f"{data['path']}|{data['watch']}|{data['step']}/{data['attempt']}/{data['version']}"
    await line.say(response(500, f"{said}|{post.headers['idempotency-key']}"))


async def _name(post: Post, line: Line) -> None:
    await line.say(response(500, msgspec.json.decode(post.body)["data"]["relpath"]))


async def _previous(post: Post, line: Line) -> None:
    previous = msgspec.json.decode(post.body)["data"]["previous"]
    await line.say(response(500, msgspec.json.encode(previous)))


async def _hang_up(_: Post, line: Line) -> None:
    line.close()


async def _crash_on_one(post: Post, line: Line) -> None:
    if msgspec.json.decode(post.body)["data"]["relpath"].endswith("a.csv"):
        line.close()
    else:
        await line.say(response(204))


async def _say_garbage(_: Post, line: Line) -> None:
    await line.say(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    line.close()


async def _say_half(_: Post, line: Line) -> None:
    await line.say(response(200, "x" * 100)[:-50])
    line.close()


async def _stay(post: Post, line: Line) -> None:
    with _witness(post):
        await line.hung_up()


async def _wait_at_the_gate(post: Post, line: Line) -> None:
    gate = os.open(_folder(post) / "gate", os.O_RDONLY | os.O_NONBLOCK)
    loop = asyncio.get_running_loop()
    with _witness(post):
        open_gate = asyncio.Event()
        loop.add_reader(gate, open_gate.set)
        while True:
            await open_gate.wait()
            try:
                os.read(gate, 1)
                break
            except BlockingIOError:  # another one was faster
                open_gate.clear()
        loop.remove_reader(gate)
        os.close(gate)
        await line.say(response(204))


def _folder(post: Post) -> Path:
    return Path(parse_qs(urlsplit(post.path).query)["folder"][0])


class _witness:  # noqa: N801 - a context manager, and read as one
    """Says `up`, and is gone when the pipe ends."""

    def __init__(self, post: Post) -> None:
        self._path = _folder(post) / "witness"

    def __enter__(self) -> None:
        self._pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(self._pipe, b"up\n")

    def __exit__(self, *_: object) -> None:
        os.close(self._pipe)


BEHAVIOURS: dict[str, Answer] = {
    "succeeds": answering(204),
    "succeeds, talking": answering(200, "out", Content_Type="text/plain"),
    "succeeds, with a result": answering(200, '{"rows": 12}', Content_Type="application/json"),
    "says what came before": _previous,
    "fails": answering(500, "no route to host"),
    "fails, naming its file": _name,
    "fails, and says when": answering(500, Retry_After="7"),
    "refuses": answering(422, "not a table"),
    "is unavailable": answering(503),
    "says what it got": _talk,
    "crashes": _hang_up,
    "crashes on a.csv": _crash_on_one,
    "answers garbage": _say_garbage,
    "answers half": _say_half,
    "waits at a gate": _wait_at_the_gate,
    "stays": _stay,
}


async def _behave(post: Post, line: Line) -> None:
    name = parse_qs(urlsplit(post.path).query)["like"][0]
    await BEHAVIOURS[name](post, line)


async def _main() -> None:
    async with serving(_behave) as posts:
        print(posts.port, flush=True)  # noqa: T201 - how the test learns it
        await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(_main())
