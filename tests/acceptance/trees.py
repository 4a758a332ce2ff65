"""What a test does to a watched tree from outside, and how it knows that the daemon has kept up.

The disk is compared with the rows of the database: every regular file has exactly one live row,
which is done and shows the very file, and no other row is live. Nothing here sleeps.
"""

import base64
import ctypes
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.acceptance.harness import DEADLINE, Line, RunningDaemon
from tests.acceptance.sites import Effects, Site

QUEUE_LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")
_OFF = ("gone", "untracked")
_EXCHANGE = 2
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


class Shown(NamedTuple):
    """What tells one file from another: the disk's word, and the row's."""

    size: int
    mtime_ns: int
    ino: int


class Row(NamedTuple):
    """A live row."""

    id: int
    state: str
    shown: Shown


def on_disk(root: Path) -> dict[bytes, Shown]:
    """Every regular file below a folder, by its path from there."""
    top = os.fsencode(root)
    found = {}
    for folder, _, names in os.walk(top):
        for path in (folder + b"/" + name for name in names):
            with suppress(FileNotFoundError):  # a handler may have moved it
                st = os.lstat(path)
                if stat.S_ISREG(st.st_mode):
                    shown = Shown(st.st_size, st.st_mtime_ns, st.st_ino)
                    found[path.removeprefix(top + b"/")] = shown
    return found


def live_rows(site: Site, watch: str = "w") -> dict[bytes, Row]:
    """The rows that say that a file is there, by path; no path has two of them."""
    query = (
        "SELECT directory, name, id, state, size, mtime_ns, ino FROM files "
        "WHERE watch = ? AND state NOT IN (?, ?)"
    )
    found = [
        (directory + b"/" + name if directory else name, Row(id_, state, Shown(*shown)))
        for directory, name, id_, state, *shown in site.sql(query, watch, *_OFF)
    ]
    twice = [path for path, times in Counter(path for path, _ in found).items() if times > 1]
    assert not twice, f"more than one live row: {twice[:5]}"
    return dict(found)


def difference(disk: Mapping[bytes, Shown], rows: Mapping[bytes, Row]) -> str:
    """Where the disk and the rows do not agree, counted and with examples; empty if they do."""
    wrong = {
        "without a row": disk.keys() - rows.keys(),
        "live without a file": rows.keys() - disk.keys(),
        "not done": {path for path, row in rows.items() if row.state != "done"},
        "shown as another": {p for p in disk.keys() & rows.keys() if disk[p] != rows[p].shown},
    }
    states = dict(Counter(row.state for row in rows.values()))
    told = [f"{len(w)} {what}, as {sorted(w)[:3]}" for what, w in wrong.items() if w]
    return "; ".join([*told, f"files {len(disk)}, rows {states}"]) if told else ""


class Known:
    """What the lines so far have said of the files below a prefix; reads each line once."""

    def __init__(self, daemon: RunningDaemon, prefix: bytes = b"") -> None:
        self._daemon = daemon
        self._prefix = prefix
        self._next = 0
        self._versions: dict[int, int] = {}
        self._live: set[int] = set()
        self._unfinished: set[int] = set()

    def await_done(self, number: int) -> None:
        """Wait until so many files are there, and each of them is done."""
        self._daemon.wait_for(lambda _: self.all_done(number), f"end of {number} files")

    def all_done(self, number: int) -> bool:
        """So many files are there, and each of them is done."""
        lines = self._daemon.lines
        while self._next < len(lines):
            line = lines[self._next]
            self._next += 1
            if line.get("outcome") == "success":
                self._take(line)
        return len(self._live) == number and not self._unfinished

    def _take(self, line: Line) -> None:
        """A line may come twice, and then after a later one: the version tells."""
        number, state = line["file_id"], line["to_state"]
        if line["version"] <= self._versions.get(number, 0):
            return
        self._versions[number] = line["version"]
        self._live.discard(number)
        self._unfinished.discard(number)
        if state not in _OFF and path_of(line).startswith(self._prefix):
            self._live.add(number)
            if state != "done":
                self._unfinished.add(number)


def path_of(line: Line) -> bytes:
    """The exact path that a line is about."""
    return base64.b64decode(line["path_b64"]) if "path_b64" in line else line["path"].encode()


def agree(site: Site, daemon: RunningDaemon) -> dict[bytes, Row]:
    """Wait until the rows say what is on the disk; then let a later file pass, and look again.

    For a tree that nobody else changes any more, under a daemon that has seen it from its first
    file on. Returns the rows, the later file's left out.
    """
    known, last = Known(daemon), site.tree / "later"
    last.unlink(missing_ok=True)
    await_agreement(site, daemon, known)
    last.touch()
    await_agreement(site, daemon, known)
    rows = live_rows(site)
    del rows[b"later"]
    return rows


def await_agreement(site: Site, daemon: RunningDaemon, known: Known | None = None) -> None:
    """Wait until the rows say what is on the disk. `known`: of an earlier wait for this daemon."""
    known = known or Known(daemon)
    disk = on_disk(site.tree)

    def agreed(_: object) -> bool:
        # The database is asked only once the lines promise something: it costs 50 us a row.
        return known.all_done(len(disk)) and not difference(disk, live_rows(site))

    with _telling(site):
        daemon.wait_for(agreed, "agreement")


@contextmanager
def _telling(site: Site) -> Iterator[None]:
    """Say how the disk and the rows differ, where waiting was in vain."""
    try:
        yield
    except AssertionError as error:
        differs = difference(on_disk(site.tree), live_rows(site)) or "the disk and the rows agree"
        raise AssertionError(f"{differs}\n{error}") from None


@contextmanager
def writing(code: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a piece of Python at full speed beside the test; waits for its end."""
    argv = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        try:
            yield process
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


def write(code: str, *arguments: object) -> None:
    """Run a piece of Python in a process of its own, to its end."""
    with writing(code, *arguments):
        pass


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are still there."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, task.read_text().split())
    return found


def family(pid: int) -> list[int]:
    """A process and everything below it, from the top down."""
    return [pid, *(member for child in children(pid) for member in family(child))]


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Let processes stand still, and go on at the end."""
    with ExitStack() as stack:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            stack.callback(_go_on, pid)
        yield


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@contextmanager
def queue_limit(events: int) -> Iterator[None]:
    """Let inotify instances that are made meanwhile hold so many events.

    The value belongs to the whole machine, also inside of namespaces: it is put back at the end,
    and two that want to change it wait for each other.
    """
    with QUEUE_LIMIT.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        former = QUEUE_LIMIT.read_text()
        try:
            QUEUE_LIMIT.write_text(f"{events}\n")
            yield
        finally:
            QUEUE_LIMIT.write_text(former)


def exchange(one: Path, other: Path) -> None:
    """Two names change places in one step (renameat2(2), RENAME_EXCHANGE)."""
    names = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    if _libc.renameat2(*names, _EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")


def show(site: Site, path: str) -> dict[str, Any]:
    """What `treewarden show --json` says of a file."""
    answer = site.run("show", "--config", str(site.config), "--json", path)
    assert (answer.returncode, answer.stderr) == (0, ""), answer.stderr
    shown: dict[str, Any] = json.loads(answer.stdout)
    return shown


class Scene:
    """A watch of `in` whose one step reports each file that it handles, and its daemon."""

    def __init__(self, site: Site, then: str = "", **watch: Any) -> None:
        self.site = site
        self.tree = site.tree
        self.effects: Effects = site.effects()
        handler = site.script("report", f'echo "$TREEWARDEN_RELPATH" >"$EFFECTS"\n{then}')
        step = f'name = "s"\ncommand = [{handler}]\nattempts = 1'
        site.configure(site.watch(step, **{"settle": 'quiet = "20ms"', **watch}))
        self.daemon = site.start().ready()

    def put(self, *names: str, state: str = "done") -> list[int]:
        """Write files of different sizes, wait until they are as far, and forget it; their ids."""
        for number, name in enumerate(names, 1):
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x" * number)
        self.await_rows(dict.fromkeys(names), state, among_others=True)
        self.effects.rest()
        rows = live_rows(self.site)
        return [rows[os.fsencode(name)].id for name in names]

    def await_rows(
        self, ids: Mapping[str, int | None], state: str = "done", *, among_others: bool = False
    ) -> dict[bytes, Row]:
        """Wait until these and no other paths are live, in this state, with these ids (None: any).

        Each of them shows the file that is there.
        """
        wanted = {os.fsencode(name): number for name, number in ids.items()}

        def wrong(rows: Mapping[bytes, Row]) -> dict[bytes, object]:
            disk = on_disk(self.tree)
            lost = {
                path: row and (row.id, row.state)
                for path, number in wanted.items()
                if (row := rows.get(path)) is None
                or (row.state, row.shown) != (state, disk.get(path))
                or number not in {None, row.id}
            }
            others = set() if among_others else rows.keys() - wanted.keys()
            return {**lost, **{path: (rows[path].id, rows[path].state) for path in others}}

        try:
            self.daemon.wait_for(lambda _: not wrong(live_rows(self.site)), f"rows {state}")
        except AssertionError as error:
            got = wrong(live_rows(self.site))
            told = [f"{path!r}: {row}, wanted {wanted.get(path)}" for path, row in got.items()]
            raise AssertionError(f"{len(told)} wrong: {sorted(told)[:5]}\n{error}") from None
        return live_rows(self.site)

    @contextmanager
    def meanwhile(self, moment: str) -> Iterator[None]:
        """For a change of the tree while the daemon runs, stands still (`paused`), or is `down`."""
        if moment == "down":
            self.daemon.stop()
            yield
            self.daemon = self.site.start()
        elif moment == "paused":
            with stopped(*family(self.daemon.pid)):
                yield
        else:
            yield

    def handled(self) -> list[str]:
        """Stop; the files that were handled since the last `put`."""
        self.daemon.stop()
        return sorted(os.fsdecode(report) for report in self.effects.rest())

    def events(self, path: str) -> list[str]:
        """The names of a file's transitions, as `treewarden show --json` has them."""
        return [record["event"] for record in show(self.site, path)["transitions"]]
