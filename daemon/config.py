"""The configuration: its models, which are also its documentation, and `load`.

Everything that is wrong is reported in one run. Frozen, so that a reload is another `Config`.
"""

import os
import socket
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from daemon import locate
from daemon.config_places import Own, Tree, misplaced
from daemon.config_report import Finding, dotted, explain, to_problems
from daemon.config_values import (
    LIST,
    NOT_EMPTY,
    Command,
    Duration,
    Folder,
    Name,
    Output,
    Patterns,
    Span,
    Store,
    wrong,
)
from daemon.errors import ConfigError
from daemon.toml_lines import Location

Count = Annotated[int, Field(ge=1)]


class Table(BaseModel):
    """A table of the file: no key that is not known, no value that is not of its type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Daemon(Table):
    """`[daemon]`: the process itself, and where it keeps its things."""

    node: Annotated[str, Field(min_length=1)] = Field(default_factory=socket.gethostname)
    state_dir: Annotated[Folder, Field(examples=["/var/lib/treewarden"])]
    runtime_dir: Annotated[Folder, Field(examples=["/run/treewarden"])]
    store: Annotated[Literal["sqlite"], Store] = "sqlite"
    drain: Duration = 30.0


class Log(Table):
    """`[log]`: how much is said, and where to."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    output: Output = "stdout"


class Settle(Table):
    """`[watch.settle]`: when a file counts as complete."""

    quiet: Duration = 2.0
    writers: Literal["probe", "ignore"] = "probe"


class Backoff(Table):
    """`backoff` of a step: how long a failed file waits for its next attempt."""

    first: Span = 1.0
    factor: Annotated[float, Field(ge=1)] = 2.0
    max: Span = 300.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.2

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first > self.max:
            found = f"first ({self.first:g} s) is longer than max ({self.max:g} s)"
            raise wrong(found, "let first be at most max", "first")
        return self


class Step(Table):
    """`[[watch.step]]`: one thing that is done with each file."""

    name: Annotated[Name, Field(examples=["load"])]
    command: Annotated[Command, Field(examples=[["/usr/local/bin/load", "{path}"]])]
    timeout: Span = 300.0
    kill_after: Duration = 5.0
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 1
    attempts: Count = 5
    backoff: Backoff = Backoff()


class Watch(Table):
    """`[[watch]]`: one directory tree."""

    name: Annotated[Name, Field(examples=["incoming"])]
    path: Annotated[Folder, Field(examples=["/srv/incoming"])]
    include: Patterns = ()
    exclude: Patterns = ()
    existing: Literal["process", "adopt"] = "process"
    mode: Literal["auto", "inotify", "poll"] = "auto"
    reconcile: Span = 900.0
    poll: Span = 5.0
    create: bool = False
    interruptions: Count = 3
    settle: Settle = Settle()
    step: Annotated[tuple[Step, ...], LIST] = ()

    @cached_property
    def root(self) -> bytes:
        """The folder's path as the kernel takes it."""
        return os.fsencode(self.path)

    @cached_property
    def step_names(self) -> tuple[str, ...]:
        """The steps in their order."""
        return tuple(step.name for step in self.step)


class Config(Table):
    """The whole file."""

    daemon: Daemon
    log: Log = Log()
    watch: Annotated[tuple[Watch, ...], LIST, NOT_EMPTY]


def load(path: Path) -> Config:
    """Read and check a configuration. Raises `ConfigError` with every problem at once."""
    text = locate.read_text(path)
    raw = _with_folders(locate.parse(text, path), path)
    misplaced_ones = dict.fromkeys(_misplaced(raw, path.absolute().parent))
    findings = [*_repeated_names(raw), *misplaced_ones]
    try:
        config = Config.model_validate(raw, context=path.absolute().parent)
    except ValidationError as error:
        findings += explain(error, Config, raw)
    else:
        if not findings:
            return config
    raise ConfigError(to_problems(findings, str(path), text))


def _with_folders(raw: dict[str, Any], file: Path) -> dict[str, Any]:
    table = raw.get("daemon", {})
    if not isinstance(table, dict):
        return raw
    for key, find in (("state_dir", locate.state_dir), ("runtime_dir", locate.runtime_dir)):
        try:
            table[key] = find(raw, file)
        except ConfigError:
            # A wrong state_dir stays for the model to refuse, and is one problem, not two: the
            # runtime_dir that would follow from it is not missing.
            if "state_dir" in table:
                table.setdefault(key, file.parent)
    return {**raw, "daemon": table}


def _repeated_names(raw: dict[str, Any]) -> Iterator[Finding]:
    yield from _repeated(raw.get("watch"), ("watch",))
    for index, watch in _tables(raw.get("watch")):
        yield from _repeated(watch.get("step"), ("watch", index, "step"))


def _repeated(tables: object, at: Location) -> Iterator[Finding]:
    seen: dict[object, int] = {}
    for index, table in _tables(tables):
        name = table.get("name")
        if isinstance(name, str) and seen.setdefault(name, index) != index:
            owner = dotted((*at, seen[name]))
            remedy = f"{owner} has this name already; give each its own"
            yield Finding((*at, index, "name"), f"found {name!r} again", remedy)


def _tables(value: object) -> list[tuple[int, dict[str, Any]]]:
    entries = value if isinstance(value, list) else []
    return [(index, entry) for index, entry in enumerate(entries) if isinstance(entry, dict)]


def _misplaced(raw: dict[str, Any], folder: Path) -> Iterator[Finding]:
    """Compare the folders that are named, whatever else is wrong in the tables that name them."""
    trees = []
    for index, table in _tables(raw.get("watch")):
        path, create = table.get("path"), table.get("create") is True
        if watch := _part(Watch, {"name": "any", "path": path}, folder):
            trees.append(Tree(("watch", index, "path"), watch.path, create))
    return misplaced(trees, list(_own(raw, folder)))


def _own(raw: dict[str, Any], folder: Path) -> Iterator[Own]:
    for key, what in (("state_dir", "the state folder"), ("runtime_dir", "the runtime folder")):
        place = _table(raw, "daemon").get(key)
        if daemon := _part(Daemon, {"state_dir": place, "runtime_dir": place}, folder):
            private = key == "state_dir"
            yield Own(("daemon", key), daemon.state_dir, what, private=private)
    log = _part(Log, {"output": _table(raw, "log").get("output", "stdout")}, folder)
    if log and log.output != "stdout":
        yield Own(("log", "output"), Path(log.output), "the log")


def _table(raw: dict[str, Any], name: str) -> dict[str, Any]:
    table = raw.get(name)
    return table if isinstance(table, dict) else {}


Part = TypeVar("Part", bound=Table)


def _part(model: type[Part], table: object, folder: Path) -> Part | None:
    try:
        return model.model_validate(table, context=folder)
    except ValidationError:
        return None
