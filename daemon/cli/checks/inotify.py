"""inotify's limits against what the watched trees need; see inotify(7).

A watcher that runs into a limit while it runs says nothing: it reports 8 of 30 new folders, and
the scan finds the others when its time comes.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from daemon.cli.checks import Finding, quoted
from daemon.engine.inotify import enough

_PROC = Path("/proc")
_LIMITS = _PROC / "sys" / "fs" / "inotify"
# Trees grow, and other programs of this user draw on the same limit.
_FULL = 0.8


class Extent(NamedTuple):
    """How many directories are under some roots, and which of them could not be read."""

    directories: int
    unreadable: list[bytes]


class Usage(NamedTuple):
    """What the processes of one user hold, as far as this process may see."""

    instances: int
    watches: int


def extent_of(root: bytes) -> Extent:
    """Count directories without a stat: the listing tells what is one. Links are not followed."""
    waiting, count, unreadable = [root], 0, []
    while waiting:
        directory = waiting.pop()
        count += 1
        try:
            with os.scandir(directory) as entries:
                waiting += [e.path for e in entries if e.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            count -= 1
        except OSError:
            unreadable.append(directory)
    return Extent(count, unreadable)


def usage_of(uid: int, without: int | None, proc: Path = _PROC) -> Usage:
    """What a user's processes hold now, except for the process `without`."""
    with os.scandir(proc) as entries:
        held = [
            watches
            for process in entries
            if process.name.isdecimal() and int(process.name) != without
            for watches in _watches_of(process, uid)
        ]
    return Usage(len(held), sum(held))


def _watches_of(process: os.DirEntry[str], uid: int) -> Iterator[int]:
    """The watches of each inotify instance. Processes end, and some are not ours to see."""
    with suppress(OSError):
        if process.stat().st_uid != uid:
            return
        with os.scandir(f"{process.path}/fd") as links:
            for link in links:
                with suppress(OSError):
                    # There are thousands, and a Path for each would double the time.
                    if os.readlink(link.path) == "anon_inode:inotify":  # noqa: PTH115
                        told = Path(process.path, "fdinfo", link.name).read_bytes()
                        yield told.count(b"inotify ")


def examine_limits(
    roots: Sequence[bytes], extents: Iterable[Extent], used: Usage, limits: Path = _LIMITS
) -> Iterator[Finding]:
    """Whether the watchers of these roots fit beside what is in use."""
    watches = sum(extent.directories for extent in extents)
    yield _compare("max_user_watches", watches, used.watches, limits)
    # One more tells the daemon of requests.
    yield _compare("max_user_instances", len(roots) + 1, used.instances, limits)


def examine_extent(name: str, extent: Extent) -> Finding:
    """Whether all of a tree can be entered."""
    what = f"{name}.tree"
    count = f"{extent.directories} director{'y' if extent.directories == 1 else 'ies'}"
    if not extent.unreadable:
        return Finding("ok", what, count)
    first = quoted(extent.unreadable[0])
    detail = f"{count}, of which {len(extent.unreadable)} cannot be read, such as {first}"
    return Finding("warning", what, detail, "let the daemon's user read and enter them")


def _compare(limit: str, needed: int, used: int, limits: Path) -> Finding:
    what = f"fs.inotify.{limit}"
    try:
        allowed = int((limits / limit).read_text())
    except (OSError, ValueError):
        return Finding("warning", what, "cannot be read", "set mode = 'poll' if inotify is missing")
    wanted = needed + used
    detail = f"allowed {allowed}, needed {needed}, in other use by this user {used}"
    if wanted <= allowed * _FULL:
        return Finding("ok", what, detail)
    remedy = f"sysctl {what}={enough(wanted, allowed)}, and the same in /etc/sysctl.d"
    return Finding("error" if wanted > allowed else "warning", what, detail, remedy)
