"""The `command` handler's own: argv, environment, and the ways in which a program does not run."""

import asyncio
import errno
import gc
import os
import signal
import subprocess
import sys
import tracemalloc
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from daemon.config_steps import CommandStep
from daemon.core.model import Key
from daemon.handlers import Job, Outcome, command, running
from daemon.handlers.command import CommandHandler
from daemon.handlers.running import Running
from tests.unit import shortage

JOB = Job(7, Key("incoming", b"in/a.csv"), b"/srv/in/a.csv", "load", 2, "k-1")

DESCRIPTORS = """if True:
    import os
    links = [os.readlink(f"/proc/self/fd/{{n}}").partition(":")[0] for n in range(3)]
    exit(links + [n for n in range(3, 99) if os.path.exists(f"/proc/self/fd/{{n}}")])
"""


def handler(*argv: str, timeout: float = 60, kill_after: float = 60) -> CommandHandler:
    step = CommandStep(name="load", command=argv, timeout=timeout, kill_after=kill_after)
    return CommandHandler(step)


async def run(*argv: str, job: Job = JOB) -> Outcome:
    async with asyncio.timeout(20):
        return await handler(*argv).run(job)


def descriptors() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


def runs() -> list[Running]:
    """Return those that nobody has forgotten, for an alarm that is set for instance."""
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) is Running]


async def received(tmp_path: Path, *arguments: str, job: Job = JOB) -> list[bytes]:
    """Return what the kernel says a program got as its arguments."""
    script = f"cat /proc/$$/cmdline >{tmp_path}/argv"
    assert (await run("/bin/sh", "-c", script, "x", *arguments, job=job)).verdict == "success"
    return (tmp_path / "argv").read_bytes().split(b"\0")[4:-1]


@pytest.mark.parametrize(
    ("argument", "becomes"),
    [
        ("{path}", b"/srv/in/a.csv"),
        ("{relpath}", b"in/a.csv"),
        ("{name}", b"a.csv"),
        ("{watch}/{step}", b"incoming/load"),
        ("--in={path}:{name}", b"--in=/srv/in/a.csv:a.csv"),
        ("{{{name}}}", b"{a.csv}"),
        ("100 % %s %(path)b $HOME *", b"100 % %s %(path)b $HOME *"),
    ],
)
async def test_template(tmp_path: Path, argument: str, becomes: bytes) -> None:
    """Placeholders are replaced anywhere in an argument, and nothing else is."""
    assert await received(tmp_path, argument) == [becomes]


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.csv", b"{relpath}", b"--help", b"a b\n'\"$(touch x)", b"%s", b"n" * 255]
)
async def test_names_are_never_split(tmp_path: Path, name: bytes) -> None:
    """A name is one argument or part of one, byte for byte, UTF-8 or not."""
    job = Job(1, Key("w", name), b"/srv/" + name, "s", 1, "k")
    assert await received(tmp_path, "{path}", "{name}", job=job) == [b"/srv/" + name, name]


@pytest.mark.parametrize("argument", ["{file}", "{", "}", "{path", "{ path }", "{path!r}", "a\0b"])
def test_bad_template(argument: str) -> None:
    """A brace that is no placeholder is refused when the handler is made, not at the first file."""
    with pytest.raises(ValueError, match=r"is none of \{path\}"):
        handler("/bin/true", argument)
    with pytest.raises(ValueError, match="name of a program"):
        handler()


async def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler gets the daemon's environment, less systemd's words to the daemon, plus the job."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    systemd = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS")
    for name in (*systemd, "TREEWARDEN_STEP", "TREEWARDEN_PREVIOUS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("KEPT", "käse")
    job = Job(7, Key("incoming", b"in/\xff"), b"/srv/in/\xff", "load", 2, "k-1", version=5)
    await run("/bin/cp", "/proc/self/environ", str(tmp_path / "environ"), job=job)
    variables = (tmp_path / "environ").read_bytes().split(b"\0")[:-1]
    assert sorted(v for v in variables if not v.startswith(b"TREEWARDEN_RUN=nobody.")) == [
        "KEPT=käse".encode(),
        b"TREEWARDEN_ATTEMPT=2",
        b"TREEWARDEN_EVENT=settled",
        b"TREEWARDEN_FILE_ID=7",
        b"TREEWARDEN_KEY=k-1",
        b"TREEWARDEN_PATH=/srv/in/\xff",
        b"TREEWARDEN_RELPATH=in/\xff",
        b"TREEWARDEN_STEP=load",
        b"TREEWARDEN_VERSION=5",
        b"TREEWARDEN_WATCH=incoming",
    ]


async def test_previous_result(tmp_path: Path) -> None:
    """What the step before had to say is in the environment as it was said."""
    job = replace(JOB, previous_json='{"name": "\u00fc \'x\'"}')
    await run("/bin/cp", "/proc/self/environ", str(tmp_path / "environ"), job=job)
    variables = (tmp_path / "environ").read_bytes().split(b"\0")
    assert 'TREEWARDEN_PREVIOUS={"name": "\u00fc \'x\'"}'.encode() in variables


async def test_standard_streams() -> None:
    """Input and output are /dev/null, and no other descriptor of the daemon is handed on."""
    readable, writable = os.pipe()
    os.set_inheritable(writable, True)  # noqa: FBT003 - positional-only
    stdin = os.dup(0)
    os.dup2(readable, 0)
    outcome = await run(sys.executable, "-Ic", DESCRIPTORS)
    os.dup2(stdin, 0)
    for descriptor in (readable, writable, stdin):
        os.close(descriptor)
    assert outcome.error == "exit status 1: ['/dev/null', '/dev/null', 'pipe']"


@pytest.mark.parametrize(
    ("status", "verdict"), [(1, "retry"), (64, "retry"), (65, "reject"), (255, "retry")]
)
async def test_exit_status(status: int, verdict: str) -> None:
    """65 rejects, any other is to be tried again; the error names it before the last words."""
    for words, error in (("", f"exit status {status}"), ("oh", f"exit status {status}: oh")):
        outcome = await run("/bin/sh", "-c", f"echo {words} >&2; exit {status}")
        assert (outcome.verdict, outcome.error) == (verdict, error)


@pytest.mark.parametrize(
    ("name", "said"),
    [("SEGV", "killed by SIGSEGV"), ("KILL", "killed by SIGKILL"), ("35", "killed by signal 35")],
)
async def test_death_by_signal(name: str, said: str) -> None:
    """A program that a signal ends failed, and the error names the signal."""
    for words, error in (("", said), ("oh", f"{said}: oh")):
        outcome = await run("/bin/sh", "-c", f"echo {words} >&2; kill -{name} $$")
        assert (outcome.verdict, outcome.error) == ("retry", error)


@pytest.mark.parametrize(
    ("name", "content", "mode", "why"),
    [
        ("missing", None, 0, "No such file or directory"),
        ("plain", "#!/bin/sh\n", 0o644, "Permission denied"),
        ("orphan", "#!/nowhere/sh\n", 0o755, "the interpreter that its first line names does not"),
        ("blob", "\0\1\2", 0o755, "Exec format error"),
        ("folder", None, 0o755, "Is a directory"),
    ],
)
async def test_program_that_cannot_run(
    tmp_path: Path, name: str, content: str | None, mode: int, why: str
) -> None:
    """A program that cannot be started is no fault of the file's; it is said what and why."""
    program = tmp_path / name
    if content is not None:
        program.write_text(content)
        program.chmod(mode)
    elif mode:
        program.mkdir()
    outcome = await run(str(program), "{path}")
    assert outcome.verdict == "unavailable"
    assert f"{outcome.error}".startswith(f"cannot run {program}: {why}")


@pytest.mark.parametrize(
    ("path", "why"),
    [(b"/" + b"x" * 200_000, "Argument list too long"), (b"/a\0b", "embedded null byte")],
)
async def test_impossible_job(path: bytes, why: str) -> None:
    """Even a job that no kernel would take comes back as an outcome, not as an exception."""
    outcome = await run("/bin/true", "{path}", job=Job(7, Key("w", b"a"), path, "s", 1, "k"))
    assert (outcome.verdict, outcome.error) == ("retry", f"cannot run /bin/true: {why}")


async def test_no_threads_left(tmp_path: Path) -> None:
    """Without a thread to start it in, the program does not run, and is not run later on."""
    program = handler("/bin/sh", "-c", f"echo $TREEWARDEN_ATTEMPT >>{tmp_path}/attempts")
    with shortage.of_threads():
        outcome = await program.run(JOB)
    assert outcome.verdict == "defer"
    assert (await program.run(replace(JOB, attempt=3))).verdict == "success"
    await program.close()
    assert (tmp_path / "attempts").read_text() == "3\n"


async def test_no_descriptors_left() -> None:
    """Without free descriptors a file fails with the reason, and nothing leaks."""
    before = descriptors()
    for spare in range(8):
        probe = os.dup(0)
        os.close(probe)
        with shortage.of_descriptors(probe + spare):
            errors = {(await run("/bin/true")).error for _ in range(3)}
        assert errors in ({None}, {"cannot run /bin/true: Too many open files"})
    assert errors == {None}
    assert descriptors() == before


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (rb"gr\303\266\303\237e", "größe"),
        (rb"\377 \342\202", "\\xff \\xe2\\x82"),
        (rb"\n a\000b \n", "a\\x00b"),
    ],
)
async def test_stderr_is_text(said: bytes, kept: str) -> None:
    """Whatever bytes a program says come out as UTF-8 without NUL, stripped."""
    outcome = await run("/bin/sh", "-c", f"printf '{said.decode()}' >&2; exit 1")
    assert outcome.error == f"exit status 1: {kept}"


@pytest.mark.parametrize("said", ["€" * 3000, "\\377" * 6000, "x" * 4096])
async def test_stderr_is_cut_between_characters(said: str) -> None:
    """The tail is cut to 4096 bytes of UTF-8, and no character is torn."""
    outcome = await run("/bin/sh", "-c", f"printf '{said}' >&2; exit 1")
    tail = f"{outcome.error}".removeprefix("exit status 1: ")
    assert 4090 <= len(tail.encode()) <= 4096
    assert set(tail) <= set("€") or set(tail) <= set("\\xf")


@pytest.mark.parametrize("result", ["none", "stdout"])
async def test_memory_for_words_is_bounded(result: Literal["none", "stdout"]) -> None:
    """50 MB of stderr, or of what should be a result, pass through less than 2 MB of memory."""
    command = ("/bin/sh", "-c", "head -c 50000000 /dev/zero >&2; head -c 50000000 /dev/zero")
    step = CommandStep(name="load", command=command, result=result)
    tracemalloc.start()
    await CommandHandler(step).run(JOB)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo busy >&2; sleep 600", "timed out after 1s: busy"),
        ("trap 'exit 0' TERM; sleep 600 & wait", "timed out after 1s"),
    ],
)
async def test_timeout(script: str, error: str) -> None:
    """A timeout is a failure with the limit and the last words, even if TERM is answered by 0."""
    outcome = await handler("/bin/sh", "-c", script, timeout=1).run(JOB)
    assert (outcome.verdict, outcome.error) == ("retry", error)


async def test_late_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said on stderr shortly after the program's end still counts."""
    monkeypatch.setattr(running, "GRACE", 20)
    outcome = await run("/bin/sh", "-c", "(sleep 0.1; echo late >&2) & exit 1")
    assert outcome.error == "exit status 1: late"


async def test_cancel_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the program is gone no signal is sent: its number may be somebody else's."""
    over = asyncio.Event()

    class Watched(Running):
        def _exited(self) -> None:
            super()._exited()
            over.set()

    monkeypatch.setattr(command, "Running", Watched)
    run_ = asyncio.create_task(run("/bin/sh", "-c", "sleep 1 & sleep 0.05; exit 1"))
    await over.wait()
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda *signal: sent.append(signal))
    run_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run_
    assert sent == []


async def test_signal_before_the_leader_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group's number is signalled only while its leader, dead or alive, keeps it ours."""
    states: list[str] = []
    send = os.killpg

    def killpg(group: int, number: int) -> None:
        stat = Path(f"/proc/{group}/stat").read_text()
        states.append(stat.rpartition(")")[2].split()[0])
        send(group, number)

    monkeypatch.setattr(os, "killpg", killpg)
    script = "trap 'exit 0' TERM; sleep 600 & wait"
    await handler("/bin/sh", "-c", script, timeout=0.25).run(JOB)
    assert states[0] != "Z"
    assert states[1:] == ["Z"]


async def test_no_alarm_stays_set() -> None:
    """A run that is over is forgotten at once, not when its timeout would have come."""
    await run("/bin/true")
    assert runs() == []


async def test_nobody_can_watch_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose end nobody could see is ended at once, and never signalled after that."""
    monkeypatch.delattr(os, "pidfd_open")
    program = handler("/bin/sleep", "{name}")
    await program.run(JOB)  # its thread begins while there can be one
    with shortage.of_threads():
        outcome = await program.run(replace(JOB, file=Key("incoming", b"600")))
    assert (outcome.verdict, runs()) == ("defer", [])
    assert f"{outcome.error}".startswith("cannot watch over the program: ")


async def test_somebody_else_waits_for_it() -> None:
    """A program has ended, too, if nobody can tell how; its file is tried again."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        outcome = await run("/bin/true")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert (outcome.verdict, outcome.error) == ("retry", "exit status 255")


@pytest.mark.parametrize("call", [1, 2])
async def test_no_memory_to_watch_over_it(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """The same where the kernel takes no more to wait for; and no descriptor is lost."""
    loop, before, calls = asyncio.get_running_loop(), descriptors(), count(1)
    add_reader = loop.add_reader

    def add(fd: int, *what: Any) -> None:
        if next(calls) == call:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        add_reader(fd, *what)

    monkeypatch.setattr(loop, "add_reader", add)
    outcome = await run("/bin/sleep", "600")
    assert (outcome.verdict, runs(), descriptors()) == ("defer", [], before)


@pytest.mark.parametrize("known", [False, True])
async def test_without_pidfds(monkeypatch: pytest.MonkeyPatch, *, known: bool) -> None:
    """An old kernel, and a Python built for one, wait in a thread: the outcomes are the same."""
    if known:
        monkeypatch.setattr(os, "pidfd_open", lambda _: os.open("/nowhere", 0))
    else:
        monkeypatch.delattr(os, "pidfd_open")
    outcomes = await asyncio.gather(*(run("/bin/sh", "-c", f"exit {n}") for n in (0, 3, 65)))
    assert [outcome.verdict for outcome in outcomes] == ["success", "retry", "reject"]
    timed = await handler("/bin/sleep", "600", timeout=0.25).run(JOB)
    assert timed.error == "timed out after 0.25s"


def test_loop_torn_down(tmp_path: Path) -> None:
    """A loop that ends with a program still running takes the whole group with it."""
    os.mkfifo(tmp_path / "witness")
    script = f"trap '' TERM; exec 3>{tmp_path}/witness; sleep 600 & echo up >&3; wait"
    witness = os.open(tmp_path / "witness", os.O_RDONLY | os.O_NONBLOCK)

    async def main() -> None:
        up = asyncio.Event()
        asyncio.get_running_loop().add_reader(witness, up.set)
        deaf = handler("/bin/sh", "-c", script, kill_after=0.1)
        tasks.append(asyncio.create_task(deaf.run(JOB)))
        await asyncio.wait_for(up.wait(), 10)
        asyncio.get_running_loop().remove_reader(witness)

    tasks: list[asyncio.Task[Outcome]] = []
    asyncio.run(main())
    assert tasks[0].cancelled()
    os.set_blocking(witness, True)
    with os.fdopen(witness, "rb") as pipe:
        assert pipe.read() == b"up\n"


def test_child_watcher() -> None:
    """The watcher is set without a warning; two threads start programs, and none waits for them."""
    program = """if True:
        import asyncio, pathlib, threading
        from daemon.config_steps import CommandStep
        from daemon.core.model import Key
        from daemon.handlers import Job
        from daemon.handlers.command import CommandHandler, install_child_watcher
        async def main():
            # A busy machine is no fault: in development mode the loop complains of it.
            asyncio.get_running_loop().slow_callback_duration = 60
            step = CommandStep(name="s", command=("/bin/sleep", "600"))
            handler = CommandHandler(step)
            jobs = [Job(n, Key("w", b"a"), b"/a", "s", 1, "k") for n in range(5)]
            runs = [asyncio.create_task(handler.run(job)) for job in jobs]
            children, tasks = [], pathlib.Path("/proc/self/task")
            while len(children) < 5:
                await asyncio.sleep(0)
                children = "".join(e.read_text() for e in tasks.glob("*/children")).split()
            for _ in range(20): await asyncio.sleep(0)
            assert threading.active_count() <= 3, threading.enumerate()
            [run.cancel() for run in runs]
            await asyncio.wait(runs)
            await handler.close()
            assert threading.active_count() == 1, threading.enumerate()
        install_child_watcher()
        asyncio.run(main())
    """
    argv = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    done = subprocess.run(
        argv, cwd=Path(__file__).parents[2], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
