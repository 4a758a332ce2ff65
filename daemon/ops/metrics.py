"""What Prometheus scrapes at `/metrics`, and what a health check is told at `/health`.

Everything is computed when it is asked for, nothing is counted a file. No sample names a path.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, get_args

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from daemon.core.model import State
from daemon.engine.detection import Mode
from daemon.engine.dispatcher import Dispatcher
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.lanes import Lane
from daemon.engine.ledger import Ledger
from daemon.engine.trees import Tree
from daemon.errors import StoreError
from daemon.handlers.worker import WorkerHandler
from daemon.store import StateCount, StepCount

# Prometheus gives up after ten.
ANSWER_SECONDS = 5.0
# Shown as 0 from the start: what appears with its first value has not increased, to Prometheus.
CAUSES = (
    *("start", "period", "poll", "request", "root", "watcher", "overflow", "burst"),
    *("new_directory", "hint"),
)
_TOTAL = "_total"


class Engine(Protocol):
    """The daemon, as far as it is looked at here."""

    trees: dict[str, Tree]
    inbox: Inbox
    ledger: Ledger
    dispatcher: Dispatcher

    @property
    def stopping(self) -> bool:
        """Whether it has been told to end."""
        ...


class Stored(NamedTuple):
    """What the database answered."""

    counts: list[StateCount]
    waiting: list[StepCount]
    seq: int


class OfWatch(NamedTuple):
    """A figure that each watch has: its name, its meaning, and how it is read; None: not known."""

    name: str
    about: str
    read: Callable[[Tree], float | None]


OF_WATCH = (
    OfWatch(
        "treewarden_root_present",
        "1 while there is a folder to watch at the root",
        lambda tree: tree.rooted.is_set(),
    ),
    OfWatch(
        "treewarden_directories",
        "Directories of the tree, as of its last whole scan",
        lambda tree: tree.detection.directories,
    ),
    OfWatch(
        "treewarden_watcher_latency_seconds",
        "The last round trip of the watcher's canary",
        lambda tree: _seconds(tree.detection.latency_us),
    ),
    OfWatch(
        "treewarden_watcher_overflows_total",
        "How often the watcher lost events",
        lambda tree: tree.detection.overflows,
    ),
    OfWatch(
        "treewarden_watcher_restarts_total",
        "How often the watcher was started again",
        lambda tree: tree.detection.restarts,
    ),
    OfWatch(
        "treewarden_tree_silent",
        "1 while the file system of the watch does not answer",
        lambda tree: tree.detection.silent_since is not None,
    ),
    OfWatch(
        "treewarden_removals_frozen",
        "1 while files that are missing are not taken for removed",
        lambda tree: tree.detection.frozen is not None,
    ),
)


class OfStep(NamedTuple):
    """A figure of a step, as `OfWatch`; it is read from its lane, and the time is the loop's."""

    name: str
    about: str
    read: Callable[[Lane, float], float | None]


OF_STEP = (
    OfStep(
        "treewarden_step_running",
        "Files that the step's handlers have",
        lambda lane, _: len(lane.running),
    ),
    OfStep(
        "treewarden_step_open",
        "1 while what the step needs cannot be reached, and its files are left alone",
        lambda lane, _: lane.breaker.is_open,
    ),
    OfStep(
        "treewarden_step_paused",
        "1 while nothing is started for a moment, for want of something",
        lambda lane, now: now < lane.paused_until,
    ),
    OfStep(
        "treewarden_step_workers_ended_total",
        "Workers of the step that ended of themselves, or had to be ended",
        lambda lane, _: _workers_ended(lane),
    ),
)


def _workers_ended(lane: Lane) -> int | None:
    return lane.handler.news.ended if isinstance(lane.handler, WorkerHandler) else None


class Snapshot(Collector):
    """The daemon at one moment; without what is stored while the database does not answer."""

    def __init__(self, engine: Engine, journal: Journal, stored: Stored | None) -> None:
        self._engine = engine
        self._journal = journal
        self._stored = stored

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        for figure in OF_WATCH:
            yield self._of_watch(figure)
        yield self._modes()
        yield self._missed()
        yield from self._work()
        yield from self._steps()
        if self._stored:
            yield self._waiting(self._stored.waiting)
            yield self._files(self._stored.counts)
            yield self._owed(self._stored.seq)

    def _of_watch(self, figure: OfWatch) -> Metric:
        family = _family(figure.name, figure.about, "watch")
        for watch, tree in self._engine.trees.items():
            if (value := figure.read(tree)) is not None:
                family.add_metric([watch], value)
        return family

    def _modes(self) -> Metric:
        about = "1 for the way in which changes are found: watched, in part, or polled"
        family = _family("treewarden_watcher_mode", about, "watch", "mode")
        for watch, tree in self._engine.trees.items():
            for mode in get_args(Mode):
                family.add_metric([watch, mode], tree.detection.mode == mode)
        return family

    def _missed(self) -> Metric:
        about = "Files that a scan found and the watcher had not told of, by the scan's cause"
        family = _family("treewarden_files_missed_total", about, "watch", "cause")
        for watch, tree in self._engine.trees.items():
            missed = {**dict.fromkeys(CAUSES, 0), **tree.detection.missed_ever}
            for cause, files in missed.items():
                family.add_metric([watch, cause], files)
        return family

    def _work(self) -> Iterator[Metric]:
        engine = self._engine
        answers = self._stored is not None and engine.ledger.available.is_set()
        yield _single("treewarden_database_up", "1 while the database can be used", answers)
        about = "Reasons to look at a file that wait for their turn"
        yield _single("treewarden_inbox_triggers", about, len(engine.inbox))
        about = "Handlers that run now"
        yield _single("treewarden_handlers_running", about, len(engine.dispatcher.running))
        about = "Transitions that were committed"
        yield _single("treewarden_transitions_total", about, engine.ledger.committed)

    def _steps(self) -> Iterator[Metric]:
        now = asyncio.get_running_loop().time()
        for name, about, read in OF_STEP:
            family = _family(name, about, "watch", "step")
            for lane in self._engine.dispatcher.lanes:
                if (value := read(lane, now)) is not None:
                    family.add_metric([lane.tree.name, lane.step.name], value)
            yield family

    def _waiting(self, counts: list[StepCount]) -> Metric:
        family = _family("treewarden_step_waiting", "Files that wait for the step", "watch", "step")
        known = {(watch, step): n for watch, step, state, n in counts if state == "ready"}
        for lane in self._engine.dispatcher.lanes:
            name = (lane.tree.name, lane.step.name)
            family.add_metric(name, known.get(name, 0))
        return family

    def _files(self, counts: list[StateCount]) -> Metric:
        family = _family("treewarden_files", "Files by state", "watch", "state")
        known = {(watch, state): files for watch, state, files in counts}
        for watch in self._engine.trees:
            for state in get_args(State):
                family.add_metric([watch, state], known.get((watch, state), 0))
        return family

    def _owed(self, seq: int) -> Metric:
        about = "Transitions that have no line in the log yet, at most"
        return _single("treewarden_lines_owed", about, max(0, seq - self._journal.position))


class Answers:
    """The answers, by the path that is asked for."""

    def __init__(self, engine: Engine, journal: Journal) -> None:
        self._engine = engine
        self._journal = journal
        self._process = ProcessCollector(registry=None)
        self.by_path = {"/metrics": self.metrics, "/health": self.health}

    async def metrics(self, request: web.BaseRequest) -> web.Response:
        """Every sample there is, in the format that the client prefers."""
        stored = await self._ask()
        registry = CollectorRegistry()
        registry.register(Snapshot(self._engine, self._journal, stored))
        registry.register(self._process)
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": kind})

    async def health(self, request: web.BaseRequest) -> web.Response:
        """200 while the database can be used and every watch is served, else 503 and why."""
        del request
        reasons = [] if await self._ask() else ["the database does not answer"]
        reasons += self._ailments()
        answer = {"status": "unavailable" if reasons else "ok", "reasons": reasons}
        status = 503 if reasons else 200
        body = msgspec.json.encode(answer)
        return web.Response(body=body, status=status, content_type="application/json")

    def _ailments(self) -> Iterator[str]:
        if self._engine.stopping:
            yield "the daemon stops"
        if not self._engine.ledger.available.is_set():
            yield "the database cannot be used"
        for watch, tree in self._engine.trees.items():
            if not tree.rooted.is_set():
                yield f"{watch}: there is no folder to watch"
            elif tree.detection.directories is None:
                yield f"{watch}: the first scan goes on"

    async def _ask(self) -> Stored | None:
        store = self._engine.ledger.store
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                waiting = await store.step_counts()
                return Stored(await store.counts(), waiting, (await store.last_ids()).seq)
        except (StoreError, TimeoutError):
            # Said on the log by whoever needs the database for the work.
            return None


def _family(name: str, about: str, *labels: str) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if name.endswith(_TOTAL) else GaugeMetricFamily
    return kind(name, f"{about}.", labels=labels)


def _single(name: str, about: str, value: float) -> Metric:
    family = _family(name, about)
    family.add_metric([], value)
    return family


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1_000_000
