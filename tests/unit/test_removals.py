"""When what is missing may be taken for removed: the root's identity, and the share."""

import pytest
from msgspec.structs import replace

from daemon.core.removals import FEW, Mark, judge, too_many

DISK = Mark(dev=65024, ino=40, born=1_700_000_000_000_000_000, kind="ext4", point="/", boot="b-1")
UNBORN = replace(DISK, born=0)
SHARE = Mark(dev=50, ino=2, born=0, kind="nfs4", point="/srv", boot="b-1")
MEMORY = Mark(dev=30, ino=7, born=5, kind="tmpfs", point="/run", boot="b-1")


@pytest.mark.parametrize(
    ("known", "found", "remounted"),
    [
        pytest.param(DISK, DISK, False, id="untouched"),
        pytest.param(UNBORN, UNBORN, False, id="without birth times"),
        pytest.param(DISK, replace(DISK, point="/mnt"), True, id="mounted elsewhere"),
        pytest.param(DISK, replace(DISK, dev=99), True, id="plugged in again, another number"),
        pytest.param(DISK, replace(DISK, boot="b-2", dev=99), False, id="after a restart"),
        pytest.param(SHARE, replace(SHARE, boot="b-2", dev=51), False, id="share, restarted"),
        pytest.param(UNBORN, DISK, False, id="births known since"),
        pytest.param(replace(DISK, boot=""), DISK, False, id="boot not known"),
    ],
)
def test_same(known: Mark, found: Mark, remounted: bool) -> None:  # noqa: FBT001
    """Inode and birth tell a directory wherever it is mounted; without a birth it must stay."""
    assert judge(known, found, remounted=remounted).kind == "same"


@pytest.mark.parametrize(
    ("known", "found"),
    [
        pytest.param(DISK, replace(DISK, ino=41), id="another inode"),
        pytest.param(DISK, replace(DISK, born=DISK.born + 1), id="the same inode, made again"),
        pytest.param(UNBORN, replace(UNBORN, ino=41), id="without birth times"),
        pytest.param(MEMORY, replace(MEMORY, boot="b-2", ino=8), id="memory, after a restart"),
        pytest.param(MEMORY, replace(MEMORY, boot="b-2", born=6), id="memory, the same number"),
    ],
)
def test_replaced(known: Mark, found: Mark) -> None:
    """Another directory on the same file system stands in for it; memory is new at each boot."""
    assert judge(known, found, remounted=False).kind == "replaced"


@pytest.mark.parametrize(
    ("known", "found", "remounted", "said"),
    [
        pytest.param(DISK, MEMORY, False, "tmpfs stands there, where ext4 stood", id="kind"),
        pytest.param(DISK, replace(DISK, ino=41, dev=9), False, "another file system", id="device"),
        pytest.param(DISK, replace(DISK, ino=41), True, "another file system", id="mount"),
        pytest.param(DISK, replace(DISK, ino=41, point="/srv"), False, "file system", id="point"),
        pytest.param(SHARE, SHARE, True, "another file system", id="no births, mounted anew"),
        pytest.param(SHARE, replace(SHARE, dev=51), False, "file system", id="no births, device"),
        pytest.param(DISK, replace(DISK, boot="b-2", ino=41), False, "restarted", id="restart"),
        pytest.param(DISK, replace(DISK, boot="b-2", born=1), False, "restarted", id="image"),
        pytest.param(DISK, replace(DISK, boot="", ino=41), False, "restarted", id="no boot id"),
    ],
)
def test_foreign(known: Mark, found: Mark, remounted: bool, said: str) -> None:  # noqa: FBT001
    """Without evidence that it is the same place nothing is taken for it; the reason says so."""
    kind, reason = judge(known, found, remounted=remounted)
    assert kind == "foreign"
    assert said in reason


@pytest.mark.parametrize(
    ("missing", "live", "share", "frozen"),
    [
        (FEW, FEW, 0.5, False),
        (FEW + 1, FEW + 1, 0.5, True),
        (FEW + 1, 2 * (FEW + 1), 0.5, False),
        (FEW + 2, 2 * (FEW + 1), 0.5, True),
        (FEW + 1, 1_000_000, 0.0, True),
        (FEW, 1_000_000, 0.0, False),
        (1_000, 1_000, 1.0, False),
    ],
)
def test_too_many(missing: int, live: int, share: float, frozen: bool) -> None:  # noqa: FBT001
    """Too many is more than a hundred and more than the share; a share of 1 is never exceeded."""
    assert too_many(missing, live, share) is frozen
