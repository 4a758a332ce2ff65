"""Whether what stands where files are taken is the archive that is known."""

import pytest
from msgspec.structs import replace

from daemon.core.archives import strangeness
from daemon.core.removals import UNKNOWN, Mark

DISK = Mark(dev=2049, ino=2, born=10, kind="ext4", point="/mnt/a", boot="b-1")
NAMED = replace(DISK, fsid=7)
BELOW = replace(DISK, dev=2048, ino=9_000, born=5, point="/")
XFS = Mark(dev=5, ino=128, born=10, kind="xfs", point="/mnt/a", boot="b-1", fsid=5)
SHARE = Mark(dev=50, ino=2, born=0, kind="nfs4", point="/mnt/a", boot="b-1")
STICK = Mark(dev=2065, ino=1, born=0, kind="vfat", point="/mnt/a", boot="b-1")
SSH = Mark(dev=60, ino=17, born=0, kind="fuse.sshfs", point="/mnt/a", boot="b-1")
MEMORY = Mark(dev=30, ino=1, born=3, kind="tmpfs", point="/run", boot="b-1")


@pytest.mark.parametrize(
    ("known", "found"),
    [
        pytest.param(DISK, DISK, id="untouched"),
        pytest.param(DISK, replace(DISK, dev=2081), id="another number of the device"),
        pytest.param(DISK, replace(DISK, dev=2081, boot="b-2"), id="after a restart"),
        pytest.param(DISK, replace(DISK, point="/"), id="seen through another mount"),
        pytest.param(SHARE, replace(SHARE, dev=51), id="a share, mounted on demand once more"),
        pytest.param(STICK, replace(STICK, dev=2081), id="without births, plugged in again"),
        pytest.param(SHARE, replace(SHARE, born=7), id="births known since"),
        pytest.param(DISK, replace(DISK, kind=UNKNOWN, point="", boot=""), id="no /proc"),
        pytest.param(NAMED, replace(NAMED, dev=9, kind="ext4", boot="b-2"), id="named, restarted"),
        pytest.param(XFS, replace(XFS, dev=9, fsid=9), id="named by its number, which is another"),
        pytest.param(DISK, replace(DISK, ino=3, born=11), id="made anew"),
        pytest.param(DISK, replace(DISK, born=11), id="made anew, with the same inode"),
        pytest.param(SSH, replace(SSH, dev=61, ino=18), id="FUSE, numbered anew"),
        pytest.param(SSH, replace(SSH, dev=61, ino=18, boot="b-2"), id="FUSE, after a restart"),
        pytest.param(MEMORY, replace(MEMORY, dev=31, born=4, boot="b-2"), id="memory, restarted"),
    ],
)
def test_the_known_one(known: Mark, found: Mark) -> None:
    """Wherever and whenever it is mounted, and where it was made anew on the same file system."""
    assert strangeness(known, found) is None


NOTHING = "nothing is mounted at '/mnt/a'"


@pytest.mark.parametrize(
    ("known", "found", "said"),
    [
        pytest.param(DISK, BELOW, NOTHING, id="unmounted"),
        pytest.param(DISK, replace(BELOW, boot="b-2"), NOTHING, id="after a restart"),
        pytest.param(replace(DISK, ino=70), BELOW, NOTHING, id="a folder on it"),
        pytest.param(replace(BELOW, ino=7, point="/mnt/a"), BELOW, NOTHING, id="bound, same disk"),
        pytest.param(SHARE, BELOW, f"{NOTHING}, where nfs4 was", id="a share"),
        pytest.param(replace(SHARE, ino=BELOW.ino), BELOW, NOTHING, id="a share, same inode"),
        pytest.param(SSH, replace(BELOW, ino=17), NOTHING, id="FUSE"),
        pytest.param(DISK, replace(DISK, dev=9, born=11), "another file system", id="other disk"),
        pytest.param(DISK, replace(DISK, born=11, boot="b-2"), "another", id="other, restarted"),
        pytest.param(NAMED, replace(NAMED, fsid=8), "another", id="formatted at the same time"),
        pytest.param(DISK, replace(DISK, born=11, boot=""), "another", id="boot not known"),
        pytest.param(DISK, replace(DISK, fsid=9, born=11), "another", id="other, same number"),
        pytest.param(
            DISK, replace(MEMORY, point="/mnt/a"), "tmpfs is there now", id="mounted over"
        ),
        pytest.param(
            MEMORY, replace(BELOW, boot="b-2"), "nothing is mounted at '/run'", id="memory"
        ),
    ],
)
def test_another(known: Mark, found: Mark, said: str) -> None:
    """Another file system, and what is below an unmounted one, is told from the known one."""
    reason = strangeness(known, found)
    assert reason is not None
    assert said in reason


def test_mounted_in_between() -> None:
    """What was mounted since is another file system, though it has the number of the known one."""
    other = replace(DISK, born=11)
    assert strangeness(DISK, other, remounted=True) is not None
    assert strangeness(DISK, DISK, remounted=True) is None
