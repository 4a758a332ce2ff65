"""A configuration says what root runs: one that others can write to is refused, as root."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.config import load
from daemon.config_trust import untrusted
from daemon.errors import ConfigError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root is so careful")
OTHER = 12_345


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "sub" / "config.toml"
    path.parent.mkdir(parents=True, mode=0o755)
    path.touch(mode=0o644)
    return path


def _public_file(file: Path) -> Path:
    file.chmod(0o646)
    return file


def _file_of_a_group(file: Path) -> Path:
    os.chown(file, 0, OTHER)
    file.chmod(0o664)
    return file


def _file_of_another(file: Path) -> Path:
    os.chown(file, OTHER, 0)
    return file


def _public_folder(file: Path) -> Path:
    file.parent.chmod(0o777)
    return file.parent


def _public_folder_above(file: Path) -> Path:
    file.parent.parent.chmod(0o757)
    return file.parent.parent


def _folder_of_another(file: Path) -> Path:
    os.chown(file.parent.parent, OTHER, 0)
    return file.parent.parent


def _leads_to_a_public_folder(file: Path) -> Path:
    folder = file.parent.parent.parent / "public"
    folder.mkdir()
    folder.chmod(0o777)
    file.rename(folder / "real.toml")
    file.symlink_to(folder / "real.toml")
    return folder


def _link_in_a_public_folder(file: Path) -> Path:
    file.rename(file.parent.parent / "real.toml")
    file.symlink_to(file.parent.parent / "real.toml")
    return _public_folder(file)


def _link_of_another(file: Path) -> Path:
    return _another_link(file, file.parent.parent / "real.toml")


def _folder_by_the_link_of_another(file: Path) -> Path:
    return _another_link(file.parent, file.parent.parent / "real")


def _link_after_a_link(file: Path) -> Path:
    link = _link_of_another(file)
    link.rename(file.parent / "second")
    file.symlink_to("../sub/second")
    return file.parent / "second"


def _another_link(place: Path, real: Path) -> Path:
    """Whoever owns the link can have it lead elsewhere, even where it lies in a sticky folder."""
    place.rename(real)
    place.symlink_to(real)
    os.chown(place, OTHER, 0, follow_symlinks=False)
    return place


def _file_with_a_list(file: Path) -> Path:
    """Of those who may write: root, one other user, and the group of root, which may read."""
    file.chmod(0o664)
    entries = ((1, 6, -1), (2, 6, OTHER), (4, 4, -1), (16, 6, -1), (32, 4, -1))
    packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(file, "system.posix_acl_access", struct.pack("<I", 2) + packed)
    return file


@pytest.mark.parametrize(
    "spoil",
    [
        _public_file,
        _file_of_a_group,
        _file_of_another,
        _public_folder,
        _public_folder_above,
        _folder_of_another,
        _leads_to_a_public_folder,
        _link_in_a_public_folder,
        _link_of_another,
        _folder_by_the_link_of_another,
        _link_after_a_link,
        _file_with_a_list,
    ],
)
def test_others_can_write(
    file: Path, spoil: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place where they can is told; who is not root need not mind."""
    place = spoil(file)
    (problem,) = untrusted(file)
    assert problem.file == str(place)
    assert "what root runs" in problem.found
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert problem in caught.value.problems
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert list(untrusted(file)) == []


def _sticky(file: Path) -> None:
    file.parent.chmod(0o1777)


def _of_the_group_of_root(file: Path) -> None:
    file.parent.chmod(0o775)
    file.chmod(0o664)


def _readable(file: Path) -> None:
    file.chmod(0o444)


@pytest.mark.parametrize("change", [_sticky, _of_the_group_of_root, _readable, Path.unlink])
def test_only_root_can_write(file: Path, change: Callable[[Path], None]) -> None:
    """Nobody can replace what root has put into a sticky folder; and whoever may read may."""
    change(file)
    assert list(untrusted(file)) == []


def test_from_a_pipe() -> None:
    """A configuration that comes from nowhere in particular lies in no folder of others."""
    reader, writer = os.pipe()
    assert list(untrusted(Path(f"/dev/fd/{reader}"))) == []
    os.close(reader)
    os.close(writer)


def test_in_a_user_namespace(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What belongs to the root outside, who is nobody inside, is no other's."""
    os.chown(file, 65_534, 65_534)
    assert list(untrusted(file))
    read = Path.read_text
    fakes = {"/proc/self/uid_map": "0 1000 1", "/proc/sys/kernel/overflowuid": "65534\n"}
    monkeypatch.setattr(Path, "read_text", lambda p, **k: fakes.get(str(p)) or read(p, **k))
    assert list(untrusted(file)) == []
