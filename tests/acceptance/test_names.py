"""Names that are not UTF-8, while the daemon runs: such a name ends the watcher's iterator."""

import base64
import os
from pathlib import Path

import pytest

from tests.acceptance.harness import RunningDaemon
from tests.acceptance.sites import Site
from tests.acceptance.trees import Known, Scene, agree, path_of, write, writing

ODD = b"odd \xff\xfe"
# Restarts for hundreds of odd names: each waits longer than the one before.
FEW = 20
FILL = """
import os, sys
root, count = os.fsencode(sys.argv[1]), int(sys.argv[2])
for number in range(count):
    with open(b"%s/f%d" % (root, number), "wb") as file:
        file.write(b"x" * (number % 7))
"""
# Ends when nobody listens any more; `fsync` is what keeps it going at the pace of the disk.
HOSTILE = """
import os, select, sys
root, count, turn = os.fsencode(sys.argv[1]), int(sys.argv[2]), 0
while turn < 1 or not select.select([0], [], [], 0)[0]:
    turn += 1
    for number in range(count):
        path = b"%s/\\xff\\xfe%d" % (root, number)
        if turn > 1:
            os.unlink(path)
        with open(path, "wb") as file:
            file.write(b"x" * (turn % 7))
            os.fsync(file.fileno())
"""


def below(root: Path, name: bytes) -> Path:
    return Path(os.fsdecode(os.fsencode(root) + b"/" + name))


@pytest.fixture
def daemon(site: Site) -> RunningDaemon:
    """A daemon whose one watch only tracks; no scan comes to the rescue while it is watched."""
    site.configure(site.watch(settle='quiet = "20ms"', reconcile="1h", poll="500ms"))
    for folder in ("odd", "plain"):
        (site.tree / folder).mkdir()
    return site.start().ready()


def test_an_odd_name_among_others_stops_nobody(site: Site, daemon: RunningDaemon) -> None:
    """Before and after it, beside it, and below a folder of such a name: all are done.

    Its line has the exact bytes, the others' have them not.
    """
    names = [b"before", ODD, b"beside", ODD + b"d/inside", ODD + b"d/" + ODD, b"after"]
    for name in names:
        below(site.tree, name).parent.mkdir(exist_ok=True)
        below(site.tree, name).write_bytes(name)
    assert agree(site, daemon).keys() == set(names)
    below(site.tree, ODD).write_bytes(b"changed")
    below(site.tree, ODD + b"d/inside").unlink()
    (site.tree / "last").touch()
    rows = agree(site, daemon)
    daemon.stop()
    assert rows.keys() == {*names, b"last"} - {ODD + b"d/inside"}
    assert rows[ODD].shown.size == len(b"changed")
    odd = [line for line in daemon.lines if "path" in line and path_of(line) == ODD]
    assert {line["path_b64"] for line in odd} == {base64.b64encode(ODD).decode()}
    assert {line["path"] for line in odd} == {r"odd \xff\xfe"}
    assert not [line for line in daemon.of("beside") if "path_b64" in line]


def test_a_burst_of_odd_names_beside_plain_ones(site: Site, daemon: RunningDaemon) -> None:
    """400 of these and 500 of those at full speed: all are done.

    The watcher is not restarted for each of the names: it waits ever longer, and scans find them.
    """
    with writing(FILL, site.tree / "plain", 500):
        write(HOSTILE, site.tree / "odd", 400)
    assert len(agree(site, daemon)) == 900
    daemon.stop()
    assert len(daemon.having("daemon.watcher_restarted")) < FEW


def test_odd_names_without_an_end_do_not_stop_the_others(site: Site, daemon: RunningDaemon) -> None:
    """A process makes and removes them all the while; plain files get done, batch after batch."""
    known = Known(daemon, b"plain/")
    with writing(HOSTILE, site.tree / "odd", 200):
        for number in range(1, 5):
            folder = site.tree / f"plain/{number}"
            folder.mkdir()
            write(FILL, folder, 125)
            known.await_done(125 * number)
    assert len(agree(site, daemon)) == 700
    daemon.stop()
    assert len(daemon.having("daemon.watcher_restarted")) < FEW


def test_a_file_that_gets_an_odd_name_keeps_its_row(site: Site) -> None:
    """A rename to such a name and back: `move`, with both paths exact, and no handler run."""
    scene = Scene(site)
    (number,) = scene.put("plain")
    (site.tree / "plain").rename(below(site.tree, ODD))
    scene.await_rows({os.fsdecode(ODD): number})
    below(site.tree, ODD).rename(site.tree / "again")
    scene.await_rows({"again": number})
    assert scene.handled() == []
    there, back = scene.daemon.having("move", file_id=number)
    assert there["path_b64"] == back["old_path_b64"] == base64.b64encode(ODD).decode()
    assert (there["old_path"], back["path"]) == ("plain", "again")
    assert scene.events("again")[-2:] == ["move", "move"]
