"""What can be known of one file: its row, its last transition, the disk, and who looks after it."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from daemon.cli.checks.folders import examine_base
from daemon.cli.places import Place
from daemon.cli.writers import writers_of
from daemon.config import Watch, load
from daemon.config_after import base_of
from daemon.core.model import Fingerprint, Key, Record, Row
from daemon.core.policy import Matcher
from daemon.core.removals import read_mark
from daemon.core.settle import Condition, Look
from daemon.core.targets import Target
from daemon.engine.clock import now_us
from daemon.engine.detection import Detection
from daemon.engine.disk import Question, look_at
from daemon.engine.filesystems import must_poll
from daemon.engine.identity import RootId, find_root
from daemon.engine.names import Names
from daemon.engine.sight import is_closed
from daemon.engine.standing import Standing, heard
from daemon.engine.waiting import speaks_for, waits_for
from daemon.errors import ConfigError
from daemon.locate import ANSWER_SECONDS, within
from daemon.store.holder import holder_pid
from daemon.store.inspect import Inspection


class Evidence(NamedTuple):
    """All that an explanation rests on. `watch` is None where nothing is known of its settings.

    A `look` is of the kind `nowhere` where the watch is no longer configured. `frozen`: why
    removals of the watch wait, None while they do not. `standing`: of the step that it waits for.
    `hindrance`: what keeps a quarantined file from being taken aside, as far as this user can see.
    """

    key: Key
    watch: Watch | None
    row: Row | None
    last: Record | None
    look: Look
    frozen: str | None
    conditions: list[Condition]
    now: int
    standing: Standing = Standing()
    hindrance: str | None = None

    @property
    def is_there(self) -> bool:
        """Something stands at the path, or it cannot be told."""
        return self.look.kind not in {"absent", "nowhere"}

    @property
    def is_over(self) -> bool:
        """It is a manifest, and its set has settled."""
        sets = [one.inventory for one in self.conditions if one.inventory is not None]
        return self.row is None and bool(sets) and all(one.is_over for one in sets)

    @property
    def changed(self) -> bool:
        """The disk shows another content than the row."""
        if self.look.seen is None or self.row is None or self.row.seen is None:
            return False
        return self.look.seen.content != self.row.seen.content


class Scene(NamedTuple):
    """What is the same for all files. `refused`: why the configuration cannot be used, if so."""

    place: Place
    watches: dict[str, Watch]
    refused: str | None
    running: bool


def look_around(config: Path, place: Place) -> Scene:
    """Who runs, and with which settings: some may be refused by now, and a root be missing."""
    running = holder_pid(place.state_dir) is not None
    try:
        return Scene(place, {watch.name: watch for watch in load(config).watch}, None, running)
    except ConfigError as error:
        return Scene(place, {}, str(error.problems[0]), running)


def gather(scene: Scene, inspection: Inspection, key: Key) -> Evidence:
    """Ask the database, and then the disk, which is what changes."""
    watch, root = scene.watches.get(key.watch), scene.place.roots.get(key.watch)
    row = inspection.find(key)
    history = inspection.history(row.id) if row else []
    look = _look(root, key) if root else Look("nowhere")
    conditions = _conditions(inspection, watch, key, row, look) if watch else []
    last = history[-1] if history else None
    frozen = _frozen(inspection, key.watch)
    standing = _standing(inspection, row) if row else Standing()
    hindrance = _hindrance(inspection, watch, row) if watch and row else None
    return Evidence(key, watch, row, last, look, frozen, conditions, now_us(), standing, hindrance)


def _hindrance(inspection: Inspection, watch: Watch, row: Row) -> str | None:
    """What is wrong with the folder that `on_quarantine` has for a file."""
    aside = watch.on_quarantine
    if row.state != "quarantined" or aside is None or row.seen is None:
        return None
    with suppress(ValueError):
        folder = Path(os.fsdecode(Target(aside.move).of(row.key, row.seen))).parent
        base = base_of(aside.move, watch.name)
        found = examine_base("", base, read_mark(inspection.archive(bytes(base))), folder)
        return None if found.level == "ok" else f"{found.detail}; {found.remedy}"
    return None


def _standing(inspection: Inspection, row: Row) -> Standing:
    with suppress(KeyError, msgspec.MsgspecError):
        return heard(inspection.steps()[row.key.watch])[row.step or ""]
    return Standing()


def _frozen(inspection: Inspection, watch: str) -> str | None:
    with suppress(KeyError, msgspec.MsgspecError):
        return Detection.heard(inspection.detections()[watch]).frozen
    return None


def _look(root: bytes, key: Key) -> Look:
    """What stands at the path; where the root is away nothing is absent."""
    found: list[Look] = []

    def ask() -> None:
        there = find_root(root)
        here = there if isinstance(there, RootId) else None
        found.append(look_at(Question(root + b"/" + key.path, here)))

    try:
        within(ANSWER_SECONDS, ask)
    except TimeoutError:
        return Look("error", error="its file system does not answer")
    return found[0]


def _conditions(
    inspection: Inspection, watch: Watch, key: Key, row: Row | None, look: Look
) -> list[Condition]:
    """What has to be so before a file, or the set of a manifest, has settled, each by itself."""

    def rows(path: bytes) -> Row | None:
        return inspection.find(Key(watch.name, path))

    if look.seen is None:
        return []
    if row is None:
        return speaks_for(watch, key.path, rows)
    if row.state != "settling":
        return []
    found = [_quiet(watch, row, look.seen)]
    if watch.settle.writers == "probe":
        found.append(_closed(watch.root + b"/" + key.path, look.seen))
    return found + waits_for(watch, key.path, rows)


def _quiet(watch: Watch, row: Row, seen: Fingerprint) -> Condition:
    """By the file's times where the daemon goes by them; else by when it will look again."""
    now, quiet = now_us(), watch.settle.quiet
    last = max(seen.mtime_ns, seen.ctime_ns) // 1000
    if last <= now and not must_poll(watch.mode, watch.root):
        since, left = (now - last) / 1e6, quiet - (now - last) / 1e6
    else:
        since, left = (now - row.at) / 1e6, ((row.due_at or now) - now) / 1e6
    if left > 0:
        more = f"of the {quiet:g} s that are asked for: {left:.1f} s to go"
    else:
        more = f"and {quiet:g} s are asked for"
    words = f"It is unchanged for {since:.1f} s, {more}."
    return Condition("quiet", satisfied=left <= 0, sentence=words)


def _closed(path: bytes, seen: Fingerprint) -> Condition:
    closed = is_closed(path, seen)
    if closed is None:
        words = "Whether it is open for writing cannot be known here: the quiet time decides."
    elif closed:
        words = "Nobody has it open for writing."
    else:
        words = f"It is open for writing{_by_whom(seen)}."
    return Condition("closed", closed, words)


def _by_whom(seen: Fingerprint) -> str:
    who = [f"pid {writer.pid} ({writer.name})" for writer in writers_of(seen)]
    return f" by {', '.join(who)}" if who else ", or mapped, by a process that cannot be seen here"


def refused_by(watch: Watch, path: bytes) -> str | None:
    """Why the watch never takes a file of this name."""
    names = Names(watch)
    if names.is_marker(path):
        return "It is a marker: it speaks for another file, and is none to its watch."
    if names.is_manifest(path):
        return "It is a manifest: it speaks for the files that it lists, and is none to its watch."
    if names.matcher.wants(path):
        return None
    if Matcher((), watch.exclude).wants(path):
        return "No pattern of `include` fits it."
    alone = (p for p in reversed(watch.exclude) if not Matcher((), [p]).wants(path))
    return f"The pattern {next(alone, '')!r} of `exclude` keeps it, or its folder, out."
