"""The configuration: its models, which are also its documentation, and `load`.

Everything that is wrong is reported in one run. Frozen, so that a reload is another `Config`.
"""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Struct, field

from daemon import config_values as values
from daemon import locate
from daemon.config_address import Address, read_address
from daemon.config_after import (
    After,
    FilingStep,
    Move,
    read_on_done,
    read_on_quarantine,
)
from daemon.config_places import derive_runtime_dir, misplaced, resolve, tables
from daemon.config_report import Finding, WrongValueError, dotted, to_problems, wrong
from daemon.config_steps import Count, Duration, Name, Share, Span, Step, read_step
from daemon.config_tables import Example, listing, table
from daemon.config_trust import untrusted
from daemon.errors import ConfigError, Location

Folder = Annotated[Path, values.folder]
Patterns = Annotated[tuple[str, ...], listing(values.pattern)]
Priority = Annotated[int, values.whole(-1000, 1000)]


def _node() -> str:
    return os.uname().nodename


class Daemon(Struct, frozen=True, kw_only=True):
    """`[daemon]`: the process itself, and where it keeps its things."""

    node: Annotated[str, values.some_text] = field(default_factory=_node)
    state_dir: Annotated[Folder, Example('state_dir = "/var/lib/treewarden"')]
    runtime_dir: Annotated[Folder, Example('runtime_dir = "/run/treewarden"')]
    store: Annotated[Literal["sqlite"], values.store] = "sqlite"
    drain: Duration = 30.0
    concurrency: Annotated[int | None, values.whole(1)] = None


class Log(Struct, frozen=True, kw_only=True):
    """`[log]`: how much is said, and where to."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    output: Annotated[str, values.output] = "stdout"


class Metrics(Struct, frozen=True, kw_only=True):
    """`[metrics]`: where Prometheus and health checks may ask; nowhere unless it is set."""

    listen: Annotated[Address | None, read_address] = None


class Settle(Struct, frozen=True, kw_only=True):
    """`[watch.settle]`: when a file counts as complete."""

    quiet: Duration = 2.0
    writers: Literal["probe", "ignore"] = "probe"
    marker: Annotated[str | None, values.marker] = None
    manifest: Annotated[str | None, values.glob] = None


class Urgency(Struct, frozen=True, kw_only=True):
    """`[[watch.priorities]]`: files more urgent than the others of their watch, or less."""

    patterns: Annotated[Patterns, Example('patterns = ["urgent/"]')]
    priority: Annotated[Priority, Example("priority = 10")]


class Watch(Struct, frozen=True, kw_only=True, dict=True):
    """`[[watch]]`: one directory tree."""

    name: Annotated[Name, Example('name = "incoming"')]
    path: Annotated[Folder, Example('path = "/srv/incoming"')]
    include: Patterns = ()
    exclude: Patterns = ()
    existing: Literal["process", "adopt"] = "process"
    mode: Literal["auto", "inotify", "poll"] = "auto"
    reconcile: Span = 900.0
    poll: Span = 5.0
    identity: Literal["stat", "content"] = "stat"
    freeze_share: Share = 0.5
    create: bool = False
    interruptions: Count = 3
    order: Literal["arrival", "name", "mtime", "size"] = "arrival"
    priority: Priority = 0
    priorities: Annotated[tuple[Urgency, ...], listing(table(Urgency))] = ()
    max_cycles: Count = 20
    settle: Settle = Settle()
    step: Annotated[tuple[Step, ...], listing(read_step)] = ()
    removed: Annotated[tuple[Step, ...], listing(read_step)] = ()
    on_done: Annotated[After | None, read_on_done] = None
    on_quarantine: Annotated[Move | None, read_on_quarantine] = None

    @cached_property
    def root(self) -> bytes:
        """The folder's path as the kernel takes it."""
        return os.fsencode(self.path)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The steps in their order, with what takes the file away in the end as the last."""
        last = () if self.on_done is None else (FilingStep(after=self.on_done, watch=self.name),)
        return (*self.step, *last)

    @cached_property
    def all_steps(self) -> tuple[Step, ...]:
        """These, and those for a file that was removed. All have names of their own."""
        return (*self.steps, *self.removed)

    @cached_property
    def step_names(self) -> tuple[str, ...]:
        """The names of `steps`."""
        return tuple(step.name for step in self.steps)


def _watches(value: object) -> tuple[Watch, ...]:
    if value == []:
        raise wrong(value, "write at least one", "found none")
    return listing(table(Watch))(value)


class Config(Struct, frozen=True, kw_only=True):
    """The whole file."""

    daemon: Daemon
    log: Log = Log()
    metrics: Metrics = Metrics()
    watch: Annotated[tuple[Watch, ...], _watches, Example("[[watch]]")]


def load(path: Path) -> Config:
    """Read and check a configuration. Raises `ConfigError` with every problem at once."""
    text = locate.read_text(path)
    raw = locate.parse(text, path)
    resolve(raw, path)
    findings = [*_repeated_names(raw), *dict.fromkeys(misplaced(raw))]
    derive_runtime_dir(raw, path)
    problems = list(untrusted(path))
    try:
        config = table(Config)(raw)
    except WrongValueError as error:
        findings += error.findings
    else:
        if not findings and not problems:
            return config
    raise ConfigError([*problems, *to_problems(findings, str(path), text)])


def _repeated_names(raw: dict[str, Any]) -> Iterator[Finding]:
    yield from _repeated(raw, (), ("watch",))
    for index, watch in tables(raw.get("watch")):
        yield from _repeated(watch, ("watch", index), ("step", "removed"))


def _repeated(table: dict[str, Any], at: Location, lists: tuple[str, ...]) -> Iterator[Finding]:
    """Names in some lists of tables, which all have to differ."""
    seen: dict[str, Location] = {}
    entries = [((*at, key, index), each) for key in lists for index, each in tables(table.get(key))]
    for here, entry in entries:
        name = entry.get("name")
        if isinstance(name, str) and seen.setdefault(name, here) != here:
            remedy = f"{dotted(seen[name])} has this name already; give each its own"
            yield Finding((*here, "name"), f"found {name!r} again", remedy)
