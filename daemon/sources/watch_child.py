"""The program of a watcher's process: watchfiles' RustNotify, a canary, and reports of both.

RustNotify walks the whole tree when it is made and holds the interpreter lock all the while, 0.23 s
for 2,000 folders with 100,000 files: so it has a process of its own, and that imports next to
nothing. It repairs nothing: on any trouble it says why and ends; who started it starts another.

It ends when its standard input does. To standard output it writes reports, each as its length in
four bytes, little-endian, and the tuple, marshalled. Paths are bytes, below the root; a latency is
in microseconds, None where no canary has come back since the last one.

    ("ready", latency, complete)     it watches; complete: all folders that can be read
    ("changes", present, removed, burst, latency, more, canary)
                                     paths, by whether something was there when last heard of; with
                                     those that are present, what new files show (`engine.sight`);
                                     burst: so much that more may have happened than was heard;
                                     more: the next report is of what was heard with these
    ("proven", canary)               so many that followed removals are back, and all before them
    ("flood",)                       so many paths that none is told
    ("canary", latency)              of an idle watcher, now and then
    ("exhausted", limit)             max_user_watches: what is there is watched, new folders are
                                     not; max_user_instances: nothing is, and it ends
    ("root_deleted",)                the root was removed or renamed
    ("lost", how)                    overflow: a later canary came back first; blind: none did at
                                     all; it ends
    ("ended", words)                 for any other reason
"""

import _signal  # type: ignore[import-not-found]  # `signal` makes enums of the numbers: 1 MB
import _thread
import marshal
import posix
import sys
import time

from daemon.engine.sight import sights
from daemon.sources.watch_arrivals import Arrivals
from daemon.sources.watch_canary import Canary
from daemon.sources.watch_folders import Changes, Folders, Outdated, spelled
from daemon.sources.watch_lull import Lull, block, yield_to_writers
from daemon.sources.watch_queue import Queue, await_closed, has_room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

    from daemon.engine.sight import Sights

ADDED, DELETED = 1, 3
SECOND = 1_000_000_000
DEBOUNCE_MS = 20
CANARY_NS, RENEW_NS = 10 * SECOND, SECOND // 10
# Who watches over us gets a sign of life so long after the last report at the latest, and a canary.
SIGN_NS = SECOND
# Two turns of the loop so far apart: the process was stopped, and the queue may have run over. So
# no turn waits for longer than the other.
GAP_NS, WAIT_NS = 10 * SECOND, 5 * SECOND
FLOOD = 50_000
CHUNK = 1_000
PROBE_NS = SECOND
RETRY_NS = 60 * SECOND
WALKS = 5
# What RustNotify says when there are no more watches, and when there is no more instance.
NO_WATCHES, NO_INSTANCE = "MaxFilesWatch", "(os error 24)"


class Watch:
    """The loop. RustNotify asks it `is_set` at every step, and returns when there are changes."""

    def __init__(self, make: "type[RustNotify]", root: str, canary: str, *, probe: bool) -> None:
        self._make = make
        self._root, self._below = root, root + "/"
        self._is_probing = probe
        self._canary = Canary(canary)
        self._arrivals = Arrivals(self._canary.folder)
        self._queue = Queue()
        self._lull = Lull()
        self._folders = Folders(root, self._turn)
        self._latency: int | None = None
        self._ready = self._burst = self._grown = self._exhausted = False
        self._turned = self._probed = self._told = 0

    def run(self) -> None:
        """Watch until a canary is lost.

        Raises:
            Outdated: the watches do not fit the tree any more.
            OSError: the root is not there, or the canary cannot be touched.
            RuntimeError: RustNotify has given up.
        """
        notify = self._walk()
        self._lull.listen(self._queue.find())
        self._turned = time.monotonic_ns()
        self._canary.send()
        lost = None
        while lost is None:
            # No timeout: when one is over, RustNotify forgets what it has heard in that moment.
            # And no steps of its own: `is_set` waits.
            changes = notify.watch(DEBOUNCE_MS, 0, 0, self)
            lost = "blind" if isinstance(changes, str) else self._take(changes)
        tell("lost", lost)

    def is_set(self) -> bool:
        """See to the canary and the queue, and wait; True when there is nothing to wait for."""
        turn, pressed = self._turn()
        since = self._turned - self._canary.sent
        if self._burst and not pressed:
            # The one before may have been dropped, which only one after it brings out.
            due = since > RENEW_NS
        else:
            due = not self._canary.is_out and (pressed or since > CANARY_NS)
        if due:
            self._canary.send()
        self._arrivals.ask(turn)
        if self._canary.is_overdue(turn):
            return True
        self._lull.wait(RENEW_NS if self._burst or self._canary.is_out else WAIT_NS)
        return False

    def _turn(self) -> tuple[int, bool]:
        """How long the process was elsewhere, and whether too much waits in the queue."""
        now = time.monotonic_ns()
        turn, self._turned = now - self._turned, now
        pressed = self._queue.is_pressed()
        self._burst = self._burst or pressed or turn > GAP_NS
        return turn, pressed

    def _walk(self) -> "RustNotify":
        """Set the watches. At the first error RustNotify leaves out the rest."""
        both = self._canary.folder, self._root
        for _ in range(WALKS):
            try:
                return self._make([*both], False, False, 0, True, False)  # noqa: FBT003 - they have no names
            except OSError as error:
                failed = error
            posix.stat(self._root)
            await_closed()
            if not isinstance(failed, FileNotFoundError):
                break
        return self._walk_around(failed)

    def _walk_around(self, failed: OSError) -> "RustNotify":
        """Set those watches that can be."""
        self._exhausted = NO_WATCHES in str(failed)
        if not self._exhausted:
            self._folders.survey(self._root)
            if not self._folders.obstacles:
                raise failed
        routes = [self._canary.folder, *self._folders.routes()]
        made = self._make(routes, False, False, 0, True, True)  # noqa: FBT003 - as above
        self._exhausted = self._exhausted or not has_room(self._canary.names[:1])
        return made

    def _take(self, changes: Changes) -> str | None:
        """Report a batch, and see whether the watches still fit; what was lost, if anything was."""
        lost, latency = self._canary.take(changes)
        self._latency = latency or self._latency
        if latency and not self._ready:
            self._begin(latency)
        watched = self._arrivals.take(changes)
        # First: by the name of a link in a new folder, changes in an old one may be told.
        self._grow(changes)
        self._report(changes, watched)
        if latency and not lost and self._canary.proves():
            tell("proven", self._canary.back)
        self._folders.check(changes)
        self._probe()
        return "overflow" if lost else None

    def _begin(self, latency: int) -> None:
        self._ready, self._probed = True, self._turned
        tell("ready", latency, not self._exhausted)
        self._folders.survey(self._root)

    def _report(self, changes: Changes, watched: set[str]) -> None:
        """Tell of what was heard, and again of new folders that are watched by now."""
        heard = {path for _, path in changes if path.startswith(self._below)} | watched
        burst = self._burst or self._queue.is_burst(len(heard))
        self._burst = False
        if (DELETED, self._root) in changes:
            tell("root_deleted")
        if heard:
            self._told = self._turned
            self._canary.follow()
        if len(heard) > FLOOD or self._root in watched:
            tell("flood")
        elif heard or burst:
            self._report_paths(changes, heard, burst=burst)
        elif self._turned - self._told > SIGN_NS:
            self._told = self._turned
            tell("canary", self._latency)

    def _report_paths(self, changes: Changes, heard: set[str], *, burst: bool) -> None:
        """What is there before what is not: so the new name of a file precedes its old one."""
        new = {path for kind, path in changes if kind == ADDED}
        gone = {path for path in heard if (DELETED, path) in changes}
        new, gone = new - gone, gone - new  # both: it may have been a folder, so look again
        present, removed = self._chunks(heard - gone), self._chunks(gone)
        reports = [*((chunk, []) for chunk in present), *(([], chunk) for chunk in removed)]
        canary = self._canary.following(to_prove=bool(gone))
        reports = reports or [([], [])]
        for left, (there, away) in zip(range(len(reports))[::-1], reports, strict=True):
            names, seen = [self._name(path) for path in away], self._seen(there, new)
            tell("changes", seen, names, burst, self._latency, left > 0, canary)
            self._latency = None

    def _chunks(self, paths: set[str]) -> list[list[str]]:
        straight = list(self._folders.straighten(paths))
        return [straight[at : at + CHUNK] for at in range(0, len(straight), CHUNK)]

    def _name(self, path: str) -> bytes:
        return path[len(self._below) :].encode()

    def _seen(self, paths: list[str], new: set[str]) -> "Sights":
        """Look at what is new: here nobody has to wait for the interpreter lock."""
        names = [self._name(path) for path in paths if path in new]
        seen = sights(self._root.encode(), names, probe=self._is_probing)
        shown = dict(zip(names, seen, strict=True))
        return [(name, shown.get(name)) for name in map(self._name, paths)]

    def _grow(self, changes: Changes) -> None:
        if len(changes) > FLOOD:
            self._folders.survey(self._root)
            new = {self._root}
        else:
            added = (p for kind, p in changes if kind == ADDED and p.startswith(self._below))
            new = self._folders.grow(added)
        if new:
            self._grown = True
            self._arrivals.add(new)
        if self._exhausted:
            self._arrivals.forget()

    def _probe(self) -> None:
        """See whether new folders found watches left, or watches are free again: nobody says."""
        since = self._turned - self._probed
        if self._exhausted and since > RETRY_NS:
            self._probed = self._turned
            if has_room(self._canary.names):
                raise Outdated("there are inotify watches again")
        elif self._grown and not self._exhausted and since > PROBE_NS:
            self._probed, self._grown = self._turned, False
            self._exhausted = not has_room(self._canary.names[:1])
            if self._exhausted:
                tell("exhausted", "max_user_watches")


def main() -> None:
    """Watch until told to end, or until that is of no more use."""
    # They are for the daemon, and reach all of its control group or terminal.
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_IGN)
    # A lease raises it as well, whose default is the end.
    block()
    yield_to_writers()
    _thread.start_new_thread(_end_with_input, ())
    package, root, canary, probe = sys.argv[1:]
    try:
        made = load_notify(package), spelled(root), canary
        Watch(*made, probe=probe == "probe").run()
    except Outdated as error:
        tell("ended", str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is ends this watcher, and who started it has to hear of it
        if NO_INSTANCE in str(error):
            tell("exhausted", "max_user_instances")
        tell("ended", f"{type(error).__name__}: {error}")
    # Without good-byes: RustNotify would hand its watches back one by one.
    posix._exit(0)  # noqa: SLF001 - its name


def load_notify(folder: str) -> "type[RustNotify]":
    """Import the extension without its package, which would bring anyio and asyncio with it."""
    package = type(sys)("watchfiles")
    package.__path__ = [folder]
    sys.modules["watchfiles"] = package
    from watchfiles._rust_notify import RustNotify  # noqa: PLC0415 - the lines above make it possible

    return RustNotify


def tell(*report: "str | bool | int | Sights | list[bytes] | None") -> None:
    """Write a report, as slowly as it is read."""
    body = marshal.dumps(report)
    rest = memoryview(len(body).to_bytes(4, "little") + body)
    while rest:
        rest = rest[posix.write(1, rest) :]


def _end_with_input() -> None:
    """The daemon holds the other end, and says nothing: when it ends, whatever way, so do we."""
    while posix.read(0, 64):
        pass
    posix._exit(0)  # noqa: SLF001 - as above; the main thread may be anywhere
