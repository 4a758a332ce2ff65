"""What every handler promises, run against each kind.

A kind knows how to build a handler that behaves in a named way; `BEHAVIOURS` lists the ways. A
behaviour that stays announces itself by a line in the pipe `witness`, and holds the pipe open: the
end of file proves that nobody of it is left.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Protocol

import pytest

from daemon.core.model import Key
from daemon.handlers import Handler, Job
from daemon.handlers.command import CommandHandler, install_child_watcher

DEADLINE = 10

# What a handler can be like; the shell says it in the fewest words.
BEHAVIOURS = {
    "succeeds": "exit 0",
    "succeeds, talking": "echo out; echo err >&2; exit 0",
    "fails": "echo 'no route to host' >&2; exit 3",
    "fails, naming its file": 'echo "$TREEWARDEN_RELPATH" >&2; exit 3',
    "refuses": "echo 'not a table' >&2; exit 65",
    "says 10 MB": "head -c 10000000 /dev/zero | tr '\\0' x >&2; echo ' the end' >&2; exit 1",
    "says what it got": 'printf "%s|%s|%s|%s" "$TREEWARDEN_PATH" "$TREEWARDEN_WATCH"'
    ' "$TREEWARDEN_STEP/$TREEWARDEN_ATTEMPT" "$TREEWARDEN_KEY" >&2; exit 1',
    "waits at a gate": "exec 3>witness; echo up >&3; read _ <gate; exit 0",
    "stays": "exec 3>witness; echo up >&3; sleep 600",
    "stays, deaf to TERM": "trap '' TERM; exec 3>witness; sleep 600 & echo up >&3; wait",
    "ends on TERM, its child does not": "exec 3>witness;"
    " sh -c 'trap \"\" TERM; echo up >&3; sleep 600' & wait",
    "answers TERM and stays": "exec 3>witness; trap 'echo term >&3' TERM; echo up >&3;"
    " while :; do sleep 600 & wait; done",
    "leaves a child behind": "exec 3>witness; sleep 600 & echo $! >&3; echo 'so long' >&2; exit 1",
}


class Build(Protocol):
    def __call__(
        self, behaviour: str, *, timeout: float = 60, kill_after: float = 60
    ) -> Handler: ...


@pytest.fixture(scope="module", autouse=True)
def _watcher() -> Iterator[None]:
    """Children are awaited as in the daemon."""
    if sys.version_info >= (3, 12):
        install_child_watcher()
        yield
        return
    policy = asyncio.get_event_loop_policy()
    before = policy.get_child_watcher()
    install_child_watcher()
    yield
    policy.set_child_watcher(before)


@pytest.fixture(params=["command"])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Build:
    """Build a handler of one kind that shows the behaviour asked for."""
    return {"command": _command}[request.param](tmp_path)


def _command(folder: Path) -> Build:
    def build(behaviour: str, *, timeout: float = 60, kill_after: float = 60) -> Handler:
        script = f"cd {folder} && {BEHAVIOURS[behaviour]}"
        command = ("/bin/sh", "-c", script.replace("{", "{{").replace("}", "}}"))
        return CommandHandler(command, timeout=timeout, kill_after=kill_after)

    return build


def job(path: bytes = b"in/a.csv", number: int = 7) -> Job:
    return Job(number, Key("incoming", path), b"/srv/" + path, "load", 2, "k-1")


@asynccontextmanager
async def witness(folder: Path) -> AsyncIterator[asyncio.StreamReader]:
    os.mkfifo(folder / "witness")
    reader = asyncio.StreamReader()
    pipe: IO[bytes] = os.fdopen(os.open(folder / "witness", os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        async with asyncio.timeout(DEADLINE):
            yield reader
    finally:
        transport.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def childless() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


async def test_success(build: Build) -> None:
    """A handler that is content gives `success`, no error, and the time it took."""
    outcome = await build("succeeds").run(job())
    assert (outcome.verdict, outcome.error) == ("success", None)
    assert 0 < outcome.duration_ms < DEADLINE * 1000


async def test_retry(build: Build) -> None:
    """A handler that fails gives `retry`, with the status before its last words."""
    outcome = await build("fails").run(job())
    assert (outcome.verdict, outcome.error) == ("retry", "exit status 3: no route to host")


async def test_reject(build: Build) -> None:
    """Exit status 65 gives `reject`: never again."""
    outcome = await build("refuses").run(job())
    assert (outcome.verdict, outcome.error) == ("reject", "exit status 65: not a table")


async def test_stdout_stays_inside(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    """What a handler prints reaches neither stdout nor stderr of the daemon."""
    assert (await build("succeeds, talking").run(job())).verdict == "success"
    assert capfd.readouterr() == ("", "")


async def test_flood_of_stderr(build: Build) -> None:
    """Of 10 MB of complaints the last 4 KB are kept."""
    outcome = await build("says 10 MB").run(job())
    assert outcome.error is not None
    status, _, tail = outcome.error.partition(": ")
    assert (status, tail[-9:]) == ("exit status 1", "x the end")
    assert 4000 < len(tail) <= 4096


@pytest.mark.parametrize(
    "name",
    [
        b"plain.csv",
        b"two words.csv",
        b"new\nline",
        b"'single' \"double\" `tick`",
        b"--help",
        b"$(touch x); touch y & *",
        b"{path} %s %(path)b \\n",
        "größe-漢字-🦀".encode(),
        b"n" * 255,
    ],
)
async def test_hostile_names(build: Build, tmp_path: Path, name: bytes) -> None:
    """A name reaches the handler as it is, and is never taken for anything but a name."""
    outcome = await build("says what it got").run(job(b"in/" + name))
    got = f"/srv/in/{name.decode()}|incoming|load/2|k-1"
    assert (outcome.verdict, outcome.error) == ("retry", f"exit status 1: {got}")
    assert not os.listdir(tmp_path)  # noqa: PTH208 - its pathlib twin is another rule's offence


async def test_twenty_at_once(build: Build, tmp_path: Path) -> None:
    """One handler runs twenty jobs at the same time: all stand at the gate before one passes."""
    os.mkfifo(tmp_path / "gate")
    handler = build("waits at a gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    async with witness(tmp_path) as reader, asyncio.TaskGroup() as group:
        runs = [group.create_task(handler.run(job(number=n))) for n in range(20)]
        assert [await reader.readline() for _ in runs] == [b"up\n"] * 20
        os.write(gate, b"\n" * 20)
    os.close(gate)
    assert {run.result().verdict for run in runs} == {"success"}


async def test_outcomes_are_not_mixed_up(build: Build) -> None:
    """Of twenty jobs at once each gets its own outcome."""
    handler = build("fails, naming its file")
    names = [b"file-%d" % n for n in range(20)]
    outcomes = await asyncio.gather(*(handler.run(job(name)) for name in names))
    assert [o.error for o in outcomes] == [f"exit status 3: {n.decode()}" for n in names]


async def test_timeout(build: Build, tmp_path: Path) -> None:
    """A handler that takes too long is ended, and its file tried again."""
    async with witness(tmp_path) as reader:
        outcome = await build("stays", timeout=0.5).run(job())
        assert (outcome.verdict, outcome.error) == ("retry", "timed out after 0.5s")
        assert outcome.duration_ms >= 500
        assert await reader.read() == b"up\n"


async def test_timeout_of_the_deaf(build: Build, tmp_path: Path) -> None:
    """A handler that ignores TERM is killed after `kill_after`, and its child with it."""
    async with witness(tmp_path) as reader:
        handler = build("stays, deaf to TERM", timeout=0.5, kill_after=0.2)
        outcome = await handler.run(job())
        assert (outcome.verdict, outcome.error) == ("retry", "timed out after 0.5s")
        assert outcome.duration_ms >= 700
        assert await reader.read() == b"up\n"


async def test_timeout_with_a_straggler(build: Build, tmp_path: Path) -> None:
    """A child that outlives its parent's TERM is killed as soon as the parent is gone."""
    async with witness(tmp_path) as reader:
        handler = build("ends on TERM, its child does not", timeout=0.5, kill_after=60)
        assert (await handler.run(job())).error == "timed out after 0.5s"
        assert await reader.read() == b"up\n"


@pytest.mark.parametrize(
    ("behaviour", "kill_after"),
    [("stays", 60), ("stays, deaf to TERM", 0.1), ("ends on TERM, its child does not", 60)],
)
async def test_cancel(build: Build, tmp_path: Path, behaviour: str, kill_after: float) -> None:
    """Cancelling returns when the handler is gone, all of it, and lets the cancellation through."""
    async with witness(tmp_path) as reader:
        run = asyncio.create_task(build(behaviour, kill_after=kill_after).run(job()))
        await reader.readline()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await reader.read() == b""


async def test_second_cancel_hurries(build: Build, tmp_path: Path) -> None:
    """The first cancellation asks, the second does not wait for the answer."""
    async with witness(tmp_path) as reader:
        run = asyncio.create_task(build("answers TERM and stays", kill_after=60).run(job()))
        await reader.readline()
        run.cancel()
        assert await reader.readline() == b"term\n"
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await reader.read() == b""


async def test_cancel_at_every_turn_of_the_loop(build: Build, tmp_path: Path) -> None:
    """A cancellation that comes while the handler is being started leaves nothing behind."""
    before = descriptors()
    handler = build("stays")
    for turns in range(16):
        async with witness(tmp_path):
            run = asyncio.create_task(handler.run(job()))
            for _ in range(turns):
                await asyncio.sleep(0)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            assert childless()
        (tmp_path / "witness").unlink()
    await asyncio.sleep(0)
    assert descriptors() == before


async def test_deadline_of_the_caller(build: Build, tmp_path: Path) -> None:
    """A deadline that the caller sets around `run` works as around any coroutine."""
    async with witness(tmp_path) as reader:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await build("stays").run(job())
        assert await reader.read() == b"up\n"


async def test_child_left_behind(build: Build, tmp_path: Path) -> None:
    """A grandchild that keeps stderr open delays the outcome by a moment, not for ever."""
    async with witness(tmp_path) as reader:
        before = descriptors()
        outcome = await build("leaves a child behind").run(job())
        assert descriptors() == before
        assert (outcome.verdict, outcome.error) == ("retry", "exit status 1: so long")
        os.kill(int(await reader.readline()), 9)
        assert await reader.read() == b""


async def test_no_leaks(build: Build) -> None:
    """After fifty mixed runs there are as many descriptors, tasks and children as before."""
    mixed: list[Callable[[], Handler]] = [
        lambda: build("succeeds"),
        lambda: build("fails"),
        lambda: build("refuses"),
        lambda: build("stays", timeout=0.05, kill_after=0.05),
        lambda: build("succeeds, talking"),
    ]
    before = descriptors()
    for _ in range(2):
        await asyncio.gather(*(mixed[n % 5]().run(job()) for n in range(20)))
    runs = [asyncio.create_task(mixed[n % 5]().run(job())) for n in range(10)]
    await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
    for run in runs:
        run.cancel()
    await asyncio.wait(runs)
    assert (descriptors(), childless()) == (before, True)
    assert asyncio.all_tasks() == {asyncio.current_task()}
