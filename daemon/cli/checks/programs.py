"""Whether the program of a step could be run, and the way that the step asks for."""

import os
import pwd
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from daemon.cli.checks import Finding, quoted
from daemon.cli.checks.folders import examine_writable, may, missing
from daemon.config_program import placeholders
from daemon.config_steps import CommandStep, ProgramStep, WorkerStep

_LIMITER = "prlimit"
# Of capabilities(7), by their numbers.
_SETGID, _SETUID, _SYS_NICE = 6, 7, 23


def examine_program(name: str, step: CommandStep) -> Iterator[Finding]:
    """The program itself, and what has to be allowed or installed for it."""
    if placeholders(step.command[0]):
        detail = f"{quoted(step.command[0])} depends on the file"
        yield Finding("ok", f"{name}.command", detail)
    else:
        program = step.command[0].replace("{{", "{").replace("}}", "}")
        yield _program(f"{name}.command", program, step)
    if argument := _option(step.command[1:]):
        detail = f"{quoted(argument)} of a file called '--help' would be taken for an option"
        yield Finding("warning", f"{name}.command", detail, "write '{path}', or '--' before it")
    if step.output != "log":
        yield _output(f"{name}.output", Path(step.output))
    yield from _manner(name, step)


def examine_worker(name: str, step: WorkerStep) -> Iterator[Finding]:
    """The same for a program that stays."""
    yield _program(f"{name}.worker", step.worker[0], step)
    yield from _manner(name, step)


def _option(arguments: Sequence[str]) -> str | None:
    """The first argument that begins with what others choose, if the program may mistake it."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return next((each for each in before if each.startswith(("{relpath}", "{name}"))), None)


def _manner(name: str, step: ProgramStep) -> Iterator[Finding]:
    if step.user:
        yield _user(f"{name}.user", step.user)
    if step.cwd and not may(step.cwd, os.X_OK):
        detail = f"{quoted(step.cwd)} cannot be entered by this user"
        yield Finding("error", f"{name}.cwd", detail, "let the daemon's user enter it")
    if step.nice < os.getpriority(os.PRIO_PROCESS, 0) and not _is_capable(_SYS_NICE):
        detail = f"{step.nice} is a higher priority than this user may give"
        yield Finding("error", f"{name}.nice", detail, "run as root, or write a higher number")
    if step.limits.given and not _found(_LIMITER, os.environ.get("PATH")):
        detail = f"there is no {quoted(_LIMITER)}, which puts them on"
        yield Finding("error", f"{name}.limits", detail, "install util-linux")


def _program(what: str, program: str, step: ProgramStep) -> Finding:
    path = step.env.get("PATH", os.environ.get("PATH"))
    if found := _found(program, path, step.cwd):
        return Finding("ok", what, quoted(found))
    remedy = "install it, make it executable, or name its full path"
    return Finding("warning", what, f"{quoted(program)} is no program that can be run", remedy)


def _found(program: str, path: str | None, cwd: Path | None = None) -> str | None:
    """Where a handler's start would find it. `shutil.which` knows as well: 2 ms of imports."""
    folders = [""] if "/" in program else os.get_exec_path({"PATH": path} if path else {})
    paths = (Path(cwd or "", folder, program) for folder in folders)
    return next((str(p) for p in paths if os.access(p, os.X_OK) and p.is_file()), None)


def _output(what: str, path: Path) -> Finding:
    if reason := missing(path.parent):
        return Finding("error", what, reason, "make it, or name a file elsewhere")
    if not may(path, os.F_OK):
        return examine_writable(what, path.parent)
    if not stat.S_ISREG(path.lstat().st_mode) or not may(path, os.W_OK):
        detail = f"{quoted(path)} is no regular file that this user may write"
        return Finding("error", what, detail, "name a file that the daemon may write")
    return Finding("ok", what, f"{quoted(path)}, writable")


def _user(what: str, name: str) -> Finding:
    if pwd.getpwnam(name).pw_uid == os.geteuid():
        return Finding("ok", what, f"{name}, who asks")
    if _is_capable(_SETUID) and _is_capable(_SETGID):
        return Finding("ok", what, name)
    detail = f"this user cannot become {name}"
    return Finding("error", what, detail, "let the daemon run as root, or leave the key away")


def _is_capable(capability: int) -> bool:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return os.geteuid() == 0
    (line,) = (line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> capability & 1)
