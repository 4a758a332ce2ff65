"""What is special to batches: who goes together, and that one bad file sinks nobody else."""

import asyncio
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.config_steps import CommandStep
from daemon.core.model import Key
from daemon.handlers import Handler, Job, Outcome
from daemon.handlers.opening import handler_of

DEADLINE = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path


def batching(folder: Path, script: str, *arguments: str, **keys: object) -> Handler:
    command = ("/bin/sh", "-c", f"cd {folder}; {script}", "sh", *(arguments or ("{paths}",)))
    given = {"batch": 10, "kill_after": 60.0, **keys}
    step = CommandStep(name="load", command=command, **given)  # type: ignore[arg-type]
    return handler_of(step, "node")


def job(name: str, number: int = 1) -> Job:
    return Job(number, Key("w", name.encode()), b"/srv/" + name.encode(), "load", 2, f"k-{name}", 5)


async def run(handler: Handler, names: Iterable[str]) -> list[Outcome]:
    async with asyncio.timeout(DEADLINE):
        return await asyncio.gather(*(handler.run(job(name)) for name in names))


def runs(folder: Path) -> list[list[str]]:
    """The arguments of each run so far."""
    return [line.split() for line in (folder / "runs").read_text().splitlines()]


SAY = 'echo "$@" >>runs; '
NAMES = [f"f{n}" for n in range(25)]


async def test_together(folder: Path) -> None:
    """Files that come at once go together, up to `batch` in a run, and succeed together."""
    outcomes = await run(batching(folder, SAY), NAMES)
    assert {outcome.verdict for outcome in outcomes} == {"success"}
    assert [len(paths) for paths in runs(folder)] == [10, 10, 5]
    assert sum(runs(folder), []) == [f"/srv/{name}" for name in NAMES]  # noqa: RUF017 - three


async def test_one_goes_at_once_and_others_gather(folder: Path) -> None:
    """Nobody waits for a batch to fill; who comes while all places are taken goes with the next."""
    handler = batching(folder, SAY + "read _ <gate")
    gate = os.open(folder / "gate", os.O_RDWR)
    tasks = [asyncio.create_task(handler.run(job("first")))]
    async with asyncio.timeout(DEADLINE):
        while not (folder / "runs").exists():  # noqa: ASYNC110 - a program's sign, no event
            await asyncio.sleep(0)
        for name in NAMES[:4]:
            tasks.append(asyncio.create_task(handler.run(job(name))))
            await asyncio.sleep(0)
        os.write(gate, b"\n\n")
        await asyncio.gather(*tasks)
    os.close(gate)
    assert [len(paths) for paths in runs(folder)] == [1, 4]


async def test_places(folder: Path) -> None:
    """There are as many runs at a time as the step's `concurrency`."""
    script = (
        SAY + "mkdir one 2>/dev/null || mkdir two || exit 1; read _ <gate; rmdir one || rmdir two"
    )
    handler = batching(folder, script, concurrency=2, batch=5)
    gate = os.open(folder / "gate", os.O_RDWR)
    os.write(gate, b"\n" * 5)
    outcomes = await run(handler, NAMES)
    os.close(gate)
    assert {outcome.verdict for outcome in outcomes} == {"success"}
    assert len(runs(folder)) == 5


def childless() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


BAD = 'case "$*" in *f3*) echo bad >&2; %s;; esac'


@pytest.mark.parametrize(
    ("how", "verdict", "error"),
    [
        ("exit 3", "retry", "exit status 3: bad"),
        ("exit 65", "reject", "exit status 65: bad"),
        ("kill -9 $$", "retry", "killed by SIGKILL: bad"),
        ("sleep 600", "retry", "timed out after 0.5s: bad"),
    ],
)
async def test_one_bad_file(folder: Path, how: str, verdict: str, error: str) -> None:
    """After a failed batch each is tried alone: each outcome is its own file's."""
    outcomes = await run(batching(folder, SAY + BAD % how, timeout=0.5), NAMES[:6])
    assert (outcomes[3].verdict, outcomes[3].error) == (verdict, error)
    assert {o.verdict for n, o in enumerate(outcomes) if n != 3} == {"success"}
    assert [len(paths) for paths in runs(folder)] == [6, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("script", "verdict"), [("exit 75", "unavailable"), ("exec /nowhere", "unavailable")]
)
async def test_not_a_files_fault(folder: Path, script: str, verdict: str) -> None:
    """What no file is to blame for is said of all, and nobody is tried alone."""
    handler = batching(folder, SAY + script, unavailable=(75, 127))
    outcomes = await run(handler, NAMES[:4])
    assert {outcome.verdict for outcome in outcomes} == {verdict}
    assert len(runs(folder)) == 1


async def test_missing_program() -> None:
    """A program that is not there is unavailable for the whole batch."""
    step = CommandStep(name="s", command=("/nowhere/at/all", "{paths}"), batch=10)
    outcomes = await run(handler_of(step, "node"), NAMES[:4])
    assert {outcome.verdict for outcome in outcomes} == {"unavailable"}


async def test_cancelled_member(folder: Path) -> None:
    """Cancelling one file ends its batch; the others are then tried alone."""
    script = SAY + "[ $# = 1 ] && exit 0; echo up >gate; exec sleep 600"
    handler = batching(folder, script)
    gate = os.open(folder / "gate", os.O_RDWR | os.O_NONBLOCK)
    up = asyncio.Event()
    asyncio.get_running_loop().add_reader(gate, up.set)
    tasks = [asyncio.create_task(handler.run(job(name))) for name in NAMES[:4]]
    async with asyncio.timeout(DEADLINE):
        await up.wait()
        tasks[1].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    asyncio.get_running_loop().remove_reader(gate)
    os.close(gate)
    assert isinstance(done[1], asyncio.CancelledError)
    others = [done[0], *done[2:]]
    assert [isinstance(o, Outcome) and o.verdict for o in others] == ["success"] * 3
    assert [len(paths) for paths in runs(folder)] == [4, 1, 1, 1]


@pytest.mark.parametrize("turns", range(6))
async def test_all_cancelled(folder: Path, turns: int) -> None:
    """Cancelling everybody, at whichever turn of the loop, starts nobody anew and leaves nobody."""
    handler = batching(folder, "exec sleep 600", concurrency=2, batch=3)
    tasks = [asyncio.create_task(handler.run(job(name))) for name in NAMES]
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    async with asyncio.timeout(DEADLINE):
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in done} == {asyncio.CancelledError}
    assert childless()


async def test_drain_asks_only_once(folder: Path) -> None:
    """That everybody in it is cancelled once is one push for the batch: TERM, and not KILL."""
    script = "trap 'echo term >>terms; exit 1' TERM; echo up >gate; while :; do sleep 0.01; done"
    handler = batching(folder, script)
    gate = os.open(folder / "gate", os.O_RDWR | os.O_NONBLOCK)
    up = asyncio.Event()
    asyncio.get_running_loop().add_reader(gate, up.set)
    tasks = [asyncio.create_task(handler.run(job(name))) for name in NAMES[:5]]
    async with asyncio.timeout(DEADLINE):
        await up.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    asyncio.get_running_loop().remove_reader(gate)
    os.close(gate)
    assert (folder / "terms").read_text() == "term\n"


async def test_longer_than_the_kernel_takes(folder: Path) -> None:
    """A batch that no kernel would take is made smaller, and everybody is handled."""
    names = ["d/" * 1_900 + f"f{n}" for n in range(1_000)]
    handler = batching(folder, 'echo "$#" >>runs', batch=1024)
    outcomes = await run(handler, names)
    assert {outcome.verdict for outcome in outcomes} == {"success"}
    sizes = [int(size) for (size,) in runs(folder)]
    assert sum(sizes) == 1_000
    assert 1 < len(sizes) < 10


@pytest.mark.parametrize("arguments", [("-",), ("{paths}",)])
async def test_names_on_stdin(folder: Path, arguments: tuple[str, ...]) -> None:
    """With `paths0` they are on standard input, a NUL after each, however many there are."""
    handler = batching(folder, "cat >>names", *arguments, stdin="paths0", batch=1000)
    names = [f"{n}" + "\n x" * 100 for n in range(500)]
    await run(handler, names)
    assert (folder / "names").read_bytes() == b"".join(f"/srv/{n}\0".encode() for n in names)


async def test_json_on_stdin(folder: Path) -> None:
    """With `json` there is a line for each, with what tells a repetition."""
    handler = batching(folder, "cat >>lines", "-", stdin="json")
    odd = Job(3, Key("w", b"\xff"), b"/srv/\xff", "load", 1, "k-odd", 7)
    before = replace(job("a"), previous_json='{"rows": 12}')
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(handler.run(before), handler.run(odd))
    lines = [json.loads(line) for line in (folder / "lines").read_text().splitlines()]
    known = {"path": "/srv/a", "key": "k-a", "attempt": 2, "version": 5, "previous": {"rows": 12}}
    assert lines[0] == known
    told = {"key": "k-odd", "attempt": 1, "version": 7, "previous": None}
    assert lines[1] == {"path": "/srv/\\xff", "path_b64": "L3Nydi//", **told}


async def test_environment(folder: Path) -> None:
    """A batch has what is true of all its files; one of a single file has the rest as well."""
    handler = batching(folder, "env | grep ^TREEWARDEN | grep -v _RUN | sort >>told; echo >>told")
    await run(handler, ["a", "b"])
    await run(handler, ["c"])
    batch, single = (folder / "told").read_text().split("\n\n")[:2]
    told = ("COUNT=2", "EVENT=settled", "STEP=load", "WATCH=w")
    assert batch.split() == [f"TREEWARDEN_{each}" for each in told]
    assert {"TREEWARDEN_COUNT=1", "TREEWARDEN_PATH=/srv/c", "TREEWARDEN_KEY=k-c"} < set(
        single.split()
    )
