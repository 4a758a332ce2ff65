"""The folders that a configuration names, compared with the disk and with each other.

A tree that holds the daemon's own files would hand it its own writes as news, for ever; opening and
closing the database as if it were a file to process would even drop SQLite's locks.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

from daemon import locate
from daemon.config_after import base_of
from daemon.config_report import Finding, dotted
from daemon.errors import ConfigError, Location


class Tree(NamedTuple):
    """A watched folder; all paths here are absolute and without symbolic links."""

    at: Location
    path: Path
    create: bool


class Own(NamedTuple):
    """A place that the daemon writes to. Nothing may be watched inside one that is `private`."""

    at: Location
    path: Path
    what: str
    private: bool = False


def resolve(raw: dict[str, Any], file: Path) -> None:
    """Turn what names a place into a `Path`, absolute and without symbolic links.

    Also the daemon's own folders, where the environment names them. What cannot be a path stays,
    for its reader to refuse.
    """
    for _, watch in tables(raw.get("watch")):
        for _, step in (*tables(watch.get("step")), *tables(watch.get("removed"))):
            _resolve_step(step, file)
    _resolve_what_may_hang(raw, file)
    if _table(raw, "log").get("output") != "stdout":
        _resolve_key(_table(raw, "log"), "output", file)
    _resolve_socket(_table(raw, "metrics"), file)
    raw.setdefault("daemon", {})
    for key, find in (("state_dir", locate.state_dir), ("runtime_dir", locate.given_runtime_dir)):
        with suppress(ConfigError):
            if path := find(raw, file):
                raw["daemon"][key] = path


def _resolve_key(table: dict[str, Any], key: str, file: Path) -> None:
    if path := locate.placed(table.get(key), file):
        table[key] = path


def _resolve_what_may_hang(raw: dict[str, Any], file: Path) -> None:
    """A tree or an archive on a file system that hangs keeps nobody from starting."""
    watches = [watch for _, watch in tables(raw.get("watch"))]
    tried = [(watch, "path") for watch in watches]
    tried += [
        (_table(watch, key), "move") for key in ("on_done", "on_quarantine") for watch in watches
    ]
    written = [
        (table, key, path) for table, key in tried if (path := locate.written(table.get(key), file))
    ]
    if written:
        answers = locate.resolved([path for _, _, path in written])
        for (table, key, _), answer in zip(written, answers, strict=True):
            table[key] = answer


def _resolve_step(step: dict[str, Any], file: Path) -> None:
    for key in ("cwd", "ca", "cert", "key"):
        _resolve_key(step, key, file)
    if step.get("output") != "log":
        _resolve_key(step, "output", file)
    _resolve_all(step, "path", file)
    _resolve_key(_table(step, "secret"), "file", file)


def _resolve_all(table: dict[str, Any], key: str, file: Path) -> None:
    if isinstance(written := table.get(key), list):
        table[key] = [locate.placed(each, file) or each for each in written]


def _resolve_socket(table: dict[str, Any], file: Path) -> None:
    """`unix:` and a path become the path alone, which no other form of an address is."""
    written = table.get("listen")
    if isinstance(written, str) and written.startswith("unix:"):
        table["listen"] = locate.placed(written.removeprefix("unix:"), file) or written


def derive_runtime_dir(raw: dict[str, Any], file: Path) -> None:
    """Add a runtime folder that nothing names, once it is known whether its state folder is wrong.

    That is one problem then, and not two.
    """
    own = _table(raw, "daemon")
    try:
        own.setdefault("runtime_dir", locate.runtime_dir(raw, file))
    except ConfigError:
        if "state_dir" in own:
            own.setdefault("runtime_dir", Path(os.devnull))


def misplaced(raw: dict[str, Any]) -> Iterator[Finding]:
    """Everything that is wrong with where the folders are, whatever else is in their tables."""
    trees = list(_trees(raw))
    for tree in trees:
        yield from _absent(tree)
    for at, step in _steps(raw):
        if isinstance(cwd := step.get("cwd"), Path):
            yield from _absent(Tree((*at, "cwd"), cwd, create=False))
    for first, second in combinations(trees, 2):
        yield from _overlap(first, second)
    for tree, place in product(trees, _own(raw)):
        yield from _mixed(tree, place)
    for index, watch in tables(raw.get("watch")):
        yield from _returning(("watch", index), watch)


def tables(value: object) -> list[tuple[int, dict[str, Any]]]:
    """What of an array of tables is one, with its index."""
    entries = value if isinstance(value, list) else []
    return [(index, entry) for index, entry in enumerate(entries) if isinstance(entry, dict)]


def _table(raw: dict[str, Any], name: str) -> dict[str, Any]:
    table = raw.get(name)
    return table if isinstance(table, dict) else {}


def _trees(raw: dict[str, Any]) -> Iterator[Tree]:
    for index, watch in tables(raw.get("watch")):
        if isinstance(path := watch.get("path"), Path):
            yield Tree(("watch", index, "path"), path, watch.get("create") is True)


def _own(raw: dict[str, Any]) -> Iterator[Own]:
    for table, key, what in (
        ("daemon", "state_dir", "the state folder"),
        ("daemon", "runtime_dir", "the runtime folder"),
        ("log", "output", "the log"),
        ("metrics", "listen", "the socket of the metrics"),
    ):
        if isinstance(path := _table(raw, table).get(key), Path):
            yield Own((table, key), path, what, private=key == "state_dir")
    for at, step in _steps(raw):
        if isinstance(path := step.get("output"), Path):
            yield Own((*at, "output"), path, "the output of a step")


def _steps(raw: dict[str, Any]) -> Iterator[tuple[Location, dict[str, Any]]]:
    for watch_index, watch in tables(raw.get("watch")):
        for key in ("step", "removed"):
            for index, step in tables(watch.get(key)):
                yield ("watch", watch_index, key, index), step


def _absent(tree: Tree) -> Iterator[Finding]:
    if isinstance(tree.path, locate.Unanswered):  # the daemon begins without it, and says so
        return
    try:
        mode = tree.path.stat().st_mode
    except FileNotFoundError:
        if not tree.create:
            remedy = "create it" + (", or set create = true" if tree.at[-1] == "path" else "")
            yield Finding(tree.at, f"there is no folder {_shown(tree.path)}", remedy)
    except OSError as error:
        found = f"{_shown(tree.path)} cannot be looked at: {error.strerror}"
        yield Finding(tree.at, found, "name a folder that can be read")
    else:
        if not stat.S_ISDIR(mode):
            yield Finding(tree.at, f"{_shown(tree.path)} is not a folder", "name a folder")


def _overlap(first: Tree, second: Tree) -> Iterator[Finding]:
    if first.path.is_relative_to(second.path) or second.path.is_relative_to(first.path):
        found = f"{_shown(second.path)} overlaps with {_shown(first.path)}, {dotted(first.at)}"
        yield Finding(second.at, found, "watch folders of which none is inside another")


def _mixed(tree: Tree, own: Own) -> Iterator[Finding]:
    if own.path.is_relative_to(tree.path):
        found = f"{own.what} {_shown(own.path)} is inside the watched folder {_shown(tree.path)}"
        yield Finding(own.at, found, "put it outside of every watched folder")
    elif own.private and tree.path.is_relative_to(own.path):
        found = f"{_shown(tree.path)} is inside {own.what} {_shown(own.path)}"
        yield Finding(tree.at, found, "watch a folder outside of it")


def _returning(at: Location, watch: dict[str, Any]) -> Iterator[Finding]:
    """A file that is taken away into the tree that it comes from would come back for ever."""
    tree, name = watch.get("path"), watch.get("name")
    for key in ("on_done", "on_quarantine"):
        move = _table(watch, key).get("move")
        if not isinstance(move, Path) or not isinstance(tree, Path):
            continue
        base = base_of(os.fspath(move), name if isinstance(name, str) else "")
        if base.is_relative_to(tree) and not _is_excluded(watch, base.relative_to(tree)):
            found = f"{_shown(base)} is inside the watched folder {_shown(tree)}"
            yield Finding((*at, key, "move"), found, "name one outside, or put it into `exclude`")
        elif tree.is_relative_to(base):
            found = f"it may lead into the watched folder {_shown(tree)}"
            remedy = "name a folder before the first placeholder that holds no watched one"
            yield Finding((*at, key, "move"), found, remedy)


def _is_excluded(watch: dict[str, Any], folder: Path) -> bool:
    """Whether `exclude` keeps a folder out, or one above it. Faulty patterns are not ours."""
    # Imported here: without a place inside of its own tree no start need wait for it.
    from pathspec import GitIgnoreSpec  # noqa: PLC0415

    patterns = watch.get("exclude")
    try:
        spec = GitIgnoreSpec.from_lines(patterns if isinstance(patterns, list) else [])
    except (TypeError, ValueError):
        return True
    folders = (folder, *folder.parents)
    return any(spec.match_file(f"{each.as_posix()}/") for each in folders if each.name)


def _shown(path: Path) -> str:
    return repr(os.fspath(path))
