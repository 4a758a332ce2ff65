"""Which manifests are known of a directory."""

import asyncio
import threading
from pathlib import Path

import pytest

from daemon.config import Settle, Watch
from daemon.core.model import Fingerprint, Key
from daemon.engine.catalog import Catalog
from daemon.engine.disk import fingerprint
from daemon.engine.signs import manifests
from daemon.engine.trees import Tree


async def test_heard_of_while_its_directory_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest that a listing came past, and that was heard of meanwhile, is known after it."""
    tree = Tree(Watch(name="w", path=tmp_path, settle=Settle(manifest="*.manifest")))
    catalog = Catalog()
    loop = asyncio.get_running_loop()

    def listing(tree: Tree, directory: bytes) -> dict[bytes, Fingerprint]:
        found = manifests(tree, directory)
        path = tmp_path / "late.manifest"
        path.write_text("a\n")
        heard = threading.Event()

        def hear() -> None:
            catalog.note(Key("w", b"late.manifest"), fingerprint(path.lstat()))
            heard.set()

        loop.call_soon_threadsafe(hear)
        assert heard.wait(20)
        return found

    monkeypatch.setattr("daemon.engine.catalog.manifests", listing)
    try:
        assert [path for path, _ in await catalog.above(tree, b"a", 0)] == [b"late.manifest"]
    finally:
        await catalog.close()
        await tree.disk.close()
