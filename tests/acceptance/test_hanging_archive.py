"""An archive that hangs, like a server that is away: what goes there waits, and only that."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import DEADLINE, PROJECT, RunningDaemon
from tests.acceptance.mounts import Mounts, needs_fuse, private_mounts
from tests.acceptance.sites import Site

pytestmark = needs_fuse

# Each has a thread that hangs: together more than those that all of a loop share.
FILES = [f"{watch}{number}.csv" for watch in "abc" for number in range(4)]
LOADED = '[[watch.step]]\nname = "load"\ncommand = ["cat"]\nstdin = "file"'
REFUSED = '[[watch.step]]\nname = "load"\ncommand = ["sh", "-c", "exit 65"]'


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    with private_mounts() as mounts:
        yield mounts


def watch(name: str, *keys: str, step: str = "") -> str:
    settle = '[watch.settle]\nquiet = "50ms"'
    head = f'[[watch]]\nname = "{name}"\npath = "{name}"\ncreate = true'
    return "\n".join((head, *keys, settle, step))


def configure(site: Site) -> Path:
    """Watches `a`, `b` and `c` lead to the archive, `here` leads elsewhere, `steps` nowhere."""
    for name in ("archive", "near"):
        (site.folder / name).mkdir()
    move = '{ move = "archive/{relpath}" }'
    watches = (
        watch("a", f"on_done = {move}"),
        watch("b", f"on_done = {move}"),
        watch("c", f"on_quarantine = {move}", step=REFUSED),
        watch("here", 'on_done = { move = "near/{relpath}" }'),
        watch("steps", step=LOADED),
    )
    site.configure("\n".join(watches), daemon='drain = "200ms"')
    return site.folder / "archive"


def assert_others_go_on(site: Site, daemon: RunningDaemon, name: str) -> None:
    """What is not for the archive is found, handled and taken away."""
    (site.folder / "here" / name).write_text("content")
    (site.folder / "steps" / name).write_text("content")
    daemon.line("succeed", watch="here", path=name, to_state="gone")
    daemon.line("succeed", watch="steps", path=name, to_state="done")


def assert_all_is_taken(site: Site, daemon: RunningDaemon, archive: Path) -> None:
    """Each file is in the archive once, and has its line."""
    for name in FILES:
        event = "vanish" if name.startswith("c") else "succeed"
        line = daemon.line(event, path=name, to_state="gone")
        assert line["target"] == str(archive / name)
    found = sorted(path.name for path in archive.iterdir() if path.suffix == ".csv")
    assert found == FILES
    assert [*site.folder.glob("[abc]/*")] == []


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_others_go_on(site: Site, mounts: Mounts, end: str) -> None:
    """Others are handled, while it runs and after a start; and a stop does not wait."""
    archive = configure(site)
    daemon = site.start(wrapper=mounts.wrapper).ready()
    with mounts.hanging(archive):
        for name in FILES:
            (site.folder / name[0] / name).write_text("content")
        daemon.nth(8, "start", step="on_done")
        daemon.nth(4, "reject")
        assert_others_go_on(site, daemon, "x")
        getattr(daemon, end)()
        daemon = site.start(wrapper=mounts.wrapper).ready()
        assert_others_go_on(site, daemon, "y")
        getattr(daemon, end)()
    daemon = site.start(wrapper=mounts.wrapper).ready()
    assert_all_is_taken(site, daemon, archive)
    daemon.stop()


def test_check(site: Site, mounts: Mounts) -> None:
    """`check` says which archive does not answer."""
    archive = configure(site)
    with mounts.hanging(archive):
        argv = [*mounts.wrapper, *site.command("check", "--config", str(site.config))]
        said = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=DEADLINE, cwd=PROJECT
        )
    assert said.returncode == 78, said.stderr
    assert said.stdout.count(f"'{archive}' does not answer") == 3
