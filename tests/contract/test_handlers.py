"""What every handler promises, run against every kind: the one conformance suite.

Here stand the facts. How a handler of a kind is made that behaves in a named way stands in
`kind_NAME.py`, which holds `KINDS`, a tuple of `kinds.Kind`: a name, the behaviours that it shows,
a context manager `opened(folder)` that yields `build(behaviour, timeout=, kill_after=, places=)`,
and `excuses`, the behaviours that it cannot show with the reason for each. The behaviours and what
each has to do are listed in `kinds.BEHAVIOURS`.

A new kind writes its module and adds it to `KINDS` below. A test names the behaviours that it needs
and runs against each kind that shows them all; the first tests see to it that a kind shows or
excuses every one. What is true of one kind only belongs into that kind's own tests.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import pytest

from daemon.core.model import Key
from daemon.handlers import Handler, Job
from daemon.handlers.command import install_child_watcher
from tests.contract import kind_command, kind_function, kind_http, kind_worker
from tests.contract.kinds import BEHAVIOURS, Build, Kind

KINDS: tuple[Kind, ...] = (
    *kind_command.KINDS,
    *kind_worker.KINDS,
    *kind_http.KINDS,
    *kind_function.KINDS,
)
DEADLINE = 10


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


@pytest.fixture
async def build(kind: Kind, tmp_path: Path) -> AsyncIterator[Build]:
    """Build handlers of one kind."""
    async with kind.opened(tmp_path) as built:
        yield built


def showing(*behaviours: str) -> pytest.MarkDecorator:
    """Run the test against each kind that shows all of these behaviours."""
    able = [kind for kind in KINDS if kind.shows >= set(behaviours)]
    return pytest.mark.parametrize("kind", able, ids=lambda kind: kind.name)


def showing_any(behaviours: Mapping[str, float]) -> pytest.MarkDecorator:
    """Run the test against each kind with each of these that it shows, and its `kill_after`."""
    cases = [
        pytest.param(kind, behaviour, kill_after, id=f"{kind.name}-{behaviour}")
        for behaviour, kill_after in behaviours.items()
        for kind in KINDS
        if behaviour in kind.shows
    ]
    return pytest.mark.parametrize(("kind", "behaviour", "kill_after"), cases)


def job(path: bytes = b"in/a.csv", number: int = 7, previous: str | None = None) -> Job:
    key = Key("incoming", path)
    return Job(number, key, b"/srv/" + path, "load", 2, "k-1", version=5, previous_json=previous)


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


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def childless() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_behaviour_is_shown_or_excused(kind: Kind) -> None:
    """A kind shows each behaviour, or says why it cannot; none of both, and none of neither."""
    assert kind.shows ^ kind.excuses.keys() == BEHAVIOURS.keys()
    assert all(kind.excuses.values())


@showing("succeeds")
async def test_success(build: Build) -> None:
    """A handler that is content gives `success`, no error, and the time it took."""
    outcome = await build("succeeds").run(job())
    assert (outcome.verdict, outcome.error, outcome.result) == ("success", None, None)
    assert 0 < outcome.duration_ms < DEADLINE * 1000


@showing("fails")
async def test_retry(build: Build) -> None:
    """A handler that fails gives `retry`, with its last words."""
    outcome = await build("fails").run(job())
    assert (outcome.verdict, outcome.after) == ("retry", None)
    assert f"{outcome.error}".endswith("no route to host")


@showing("fails, and says when")
async def test_retry_after(build: Build) -> None:
    """A handler may say how long to wait for the next attempt."""
    outcome = await build("fails, and says when").run(job())
    assert (outcome.verdict, outcome.after) == ("retry", 7.0)


@showing("refuses")
async def test_reject(build: Build) -> None:
    """A handler that says so gives `reject`: never again."""
    outcome = await build("refuses").run(job())
    assert outcome.verdict == "reject"
    assert f"{outcome.error}".endswith("not a table")


@showing("is unavailable")
async def test_unavailable(build: Build) -> None:
    """What the step needs cannot be reached: `unavailable`, with the reason."""
    outcome = await build("is unavailable").run(job())
    assert outcome.verdict == "unavailable"
    assert outcome.error


@showing("succeeds, with a result")
async def test_result(build: Build) -> None:
    """A handler hands a small JSON value on to the next step."""
    outcome = await build("succeeds, with a result").run(job())
    assert (outcome.verdict, outcome.result) == ("success", '{"rows":12}')


@showing("says what came before")
async def test_previous(build: Build) -> None:
    """What the step before handed on reaches the handler as JSON."""
    outcome = await build("says what came before").run(job(previous='{"rows":12}'))
    assert f"{outcome.error}".endswith('{"rows":12}')


@showing("succeeds, talking")
async def test_stdout_stays_inside(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    """What a handler prints reaches neither stdout nor stderr of the daemon."""
    assert (await build("succeeds, talking").run(job())).verdict == "success"
    assert capfd.readouterr() == ("", "")


@showing("says 10 MB")
async def test_huge_output(build: Build) -> None:
    """Of 10 MB of complaints the last 4 KB are kept."""
    outcome = await build("says 10 MB").run(job())
    assert outcome.error is not None
    assert outcome.verdict == "retry"
    assert outcome.error.endswith("x the end")
    assert 4000 < len(outcome.error) < 4200


@showing("answers garbage")
async def test_garbage(build: Build) -> None:
    """What is no answer is no success: it is tried again, and the error says what was wrong."""
    handler = build("answers garbage")
    for _ in range(2):
        outcome = await handler.run(job())
        assert outcome.verdict == "retry"
        assert outcome.error


@showing("answers half")
async def test_half_an_answer(build: Build) -> None:
    """An answer that breaks off is none: it is tried again."""
    handler = build("answers half")
    for _ in range(2):
        outcome = await handler.run(job())
        assert outcome.verdict == "retry"
        assert outcome.error


@showing("crashes")
async def test_crash(build: Build) -> None:
    """A handler that dies has failed, whatever it was about to say."""
    outcome = await build("crashes").run(job())
    assert outcome.verdict == "retry"
    assert outcome.error


@showing("crashes on a.csv")
async def test_after_a_crash(build: Build) -> None:
    """A crash is the crash of one file: the same handler takes the next one."""
    handler = build("crashes on a.csv")
    verdicts = [(await handler.run(job(name))).verdict for name in (b"b.csv", b"a.csv", b"c.csv")]
    assert verdicts == ["success", "retry", "success"]


@showing("crashes on a.csv")
async def test_crash_beside_others(build: Build) -> None:
    """Of twenty jobs at once, the one that crashes fails, and each of the others succeeds."""
    handler = build("crashes on a.csv", places=20)
    names = [b"a.csv" if n == 7 else b"file-%d" % n for n in range(20)]
    outcomes = await asyncio.gather(*(handler.run(job(name)) for name in names))
    assert [n for n, o in enumerate(outcomes) if o.verdict != "success"] == [7]
    assert outcomes[7].verdict == "retry"


@showing("says what it got")
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
    handler = build("says what it got")
    before = names_in(tmp_path)
    outcome = await handler.run(job(b"in/" + name))
    assert outcome.verdict == "retry"
    assert f"{outcome.error}".endswith(f"/srv/in/{name.decode()}|incoming|load/2/5|k-1")
    assert names_in(tmp_path) == before


@showing("says what it got")
async def test_fencing(build: Build) -> None:
    """Attempt, version and idempotency key reach the handler as they are."""
    handler = build("says what it got")
    for attempt, version, key in ((1, 4, "k-1"), (3, 12, "k-2")):
        told = Job(7, Key("w", b"a"), b"/a", "s", attempt, key, version=version)
        assert f"{(await handler.run(told)).error}".endswith(f"/a|w|s/{attempt}/{version}|{key}")


@showing("waits at a gate")
async def test_twenty_at_once(build: Build, tmp_path: Path) -> None:
    """One handler runs twenty jobs at the same time: all stand at the gate before one passes."""
    os.mkfifo(tmp_path / "gate")
    handler = build("waits at a gate", places=20)
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    async with witness(tmp_path) as reader, asyncio.TaskGroup() as group:
        runs = [group.create_task(handler.run(job(number=n))) for n in range(20)]
        assert [await reader.readline() for _ in runs] == [b"up\n"] * 20
        os.write(gate, b"\n" * 20)
    os.close(gate)
    assert {run.result().verdict for run in runs} == {"success"}


@showing("fails, naming its file")
async def test_outcomes_are_not_mixed_up(build: Build) -> None:
    """Of twenty jobs at once each gets its own outcome."""
    handler = build("fails, naming its file", places=20)
    names = [b"file-%02d" % n for n in range(20)]
    outcomes = await asyncio.gather(*(handler.run(job(name)) for name in names))
    assert [f"{o.error}"[-7:] for o in outcomes] == [n.decode() for n in names]


@showing("stays")
async def test_timeout(build: Build, tmp_path: Path) -> None:
    """A handler that takes too long is ended, and its file tried again."""
    async with witness(tmp_path) as reader:
        outcome = await build("stays", timeout=1.5).run(job())
        assert (outcome.verdict, outcome.error) == ("retry", "timed out after 1.5s")
        assert outcome.duration_ms >= 1500
        assert await reader.read() == b"up\n"


@showing("stays, deaf to TERM")
async def test_timeout_of_the_deaf(build: Build, tmp_path: Path) -> None:
    """A handler that ignores TERM is killed after `kill_after`, and its child with it."""
    async with witness(tmp_path) as reader:
        handler = build("stays, deaf to TERM", timeout=1.5, kill_after=0.2)
        outcome = await handler.run(job())
        assert (outcome.verdict, outcome.error) == ("retry", "timed out after 1.5s")
        assert outcome.duration_ms >= 1700
        assert await reader.read() == b"up\n"


@showing("ends on TERM, its child does not")
async def test_timeout_with_a_straggler(build: Build, tmp_path: Path) -> None:
    """A child that outlives its parent's TERM is killed as soon as the parent is gone."""
    async with witness(tmp_path) as reader:
        handler = build("ends on TERM, its child does not", timeout=1.5, kill_after=60)
        assert (await handler.run(job())).error == "timed out after 1.5s"
        assert await reader.read() == b"up\n"


@showing_any({"stays": 60, "stays, deaf to TERM": 0.1, "ends on TERM, its child does not": 60})
async def test_cancel(build: Build, tmp_path: Path, behaviour: str, kill_after: float) -> None:
    """Cancelling returns when the handler is gone, all of it, and lets the cancellation through."""
    async with witness(tmp_path) as reader:
        run = asyncio.create_task(build(behaviour, kill_after=kill_after).run(job()))
        await reader.readline()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await reader.read() == b""


@showing("answers TERM and stays")
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


@showing("stays")
async def test_cancel_at_every_turn_of_the_loop(build: Build, tmp_path: Path) -> None:
    """A cancellation that comes while the handler is being started leaves nothing behind."""
    await build("stays").close()
    before = descriptors()
    for turns in range(16):
        handler = build("stays")
        async with witness(tmp_path):
            run = asyncio.create_task(handler.run(job()))
            for _ in range(turns):
                await asyncio.sleep(0)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            await handler.close()
            assert childless()
        (tmp_path / "witness").unlink()
    await asyncio.sleep(0)
    assert descriptors() == before


@showing("stays")
async def test_deadline_of_the_caller(build: Build, tmp_path: Path) -> None:
    """A deadline that the caller sets around `run` works as around any coroutine."""

    async def expire(limit: asyncio.Timeout) -> None:
        assert await reader.readline() == b"up\n"
        limit.reschedule(asyncio.get_running_loop().time())

    async with witness(tmp_path) as reader:
        limit = asyncio.timeout(None)
        expiring = asyncio.create_task(expire(limit))
        with pytest.raises(TimeoutError):
            async with limit:
                await build("stays").run(job())
        await expiring
        assert await reader.read() == b""


@showing("leaves a child behind")
async def test_child_left_behind(build: Build, tmp_path: Path) -> None:
    """A grandchild that keeps stderr open delays the outcome by a moment, not for ever."""
    async with witness(tmp_path) as reader:
        before = descriptors()
        outcome = await build("leaves a child behind").run(job())
        assert descriptors() == before
        assert outcome.verdict == "retry"
        assert f"{outcome.error}".endswith("so long")
        os.kill(int(await reader.readline()), 9)
        assert await reader.read() == b""


@showing("waits at a gate")
async def test_drain(build: Build, tmp_path: Path) -> None:
    """What runs when nothing more is started ends in its own time; then closing leaves nothing."""
    os.mkfifo(tmp_path / "gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    handler = build("waits at a gate", places=2)
    async with witness(tmp_path) as reader:
        runs = [asyncio.create_task(handler.run(job(number=n))) for n in range(2)]
        assert [await reader.readline() for _ in runs] == [b"up\n"] * 2
        os.write(gate, b"\n" * 2)
        assert [(await run).verdict for run in runs] == ["success"] * 2
        await handler.close()
        await handler.close()
        assert await reader.read() == b""
    os.close(gate)
    assert childless()


@showing("succeeds")
async def test_restart(build: Build) -> None:
    """Closed before its first job, or after one, a handler leaves room for another."""
    for jobs in (0, 1, 2):
        handler = build("succeeds")
        assert [(await handler.run(job())).verdict for _ in range(jobs)] == ["success"] * jobs
        await handler.close()
        await handler.close()
        assert childless()


@showing("succeeds", "fails", "refuses", "succeeds, talking")
async def test_no_leaks(kind: Kind, build: Build) -> None:
    """After fifty mixed runs there are as many descriptors, tasks and children as before."""
    await _mixed_runs(kind, build)
    before, tasks = descriptors(), asyncio.all_tasks()
    await _mixed_runs(kind, build)
    assert (descriptors(), childless()) == (before, True)
    assert asyncio.all_tasks() == tasks


async def _mixed_runs(kind: Kind, build: Build) -> None:
    """Some end by themselves, some at their timeout, and some are cancelled."""
    handlers: list[Handler] = [
        build(behaviour, places=10)
        for behaviour in ("succeeds", "fails", "refuses", "succeeds, talking")
    ]
    if "stays" in kind.shows:
        handlers.append(build("stays", timeout=0.05, kill_after=0.05, places=10))
    kinds = len(handlers)
    for _ in range(2):
        await asyncio.gather(*(handlers[n % kinds].run(job()) for n in range(20)))
    runs = [asyncio.create_task(handlers[n % kinds].run(job())) for n in range(10)]
    await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
    for run in runs:
        run.cancel()
    await asyncio.wait(runs)
    for handler in handlers:
        await handler.close()
