"""Posts per second: the `http` handler beside the same client without us, to the same server.

    python tests/benchmarks/bench_http.py [repeats]

One server, in a process of its own, answers everything with 200 and two bytes; ten are in flight.

* aiohttp: a session, and nothing around it: the same URL, headers and body each time.
* handler: `HttpHandler.run`, with an event for each job.
* file: the same with `body = "file"` and files of 1,000 bytes.
* daemon: files in a tree, from the first committed `start` to the last committed `done`.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from yarl import URL

from daemon.config_steps import HttpStep
from daemon.core.model import Fingerprint, Key
from daemon.handlers import Job
from daemon.handlers.http import HttpHandler
from tests.benchmarks.figures import shown, spread
from tests.benchmarks.running import configure, running

IN_FLIGHT = 10
POSTS = 8_000
FILES = 4_000
GOAL = 0.6
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
STEP = """\
settle.quiet = "0s"
[[watch.step]]
name = "post"
http = "{url}"
concurrency = {places}
"""


class Server(asyncio.Protocol):
    """Reads requests by their lengths, as fast as Python can."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._got = b""

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            length = self._got[:end].lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            whole = end + 4 + int(length)
            if len(self._got) < whole:
                return
            self._got = self._got[whole:]
            self._transport.write(ANSWER)


async def serve() -> None:
    """Serve until standard input ends; the port is the first line."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


@contextmanager
def served() -> Iterator[str]:
    """The URL of the server."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_http", "serve"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/in"
        process.communicate()


async def rate(post: Callable[[int], Awaitable[None]]) -> float:
    """Posts per second with ten in flight, after the connections are made."""
    await asyncio.gather(*map(post, range(IN_FLIGHT)))
    numbers = iter(range(POSTS))

    async def drive() -> None:
        for number in numbers:
            await post(number)

    began = time.perf_counter()
    await asyncio.gather(*(drive() for _ in range(IN_FLIGHT)))
    return POSTS / (time.perf_counter() - began)


async def alone(url: str) -> float:
    """The client without us."""
    headers = {"Content-Type": "application/cloudevents+json", "Idempotency-Key": "k" * 32}
    body, where = b"x" * 500, URL(url)
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def post(_: int) -> None:
            async with session.post(where, data=body, headers=headers) as answer:
                await answer.read()

        return await rate(post)


async def handler(url: str, folder: Path, body: str) -> float:
    """The handler, a job for each post."""
    path = folder / "a.csv"
    path.write_bytes(b"x" * 1000)
    st = path.stat()
    seen = Fingerprint(st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino, st.st_dev)
    key = Key("bench", b"a.csv")
    step = HttpStep(name="post", http=url, concurrency=IN_FLIGHT, body=body)  # type: ignore[arg-type]
    posting = HttpHandler(step, "here")

    async def post(number: int) -> None:
        job = Job(number, key, bytes(path), "post", 1, "k" * 32, version=3, seen=seen)
        outcome = await posting.run(job)
        assert outcome.verdict == "success", outcome

    try:
        return await rate(post)
    finally:
        await posting.close()


def daemon(url: str, folder: Path) -> float:
    """The whole of it, from outside."""
    tree = folder / "tree"
    tree.mkdir()
    for number in range(FILES):
        (tree / f"{number}.csv").write_bytes(b"x" * 1000)
    configure(folder, tree, STEP.format(url=url, places=IN_FLIGHT))
    with running(folder) as process:
        process.wait(lambda: process.database.in_state("done") == FILES, deadline=60.0)
        query = "SELECT max(at) - min(at) FROM transitions WHERE trigger IN ('start', 'succeed')"
        return FILES / (process.database.number(query) / 1_000_000)


def main(repeats: int) -> None:
    """All of them in turn, as often as asked for."""
    found: dict[str, list[float]] = {"aiohttp": [], "handler": [], "file": [], "daemon": []}
    with served() as url:
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                found["aiohttp"].append(asyncio.run(alone(url)))
                found["handler"].append(asyncio.run(handler(url, folder, "event")))
                found["file"].append(asyncio.run(handler(url, folder, "file")))
                found["daemon"].append(daemon(url, folder))
    limit = sorted(found["aiohttp"])[repeats // 2]
    for what, rates in found.items():
        ratio = sorted(rates)[repeats // 2] / limit
        goal = f"goal >= {GOAL}: {'yes' if ratio >= GOAL else 'NO'}"
        print(f"{what:8} {spread('posts/s', rates):40} {shown(ratio)} of aiohttp, {goal}")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
