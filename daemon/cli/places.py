"""Where a configuration says that things are, and which files a path may mean."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import click

from daemon import locate
from daemon.config_names import ON_DONE
from daemon.core.model import Key
from daemon.locate import DATABASE
from daemon.store.inspect import Inspection

_LISTS = ("step", "removed")


class Place(NamedTuple):
    """What the configuration says of places and names: `roots` and `steps` by the watch's name."""

    state_dir: Path
    roots: dict[str, bytes]
    steps: dict[str, list[str]]

    @property
    def database(self) -> Path:
        """The file that the daemon writes."""
        return self.state_dir / DATABASE


def find_place(config: Path) -> Place:
    """From a configuration that may be wrong elsewhere, the parts that matter here."""
    raw = locate.read_toml(config)
    folder = config.absolute().parent
    watches = [watch for watch in _tables(raw.get("watch")) if _is_named(watch)]
    names = [watch["name"] for watch in watches]
    paths = locate.resolved([folder / watch["path"] for watch in watches])
    roots = dict(zip(names, map(os.fsencode, paths), strict=True))
    steps = {watch["name"]: _step_names(watch) for watch in watches}
    return Place(locate.state_dir(raw, config), roots, steps)


def _step_names(watch: dict[str, Any]) -> list[str]:
    steps = [str(step.get("name")) for key in _LISTS for step in _tables(watch.get(key))]
    return [*steps, ON_DONE] if ON_DONE in watch else steps


def _tables(value: object) -> list[dict[str, Any]]:
    return [e for e in value if isinstance(e, dict)] if isinstance(value, list) else []


def _is_named(watch: dict[str, Any]) -> bool:
    name, path = watch.get("name"), watch.get("path")
    return isinstance(name, str) and isinstance(path, str) and "\0" not in path


def all_watches(place: Place, inspection: Inspection) -> list[str]:
    """The configured watches, and after them those that the database still knows."""
    return list(dict.fromkeys([*place.roots, *inspection.watches()]))


def expect_watches(place: Place, inspection: Inspection, names: Iterable[str]) -> None:
    """Every name must be one of a watch.

    Raises:
        click.UsageError: one is not.
    """
    known = all_watches(place, inspection)
    for name in names:
        if name not in known:
            raise click.UsageError(f"no watch {name!r}; there are: {', '.join(known) or 'none'}")


def keys_of(place: Place, watches: Iterable[str], path: str) -> list[Key]:
    """Every file that a path may mean: one that is relative starts at a watch, or where we are."""
    if path.startswith("/"):
        return _keys_at(place, watches, path)
    below = os.fsencode(os.path.normpath(path))
    # What leads upwards starts at no watch.
    found = [] if below.startswith(b"../") else [Key(watch, below) for watch in watches]
    with suppress(FileNotFoundError):  # the folder that we are in was removed
        found += _keys_at(place, watches, os.path.abspath(path))  # noqa: PTH100 - resolves no link
    return list(dict.fromkeys(found))


def _keys_at(place: Place, watches: Iterable[str], path: str) -> list[Key]:
    roots = [(watch, place.roots[watch]) for watch in watches if watch in place.roots]
    return [
        Key(watch, spelling.removeprefix(root + b"/"))
        for watch, root in roots
        for spelling in _spellings(path)
        if spelling.startswith(root + b"/")
    ]


def _spellings(path: str) -> set[bytes]:
    """As written, and past links above it: the file may be gone, so its own name is kept."""
    folder, name = os.path.split(os.path.normpath(path))
    (past_links,) = locate.resolved([Path(folder)])
    return {os.fsencode(Path(folder, name)), os.fsencode(Path(past_links, name))}
