"""A real systemd as PID 1 of a namespace, over a copy-on-write view of this machine's own root.

Nothing is downloaded and nothing of the machine is changed: a tmpfs takes all writes. What starts
here ends here; the guest is powered off by its own systemd, since killing systemd-nspawn would
orphan it.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
DEADLINE = 60.0

Record = dict[str, Any]
"""One entry of the journal: the fields of `journalctl -o json`."""

# basic.target alone: without a target of our own, the machine's services would start in the guest.
TARGET = """\
[Unit]
Requires=basic.target
After=basic.target
AllowIsolate=yes
"""

# The program is the checkout's, the interpreter and the libraries are those that run this test:
# no network, no second build. It all appears below /opt, since ProtectHome= hides home folders; a
# shared libpython would be looked for in the one that it was built in, and the system's be taken.
LAUNCHER = """\
#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/treewarden/source
exec /opt/treewarden/bin/python -m daemon "$@"
"""


def why_not() -> str | None:
    """The reason why no guest can be booted here; None where one can."""
    if os.geteuid() != 0:
        return "booting a guest needs root"
    for program in ("systemd-nspawn", "nsenter", "unshare", "mount"):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: systemd-container, util-linux, mount)"
    allowed = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return None if allowed.returncode == 0 else "mount namespaces are not allowed here"


def _enter(leader: int) -> list[str]:
    return ["nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"]


class Guest:
    """A booted guest: commands run in it as its root, files are put into it through `root`."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self._enter = _enter(leader)

    def try_run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the guest, whatever it answers."""
        return subprocess.run(
            [*self._enter, *argv], capture_output=True, text=True, check=False, timeout=DEADLINE
        )

    def run(self, *argv: str) -> str:
        """Run a program in the guest that must succeed; its output."""
        result = self.try_run(*argv)
        assert result.returncode == 0, f"{argv}: {result.stdout}{result.stderr}"
        return result.stdout

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Some properties of a unit, as systemd words them."""
        text = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties))
        return dict(line.split("=", 1) for line in text.splitlines())

    @contextmanager
    def journal(self, unit: str) -> Iterator["Journal"]:
        """Everything that the unit has written and what systemd says of it, now and from now on."""
        argv = ["journalctl", "--follow", "--lines=all", "--all", "--output=json", f"--unit={unit}"]
        with subprocess.Popen([*self._enter, *argv], stdout=subprocess.PIPE) as reader:
            try:
                assert reader.stdout
                yield Journal(reader.stdout.fileno())
            finally:
                _end(reader)


class Journal:
    """The journal as it grows."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._seen: list[object] = []

    def until(self, wanted: Callable[[Record], bool]) -> Record:
        """The next entry that is wanted; those before it are passed over."""
        end = time.monotonic() + DEADLINE
        while True:
            record: Record = json.loads(self._line(end))
            self._seen.append(record.get("MESSAGE"))
            if wanted(record):
                return record

    def until_line(self, **fields: object) -> Record:
        """The next JSON line of the daemon that has these fields."""

        def wanted(record: Record) -> bool:
            line = json_line(record)
            return all(line.get(name) == value for name, value in fields.items())

        return json_line(self.until(wanted))

    def _line(self, end: float) -> bytes:
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._descriptor], [], [], end - time.monotonic())
            chunk = os.read(self._descriptor, 65536) if ready else b""
            assert chunk, "not in the journal in time:\n" + "\n".join(map(str, self._seen[-50:]))
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def json_line(record: Record) -> Record:
    """The daemon's JSON line in an entry; empty where there is none."""
    message = record.get("MESSAGE")
    if not isinstance(message, str) or not message.startswith("{"):
        return {}
    line: Record = json.loads(message)
    return line


@contextmanager
def booted(folder: Path) -> Iterator[Guest]:
    """Boot a guest with the project installed, and take everything away again."""
    with ExitStack() as stack:
        root = stack.enter_context(_overlay(folder / "guest"))
        _install(root)
        leader = stack.enter_context(_nspawn(folder, root))
        yield Guest(root, leader)


@contextmanager
def _overlay(base: Path) -> Iterator[Path]:
    base.mkdir()
    with ExitStack() as stack:
        _mount(stack, base, "-t", "tmpfs", "-o", "mode=0755", "tmpfs")
        upper, work, root = (base / name for name in ("upper", "work", "root"))
        for part in (upper, work, root):
            part.mkdir()
        layers = f"lowerdir=/,upperdir={upper},workdir={work}"
        _mount(stack, root, "-t", "overlay", "-o", layers, "overlay")
        yield root


def _mount(stack: ExitStack, where: Path, *what: str) -> None:
    subprocess.run(["mount", *what, where], check=True, timeout=DEADLINE)
    stack.callback(_unmount, where)


def _unmount(where: Path) -> None:
    subprocess.run(["umount", where], check=True, timeout=DEADLINE)


def _install(root: Path) -> None:
    """Lay the project's files out as docs/systemd.md tells an operator to."""
    units, files = root / "etc/systemd/system", PROJECT / "systemd"
    _write(units / "ci.target", TARGET)
    _write(units / "treewarden.service", (files / "treewarden.service").read_text())
    _write(units / "treewarden.service.d/handlers.conf", (files / "handlers.conf").read_text())
    for kind in ("sysusers", "tmpfiles"):
        text = (files / f"treewarden.{kind}.conf").read_text()
        _write(root / f"usr/lib/{kind}.d/treewarden.conf", text)
    home = root / "opt/treewarden"
    shutil.copytree(PROJECT / "daemon", home / "source/daemon", copy_function=shutil.copyfile)
    _write(home / "pyvenv.cfg", f"home = {_base()}/bin\n")
    _write(home / "bin/treewarden", LAUNCHER)
    (home / "bin/treewarden").chmod(0o755)
    (home / "bin/python").symlink_to(f"{_base()}/bin/python{_version()}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _base() -> str:
    """Where the guest finds the interpreter's installation."""
    return "/usr" if sys.base_prefix == "/usr" else "/opt/python"


def _binds() -> list[str]:
    libraries = f"/opt/treewarden/lib/python{_version()}/site-packages"
    binds = [f"--bind-ro={sysconfig.get_path('purelib')}:{libraries}"]
    if _base() != "/usr":
        binds.append(f"--bind-ro={sys.base_prefix}:{_base()}")
    return binds


@contextmanager
def _nspawn(folder: Path, root: Path) -> Iterator[int]:
    """Boot `root`; the process id of its systemd, once that has started what it has to."""
    console = folder / "console"
    with ExitStack() as stack:
        notices = stack.enter_context(_listening(folder / "notify"))
        output = stack.enter_context(console.open("wb"))
        host = subprocess.Popen(
            _boot(f"treewarden-{os.getpid()}", root),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
        )
        stack.callback(_end, host)
        leader = _ready(notices, console)
        notices.close()  # nspawn goes on to report, and would wait for ever once the queue is full
        stack.callback(_remove_cgroups, _cgroups(host.pid))
        stack.callback(_power_off, host, leader)
        yield leader


def _listening(path: Path) -> socket.socket:
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.bind(str(path))
    notices.settimeout(DEADLINE)
    return notices


def _boot(name: str, root: Path) -> list[str]:
    argv = ["systemd-nspawn", "--quiet", f"--directory={root}", f"--machine={name}", "--boot"]
    argv += ["--register=no", "--private-network", "--link-journal=no", "--console=pipe"]
    if not Path("/run/systemd/system").exists():
        argv.append("--keep-unit")  # no systemd out here that could make a scope for it
    return [*argv, "--notify-ready=yes", *_binds(), "systemd.unit=ci.target"]


def _ready(notices: socket.socket, console: Path) -> int:
    """Wait until the guest is up, as systemd-nspawn reports it."""
    leader = 0
    while True:
        try:
            message = notices.recv(4096).decode()
        except TimeoutError:
            raise AssertionError(f"no boot in time:\n{console.read_text()}") from None
        said = dict(line.split("=", 1) for line in message.splitlines() if "=" in line)
        leader = int(said.get("X_NSPAWN_LEADER_PID", leader))
        if said.get("READY") == "1":
            return leader


def _power_off(host: "subprocess.Popen[bytes]", leader: int) -> None:
    # What systemctl answers is left aside: the guest may be gone before it has its answer.
    command = [*_enter(leader), "systemctl", "poweroff"]
    subprocess.run(command, capture_output=True, check=False, timeout=DEADLINE)
    assert host.wait(DEADLINE) == 0


def _end(parent: "subprocess.Popen[bytes]") -> None:
    """Kill the child of nsenter or nspawn, where that still runs, and it ends by itself.

    Killed first, the parent would leave a zombie in the guest that its systemd cannot reap, and
    a power off that takes ten seconds; nspawn would leave the whole guest.
    """
    end = time.monotonic() + DEADLINE
    while parent.poll() is None and time.monotonic() < end:  # it may not have forked yet
        with suppress(OSError):
            for child in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
    parent.kill()
    parent.wait()


def _cgroups(pid: int) -> list[Path]:
    """The control groups that `--keep-unit` made for itself and the guest, in every hierarchy."""
    mounts = [Path("/sys/fs/cgroup", kind) for kind in ("", "unified", "systemd")]
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    ours = {line.split(":", 2)[2] for line in lines if line.endswith("/supervisor")}
    found = [mount / name.lstrip("/") for mount in mounts for name in ours]
    return [made for path in found for made in (path, path.with_name("payload"))]


def _remove_cgroups(made: list[Path]) -> None:
    for top in made:
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):  # systemd's own to remove, where one runs out here
                Path(folder).rmdir()
