"""Whether the daemon could do its work here and now: everything at once, nothing changed.

What it finds holds for the user who asks, so ask as the user that the daemon runs as.
"""

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from daemon.cli.checks import Finding, quoted
from daemon.cli.checks.folders import (
    examine_base,
    examine_state,
    examine_writable,
    may,
    missing,
)
from daemon.cli.checks.inotify import examine_extent, examine_limits, extent_of, usage_of
from daemon.cli.checks.programs import examine_program, examine_worker
from daemon.config import Config, Watch
from daemon.config_address import Address
from daemon.config_after import After, base_of
from daemon.config_steps import CommandStep, FunctionStep, HttpStep, WorkerStep
from daemon.core.removals import Mark, read_mark
from daemon.engine.filesystems import file_system_of, is_remote, mount_of, must_poll
from daemon.errors import StoreError
from daemon.locate import ANSWER_SECONDS, DATABASE, Unanswered, within
from daemon.store.holder import holder_pid
from daemon.store.inspect import inspect

# Known to grant read leases; elsewhere the first probe tells, and quiet time alone decides.
_LEASES = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "tmpfs"}
    | {"xfs", "zfs"}
)


def examine(config: Config) -> Iterator[Finding]:
    """Everything that could keep the daemon from working, and everything that will not."""
    yield _user()
    yield _other_daemon(config.daemon.state_dir)
    yield from examine_state(config.daemon.state_dir)
    if config.log.output != "stdout":
        yield _log(Path(config.log.output))
    if config.metrics.listen:
        yield from _metrics(config.metrics.listen, config.daemon.state_dir)
    for watch in config.watch:
        yield from _watch(watch)
        yield from _takings(watch, config.daemon.state_dir)
    yield from _trees(config)


def _user() -> Finding:
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = "without a name"
    what = "user"
    if uid == 0:
        detail = "root, who may do everything: another user of the daemon may find more amiss"
        return Finding("ok", what, detail)
    return Finding("ok", what, f"{name} ({uid}): what follows holds for this user")


def _other_daemon(state_dir: Path) -> Finding:
    try:
        pid = holder_pid(state_dir)
    except OSError as error:
        return Finding("warning", "running", f"not known: {error.strerror}", "ask as its user")
    return Finding("ok", "running", "no" if pid is None else f"yes, pid {pid or 'unknown'}")


def _log(path: Path) -> Finding:
    if reason := missing(path.parent):
        return Finding("error", "log.output", reason, "make it, or name a file elsewhere")
    if not may(path, os.F_OK):
        return examine_writable("log.output", path.parent)
    if path.is_dir() or not may(path, os.R_OK | os.W_OK):
        detail = f"{quoted(path)} cannot be written by this user"
        return Finding("error", "log.output", detail, "name a file that the daemon may write")
    return Finding("ok", "log.output", f"{quoted(path)}, writable")


def _metrics(address: Address, state_dir: Path) -> Iterator[Finding]:
    # Imported here: few configurations need sockets, and every answer would wait for them.
    from daemon.cli.checks.listening import examine_address  # noqa: PLC0415

    yield from examine_address(address, running=_pid(state_dir) is not None)


def _watch(watch: Watch) -> Iterator[Finding]:
    yield _root(watch)
    if isinstance(watch.path, Unanswered):
        return
    yield _file_system(watch)
    for step in (*watch.step, *watch.removed):
        if isinstance(step, CommandStep):
            yield from examine_program(f"{watch.name}.{step.name}", step)
        elif isinstance(step, HttpStep):
            yield from _posting(f"{watch.name}.{step.name}", step)
        elif isinstance(step, WorkerStep):
            yield from examine_worker(f"{watch.name}.{step.name}", step)
        elif isinstance(step, FunctionStep):
            # It was imported, or the configuration would have been refused.
            yield Finding("ok", f"{watch.name}.{step.name}.function", quoted(step.function))


def _takings(watch: Watch, state_dir: Path) -> Iterator[Finding]:
    for key, after in (("on_done", watch.on_done), ("on_quarantine", watch.on_quarantine)):
        if after is not None:
            yield _taking(watch, f"{watch.name}.{key}", after, state_dir)


def _taking(watch: Watch, what: str, after: After, state_dir: Path) -> Finding:
    """Whether files can be taken out of the tree, and to where they shall go."""
    if watch.path.exists() and not may(watch.path, os.W_OK | os.X_OK):
        detail = f"{quoted(watch.path)} cannot be written by this user: files cannot leave it"
        return Finding("error", what, detail, "let the daemon's user write there")
    if after == "delete":
        return Finding("ok", what, "files are deleted")
    base = base_of(after.move, watch.name)
    found: list[Finding] = []
    try:
        within(ANSWER_SECONDS, lambda: found.append(_archive(what, base, state_dir)))
    except TimeoutError:
        detail = f"{quoted(base)} does not answer: files stay until it does"
        return Finding("error", what, detail, "see to its file system, or to the server behind it")
    return found[0]


def _archive(what: str, base: Path, state_dir: Path) -> Finding:
    known = _known_archive(base, state_dir)
    found = examine_base(what, base, known)
    if found.level == "ok" and known is None and _is_mount(base):
        detail = f"{quoted(base)} is a mount point, and no file was taken there yet"
        remedy = "have it mounted when the first one comes: from then on it is known"
        return Finding("warning", what, detail, remedy)
    return found


def _is_mount(folder: Path) -> bool:
    """Unlike `Path.is_mount` this knows of a folder that is mounted in a second place."""
    with suppress(OSError):
        return mount_of(bytes(folder)).point == bytes(folder)
    return folder.is_mount()


def _known_archive(base: Path, state_dir: Path) -> Mark | None:
    """What is on record; nothing, where that cannot be read, of which `database` tells."""
    with suppress(StoreError), inspect(state_dir / DATABASE) as answers:
        return read_mark(answers.archive(bytes(base)))
    return None


def _posting(what: str, step: HttpStep) -> Iterator[Finding]:
    from daemon.cli.checks.posting import examine_posting  # noqa: PLC0415 - as above

    yield from examine_posting(what, step)


def _root(watch: Watch) -> Finding:
    what = f"{watch.name}.path"
    if isinstance(watch.path, Unanswered):
        detail = f"{quoted(watch.path)} does not answer: its files wait until it does"
        return Finding("error", what, detail, "see to its file system, or to the server behind it")
    if not watch.path.exists():  # then it has create = true, or the configuration was refused
        return examine_writable(what, watch.path)
    if not may(watch.path, os.R_OK | os.X_OK):
        detail = f"{quoted(watch.path)} cannot be read and entered by this user"
        return Finding("error", what, detail, "let the daemon's user read and enter it")
    return Finding("ok", what, f"{quoted(watch.path)}, readable")


def _file_system(watch: Watch) -> Finding:
    what = f"{watch.name}.filesystem"
    try:
        kind = file_system_of(watch.root)
    except OSError as error:
        return Finding("warning", what, f"not known: {error.strerror}", "mount /proc")
    if watch.mode == "inotify" and is_remote(kind):
        detail = f"{kind}: changes that are made elsewhere are seen by the periodic scan only"
        return Finding("warning", what, detail, "set mode = 'auto', which polls here")
    polled = watch.mode == "poll" or is_remote(kind)
    how = f"polled every {min(watch.poll, watch.reconcile):g} s" if polled else "inotify"
    return Finding("ok", what, f"{kind}, {how}{_settling(watch, kind)}")


def _settling(watch: Watch, kind: str) -> str:
    if watch.settle.writers != "probe":
        return ""
    if kind not in _LEASES:
        return "; read leases are not known to work here, and without them quiet time decides"
    return "; read leases tell a file that is being written" + (
        "" if os.geteuid() == 0 else ", where this user owns it"
    )


def _trees(config: Config) -> Iterator[Finding]:
    answering = [watch for watch in config.watch if not isinstance(watch.path, Unanswered)]
    extents = {watch.name: extent_of(watch.root) for watch in answering if watch.path.exists()}
    for name, extent in extents.items():
        yield examine_extent(name, extent)
    hinted = [w for w in config.watch if w.name in extents and not _polled(w)]
    if hinted:
        ours = _pid(config.daemon.state_dir)
        used = usage_of(os.geteuid(), ours)
        roots = [watch.root for watch in hinted]
        yield from examine_limits(roots, [extents[watch.name] for watch in hinted], used)


def _polled(watch: Watch) -> bool:
    try:
        return must_poll(watch.mode, watch.root)
    except OSError:
        return False


def _pid(state_dir: Path) -> int | None:
    try:
        return holder_pid(state_dir)
    except OSError:
        return None
