"""How a program of a step runs: streams, limits, user, priority, and whose fault a failure is."""

import asyncio
import os
import pwd
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.config_program import Limits
from daemon.config_steps import CommandStep
from daemon.core.model import Key
from daemon.engine.disk import seen_at
from daemon.handlers import Job, Outcome
from daemon.handlers.command import CommandHandler

JOB = Job(7, Key("incoming", b"in/a.csv"), b"/srv/in/a.csv", "load", 2, "k-1")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


async def run(*argv: str, job: Job = JOB, **keys: object) -> Outcome:
    step = CommandStep(name="load", command=argv, **keys)  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        return await CommandHandler(step).run(job)


async def sh(script: str, job: Job = JOB, **keys: object) -> Outcome:
    return await run("/bin/sh", "-c", script.replace("{", "{{").replace("}", "}}"), job=job, **keys)


def settled(path: Path, content: str = "the content") -> Job:
    path.write_text(content, encoding="utf-8")
    whole = os.fsencode(path)
    return replace(JOB, file=Key("w", path.name.encode()), path=whole, seen=seen_at(whole))


async def test_folder(tmp_path: Path) -> None:
    """A program runs in the folder that its step names."""
    assert (await sh("pwd >&2; exit 1", cwd=tmp_path)).error == f"exit status 1: {tmp_path}"


async def test_missing_folder(tmp_path: Path) -> None:
    """Without that folder nothing is run, and no file is to blame."""
    outcome = await run("/bin/true", cwd=tmp_path / "gone")
    error = f"cannot enter {tmp_path}/gone: No such file or directory"
    assert (outcome.verdict, outcome.error) == ("unavailable", error)


async def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """`env` adds to the daemon's environment, and replaces what is in it."""
    monkeypatch.setenv("OLD", "old")
    outcome = await sh('echo "$OLD $NEW" >&2; exit 1', env={"NEW": "a 'b'", "OLD": "other"})
    assert outcome.error == "exit status 1: other a 'b'"


async def test_path_of_its_own(tmp_path: Path) -> None:
    """A `PATH` in `env` is where the program is looked for."""
    (tmp_path / "tool").write_text("#!/bin/sh\necho found >&2; exit 1\n")
    (tmp_path / "tool").chmod(0o755)
    outcome = await run("tool", env={"PATH": f"{tmp_path}:/bin"})
    assert outcome.error == "exit status 1: found"


@as_root
async def test_user() -> None:
    """A program runs as the user of its step, with that user's groups, none of ours, and home."""
    nobody = pwd.getpwnam("nobody")
    before = os.getgroups()
    os.setgroups([0, 4])
    try:
        said = 'echo "$(id -u) $(id -g) $(id -G) $HOME $USER" >&2; exit 1'
        outcome = await sh(said, user="nobody")
    finally:
        os.setgroups(before)
    groups = " ".join(map(str, os.getgrouplist("nobody", nobody.pw_gid)))
    said = f"{nobody.pw_uid} {nobody.pw_gid} {groups} {nobody.pw_dir} nobody"
    assert outcome.error == f"exit status 1: {said}"


@as_root
async def test_user_that_we_may_not_become() -> None:
    """Where the daemon may not do so, nothing is run, and no file is to blame."""
    outcome = await as_somebody_else()
    assert outcome.verdict == "unavailable"
    assert f"{outcome.error}".startswith("cannot become user daemon: ")


async def as_somebody_else() -> Outcome:
    handler = CommandHandler(CommandStep(name="s", command=("/bin/true",), user="daemon"))
    os.seteuid(65534)
    try:
        return await handler.run(JOB)
    finally:
        os.seteuid(0)


async def test_nice() -> None:
    """The priority is that of the step, for what the program starts as well."""
    outcome = await sh("sleep 0.05; nice >&2; (nice >&2); exit 1", nice=7)
    assert outcome.error == "exit status 1: 7\n7"


async def test_limits() -> None:
    """Each limit is in force before the program's first instruction."""
    limits = Limits(cpu=60, memory=512 << 20, files=64)
    outcome = await sh("ulimit -t >&2; ulimit -v >&2; ulimit -n >&2; exit 1", limits=limits)
    assert outcome.error == f"exit status 1: 60\n{512 << 10}\n64"


async def test_out_of_cpu_time() -> None:
    """Who has used its time up is ended."""
    outcome = await sh("while :; do :; done", limits=Limits(cpu=1))
    assert (outcome.verdict, outcome.error) == ("retry", "killed by SIGXCPU")


@pytest.mark.parametrize("program", ["/nowhere/at/all", "/etc/passwd"])
async def test_no_program_under_limits(program: str) -> None:
    """A program that is missing, or is none, is no file's fault there either."""
    outcome = await run(program, limits=Limits(files=64))
    assert outcome.verdict == "unavailable"
    assert program in f"{outcome.error}"


async def test_program_that_the_file_names(tmp_path: Path) -> None:
    """Where the file itself is the program, it is the one to blame."""
    job = settled(tmp_path / "no-program")
    for limits in (Limits(), Limits(files=64)):
        assert (await run("{path}", job=job, limits=limits)).verdict == "retry"


@pytest.mark.parametrize(
    ("status", "verdict"), [(69, "unavailable"), (75, "unavailable"), (70, "retry"), (65, "reject")]
)
async def test_unavailable(status: int, verdict: str) -> None:
    """The statuses that the step lists blame no file; the last words are kept."""
    outcome = await sh(f"echo down >&2; exit {status}", unavailable=(69, 75))
    assert (outcome.verdict, outcome.error) == (verdict, f"exit status {status}: down")


async def test_file_on_stdin(tmp_path: Path) -> None:
    """The file itself can be what the program reads."""
    outcome = await sh("cat >&2; exit 1", settled(tmp_path / "a"), stdin="file")
    assert outcome.error == "exit status 1: the content"


@pytest.mark.parametrize("what", ["link", "fifo", "other", "gone"])
async def test_replaced_file(tmp_path: Path, what: str) -> None:
    """What was put in its place is not read, nothing is run, and the file is tried again."""
    path, job = tmp_path / "a", settled(tmp_path / "a")
    path.rename(tmp_path / "b")
    if what == "link":
        path.symlink_to(tmp_path / "b")
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "other":
        path.write_text("another", encoding="utf-8")
    outcome = await sh(f"touch {tmp_path}/ran", job, stdin="file")
    assert outcome.verdict == "retry"
    assert outcome.error
    assert not (tmp_path / "ran").exists()


async def test_output_file(tmp_path: Path) -> None:
    """What a program says can go into a file, to its end, and the error says where."""
    output = f"{tmp_path}/{{watch}}-{{name}}.log"
    for _ in range(2):
        outcome = await sh("echo out; echo err >&2; exit 3", output=output)
    log = tmp_path / "incoming-a.csv.log"
    assert outcome.error == f"exit status 3: see {log}"
    assert log.read_text() == "out\nerr\n" * 2
    assert log.stat().st_mode & 0o777 == 0o640 & ~umask()


async def test_output_to_a_fifo(tmp_path: Path) -> None:
    """A program whose output somebody reads waits until there is room for more."""
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    run = asyncio.create_task(sh("head -c 200000 /dev/zero", output=str(tmp_path / "log")))
    read, loop = bytearray(), asyncio.get_running_loop()
    loop.add_reader(reader, lambda: read.extend(os.read(reader, 65_536)))
    outcome = await run
    loop.remove_reader(reader)
    os.close(reader)
    assert outcome.verdict == "success"
    assert len(read) > 130_000  # the rest may be in the pipe still


def umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


@pytest.mark.parametrize(
    ("what", "verdict"),
    [("link", "retry"), ("fifo", "retry"), ("folder", "retry"), ("missing", "unavailable")],
)
async def test_output_that_is_not_ours(tmp_path: Path, what: str, verdict: str) -> None:
    """A link is not followed, a FIFO does not block; of a missing folder no file is to blame."""
    output, log = f"{tmp_path}/logs/{{name}}", tmp_path / "logs" / "a.csv"
    if what != "missing":
        log.parent.mkdir()
    if what == "link":
        log.symlink_to(tmp_path / "precious")
        (tmp_path / "precious").touch()
    elif what == "fifo":
        os.mkfifo(log)
    elif what == "folder":
        log.mkdir()
    outcome = await sh(f"touch {tmp_path}/ran", output=output)
    assert outcome.verdict == verdict
    assert f"{outcome.error}".startswith(f"cannot write to {log}: ")
    assert not (tmp_path / "ran").exists()


async def test_result() -> None:
    """What is printed is handed on, without its blanks; the last words are still stderr's."""
    outcome = await sh('echo out >&2; printf \'{"rows": 12,\n "x": [null]}\'', result="stdout")
    assert (outcome.verdict, outcome.result) == ("success", '{"rows":12,"x":[null]}')
    outcome = await sh("echo 12; echo err >&2; exit 3", result="stdout")
    assert (outcome.result, outcome.error) == (None, "exit status 3: err")


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (":", "found nothing"),
        ("echo done", "found 'done'"),
        ("echo 1 2", "found '1 2'"),
        ("printf '\\377'", "found '\\\\xff'"),
        ("printf '\"\\377\"'", "found '\"\\\\xff\"'"),
        ("head -c 5000 /dev/zero | tr '\\0' 1", "longer than 4096 bytes"),
        ("head -c 10000000 /dev/zero | tr '\\0' [", "longer than 4096 bytes"),
        ("head -c 4000 /dev/zero | tr '\\0' [", "not one JSON value"),
    ],
)
async def test_no_result(script: str, error: str) -> None:
    """What cannot be handed on is a failure, with what was found."""
    outcome = await sh(script, result="stdout")
    assert (outcome.verdict, outcome.result) == ("retry", None)
    assert error in f"{outcome.error}"


async def test_signals_are_as_by_default() -> None:
    """What the interpreter ignores is not ignored by the program."""
    outcome = await sh("grep SigIgn /proc/self/status >&2; exit 1", cwd=None)
    ignored = int(f"{outcome.error}".split()[-1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))
