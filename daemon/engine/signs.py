"""Markers and manifests on the disk, and what they say. All of it blocks, and runs in threads."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from daemon.core.manifest import Fault, Member
from daemon.core.model import Fingerprint, Key
from daemon.core.texts import shown
from daemon.engine.disk import seen_at
from daemon.engine.listing import ABSENT
from daemon.engine.names import Names

Members = dict[bytes, Member]


class UsedUp(NamedTuple):
    """A marker whose file has settled, at a path below the root, as it was seen."""

    tree: Names
    path: bytes
    seen: Fingerprint

    @property
    def key(self) -> Key:
        """What names it."""
        return Key(self.tree.name, self.path)


def remove(markers: Iterable[UsedUp]) -> list[tuple[UsedUp, OSError]]:
    """Remove those that are still the ones that were seen; which the kernel would not, and why.

    Another that has come meanwhile is that of the next delivery.
    """
    refused = []
    for marker in markers:
        path = marker.tree.absolute(marker.path)
        if seen_at(path) != marker.seen:
            continue
        try:
            os.unlink(path)  # noqa: PTH108 - a path of bytes
        except OSError as error:
            if error.errno not in ABSENT:
                refused.append((marker, error))
    return refused


def subjects(markers: Sequence[UsedUp]) -> dict[Key, list[tuple[Key, Fingerprint]]]:
    """The files that are there for which each of the markers speaks.

    One listing a directory, however many of its markers are asked about.
    """
    found: dict[Key, list[tuple[Key, Fingerprint]]] = {each.key: [] for each in markers}
    folders = {Key(each.tree.name, each.key.directory): each.tree for each in markers}
    for folder, tree in folders.items():
        for path in _paths(tree, folder.path):
            marker = Key(tree.name, tree.marker.marker_of(path) if tree.marker else b"")
            if marker in found and tree.wants(path) and (seen := seen_at(tree.absolute(path))):
                found[marker].append((Key(tree.name, path), seen))
    return found


def manifests(tree: Names, directory: bytes) -> dict[bytes, Fingerprint]:
    """The manifests in a directory, by their paths below the root."""
    paths = filter(tree.is_manifest, _paths(tree, directory))
    return {path: seen for path in paths if (seen := seen_at(tree.absolute(path)))}


def parse(tree: Names, path: bytes, content: bytes) -> Members | Fault:
    """What a manifest says, 10,000 members in 60 ms; a fault where no such set could ever settle.

    Blocks.
    """
    if tree.manifests is None:
        return {}
    members = tree.manifests.read(path, content)
    if isinstance(members, Fault):
        return members
    for member in members:
        if not tree.wants(member.path):
            return Fault(member.line, f"'{shown(member.path)}' is no file that this watch takes")
    return {member.path: member for member in members}


def upwards(path: bytes) -> Iterable[bytes]:
    """The directory that holds a file and those above, up to the root."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _paths(tree: Names, directory: bytes) -> Iterator[bytes]:
    """What a directory holds; nothing where it cannot be read, which a scan will say."""
    prefix = directory + b"/" if directory else b""
    with suppress(OSError), os.scandir(tree.absolute(directory)) as entries:
        yield from (prefix + entry.name for entry in entries)
