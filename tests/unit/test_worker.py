"""The `worker` handler's own: who is to blame for an end, restarts, and how it is closed."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.config_steps import WorkerStep
from daemon.core.model import Key
from daemon.handlers import Job, Outcome
from daemon.handlers.worker import WorkerHandler
from tests.unit import shortage

# What each of these programs does with a request `r`; pings are answered.
PROGRAM = r"""
import json, os, sys, time
def say(**answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
asked = []
for line in sys.stdin:
    r = json.loads(line)
    if "ping" in r:
        say(pong=r["ping"])
        continue
    asked.append(r)
    BODY
os._exit(0)
"""


def job(name: str = "a", number: int = 1, **more: Any) -> Job:
    path = os.fsencode(name)
    return Job(number, Key("w", path), b"/srv/" + path, "s", 1, "k", **more)


@asynccontextmanager
async def workers(
    body: str,
    *,
    limit: float = 60,
    kill_after: float = 60,
    ping: float = 0,
    program: str = PROGRAM,
    **options: Any,
) -> AsyncIterator[WorkerHandler]:
    """A handler whose workers do this; closed at the end, which must not take long."""
    text = program.replace("BODY", body.replace("\n", "\n    "))
    handler = WorkerHandler(
        WorkerStep(
            name="s",
            worker=(sys.executable, "-ISc", text),
            timeout=limit,
            kill_after=kill_after,
            ping=ping,
            **options,
        )
    )
    async with asyncio.timeout(20):
        try:
            yield handler
        finally:
            await handler.close()


async def answers(body: str, *jobs: Job, **options: Any) -> list[Outcome]:
    async with workers(body, **options) as handler:
        return await asyncio.gather(*map(handler.run, jobs or (job(),)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('hello', flush=True)", "answered what is no answer"),
        ("print('[1]', flush=True)", "Expected `object`"),
        ("say(id='1', outcome='success')", "Expected `int | null`"),
        ("say(id=r['id'], outcome='done')", "Invalid enum value 'done'"),
        ("say(id=r['id'], outcome='retry', after=-1)", ">= 0"),
        ("say(id=r['id'])", "without an outcome"),
        ("say(outcome='success')", "answered a request that it does not have: None"),
        ("say(id=99, outcome='success')", "answered a request that it does not have: 99"),
        ("say(pong=99)", "answered a ping that it did not get: 99"),
        ("os.write(1, b'x' * 70000); time.sleep(9)", "wrote a line of more than 65536 bytes"),
        ("os.write(1, b'x' * 70000 + b'\\n')", "wrote a line of more than 65536 bytes"),
        ("os.write(1, b'{\"id\"'); os._exit(3)", "ended: exit status 3 in the middle of a line"),
        ("os.close(1); time.sleep(9)", "closed its output"),
        ("os.write(2, b'oh no'); os._exit(3)", "the worker ended: exit status 3: oh no"),
        ("os._exit(0)", "the worker ended: exit status 0"),
    ],
)
async def test_what_is_no_answer(body: str, said: str) -> None:
    """What is no answer fails the file with a sentence about it, and a new worker takes over."""
    once = f"if r['relpath'] == 'bad':\n    {body}\nelse:\n    say(id=r['id'], outcome='success')"
    async with workers(once) as handler:
        outcome = await handler.run(job("bad"))
        assert (outcome.verdict, outcome.suspect) == ("retry", True)
        assert said in f"{outcome.error}"
        assert (await handler.run(job("good"))).verdict == "success"


async def test_answer_twice() -> None:
    """A second answer to the same request ends the worker, and harms no other file."""
    body = "say(id=r['id'], outcome='success')\nsay(id=r['id'], outcome='reject')"
    for outcome in await answers(body, *(job(str(n), n) for n in range(5))):
        assert outcome.verdict == "success"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("outcome='success', result=None", Outcome("success")),
        ("outcome='success', error='?', more=1", Outcome("success")),
        (
            "outcome='success', result=[1, {'a': 'ü'}]",
            Outcome("success", result='[1,{"a":"\\u00fc"}]'),
        ),
        (
            "outcome='success', result='x' * 5000",
            Outcome(
                "retry", "the worker succeeded with a result of 5002 bytes, where 4096 are allowed"
            ),
        ),
        ("outcome='retry', after=2", Outcome("retry", "the worker gave no reason", after=2.0)),
        ("outcome='reject', error='a\\0b'", Outcome("reject", "a\\x00b")),
        ("outcome='unavailable', error='x' * 9000", Outcome("unavailable", "x" * 4096)),
    ],
)
async def test_answer(answer: str, outcome: Outcome) -> None:
    """What an answer may hold, and what becomes of it."""
    (got,) = await answers(f"say(id=r['id'], {answer})")
    assert (got.verdict, got.error) == (outcome.verdict, outcome.error)
    assert (got.result, got.after) == (outcome.result, outcome.after)


async def test_suspects_are_asked_alone(tmp_path: Path) -> None:
    """After a crash with several in flight each is with a worker that has no other meanwhile."""
    body = f"""if not os.path.exists({str(tmp_path / "crashed")!r}):
    if len(asked) == 3:
        open({str(tmp_path / "crashed")!r}, "x")
        os._exit(1)
elif r["relpath"] == "2":
    os._exit(7)
else:
    say(id=r["id"], outcome="success")"""
    outcomes = await answers(body, *(job(str(n), n) for n in range(3)), in_flight=3)
    assert [outcome.verdict for outcome in outcomes] == ["success", "success", "retry"]
    assert outcomes[2].error == "the worker ended: exit status 7"


async def test_late_one_takes_no_other_with_it() -> None:
    """A request that runs out of time is the one that failed; its neighbours are asked again."""
    # The neighbours come behind it, to a worker that reads one at a time.
    body = "if r['relpath'] == 'late': time.sleep(600)\nsay(id=r['id'], outcome='success')"
    jobs = [job("late", 1), job("b", 2), job("c", 3)]
    outcomes = await answers(body, *jobs, in_flight=3, limit=1)
    assert [outcome.verdict for outcome in outcomes] == ["retry", "success", "success"]
    assert outcomes[0].error == "timed out after 1s"


async def test_recycled() -> None:
    """After `max_requests` a worker leaves, and another one goes on; none is asked for more."""
    body = "say(id=r['id'], outcome='success', result=[os.getpid(), len(asked)])"
    jobs = [job(str(n), n) for n in range(10)]
    outcomes = await answers(body, *jobs, max_requests=3, in_flight=2)
    told = [json.loads(outcome.result or "") for outcome in outcomes]
    assert len({pid for pid, _ in told}) == 4
    assert max(count for _, count in told) == 3


async def test_as_many_as_are_needed() -> None:
    """One file at a time takes one worker, however many there may be."""
    async with workers("say(id=r['id'], outcome='success', result=os.getpid())", processes=4) as h:
        pids = {(await h.run(job(str(n), n))).result for n in range(4)}
    assert len(pids) == 1


async def test_idle_worker_that_hangs() -> None:
    """A worker that does not answer a ping is ended, and the next file finds a new one."""
    body = (
        "say(id=r['id'], outcome='success', result=os.getpid())\nif len(asked) == 1: time.sleep(9)"
    )
    async with workers(body, ping=0.2, kill_after=0.2) as handler:
        first = await handler.run(job("a"))
        (hung,) = handler._workers.values()
        await asyncio.wait([hung])
        second = await handler.run(job("b"))
    assert second.verdict == "success"
    assert first.result != second.result


async def test_busy_worker_is_not_pinged() -> None:
    """A worker that takes long for a file needs not answer anything else meanwhile."""
    (outcome,) = await answers("time.sleep(0.5)\nsay(id=r['id'], outcome='success')", ping=0.1)
    assert outcome.verdict == "success"


async def test_program_that_is_not_there(tmp_path: Path) -> None:
    """A program that is missing is no file's fault, and once it is there files go on."""
    program = tmp_path / "worker"
    handler = WorkerHandler(WorkerStep(name="s", worker=(str(program),)))
    outcome = await handler.run(job())
    assert outcome.verdict == "unavailable"
    assert outcome.error == f"cannot run {program}: No such file or directory"
    body = PROGRAM.replace("BODY", "say(id=r['id'], outcome='success')")
    program.write_text(f"#!{sys.executable}\n{body}")
    program.chmod(0o755)
    assert (await handler.run(job())).verdict == "success"
    await handler.close()


async def test_worker_that_does_not_come_up(tmp_path: Path) -> None:
    """A worker that ends before it is ready is started thrice, and then it is unavailable."""
    starts = tmp_path / "starts"
    program = f"import os\nopen({str(starts)!r}, 'a').write('x')\nraise SystemExit('no licence')"
    outcomes = await answers("", job("a", 1), job("b", 2), program=program, processes=2)
    assert {outcome.verdict for outcome in outcomes} == {"unavailable"}
    assert {outcome.error for outcome in outcomes} == {
        "the worker ended: exit status 1: no licence, before it was ready"
    }
    assert len(starts.read_text()) in {3, 4}


async def test_shortage() -> None:
    """Where the machine cannot start a process now, the file is deferred."""
    async with workers("say(id=r['id'], outcome='success')") as handler:
        probe = os.dup(0)
        os.close(probe)
        with shortage.of_descriptors(probe + 1):
            outcome = await handler.run(job())
        assert outcome.verdict == "defer"
        assert f"{outcome.error}".endswith("Too many open files")
        assert (await handler.run(job())).verdict == "success"


async def test_withdrawn() -> None:
    """What no worker has yet is withdrawn by a cancellation, and no worker ends for it."""
    body = "say(id=r['id'], outcome='success', result=[os.getpid(), len(asked)])"
    async with workers(body) as handler:
        first = json.loads((await handler.run(job("a"))).result or "")
        runs = [asyncio.create_task(handler.run(job(str(n), n))) for n in range(3)]
        await asyncio.sleep(0)
        runs[2].cancel()
        await asyncio.wait(runs)
        assert runs[2].cancelled()
        second = json.loads((await handler.run(job("b"))).result or "")
    assert second == [first[0], 4]


async def test_cancelled_beside_others() -> None:
    """A worker with other files may answer the one that nobody waits for; then the run returns."""
    body = "if len(asked) == 2:\n    [say(id=a['id'], outcome='success') for a in asked]"
    async with workers(body, in_flight=2) as handler:
        runs = [asyncio.create_task(handler.run(job("a", 1)))]
        while not any(worker.sent for worker in handler._workers):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0)
        runs.append(asyncio.create_task(handler.run(job("b", 2))))
        (worker,) = handler._workers
        while len(worker.sent) < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        runs[0].cancel()
        await asyncio.wait(runs)
        assert runs[0].cancelled()
        assert runs[1].result().verdict == "success"


async def test_closed_before_it_starts() -> None:
    """A worker that is about to be started when the handler is closed never is."""
    async with workers("", ping=30) as handler:
        run = asyncio.create_task(handler.run(job()))
        await asyncio.sleep(0)
        handler._hand_out()
        (worker,) = handler._workers
        await handler.close()
        run.cancel()
        await asyncio.wait([run])
        assert worker._pipes is None


async def test_input_ends(tmp_path: Path) -> None:
    """Closing ends the input of a worker, which has time to end of itself."""
    last = tmp_path / "last"
    end = f"time.sleep(0.1)\nopen({str(last)!r}, 'x')\nos._exit(0)"
    program = PROGRAM.replace("os._exit(0)", end)
    async with workers("say(id=r['id'], outcome='success')", program=program) as handler:
        await handler.run(job())
    assert last.exists()
