"""What systemd's own tools say of the files in systemd/."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT_FILES = Path(__file__).parents[2] / "systemd"


def tool(name: str) -> str:
    """The path of a program of systemd, or the reason to skip."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    plain = {**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "cat", "LC_ALL": "C.UTF-8"}
    return subprocess.run(argv, capture_output=True, text=True, env=plain, check=False, timeout=60)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as shipped, but for its program: `verify` looks for that on this machine."""
    text = (UNIT_FILES / "treewarden.service").read_text()
    ours = "ExecStart=/opt/treewarden/bin/treewarden "
    assert text.count(ours) == 1
    copy = tmp_path / "treewarden.service"
    copy.write_text(text.replace(ours, f"ExecStart={shutil.which('true')} "))
    return copy


@pytest.fixture
def loosened(unit: Path) -> Path:
    """The same with the drop-in for handlers beside it."""
    folder = unit.with_name("treewarden.service.d")
    folder.mkdir()
    shutil.copy(UNIT_FILES / "handlers.conf", folder)
    return unit


@pytest.fixture(params=["unit", "loosened"])
def either(request: pytest.FixtureRequest) -> Path:
    made: Path = request.getfixturevalue(request.param)
    return made


def verdict(unit: Path) -> tuple[int, str]:
    """What `verify` answers. Only an empty stderr is good: an unknown key still exits 0."""
    result = run(tool("systemd-analyze"), "verify", "--man=no", unit)
    return result.returncode, result.stderr


def exposure(unit: Path) -> float:
    result = run(tool("systemd-analyze"), "security", "--offline=yes", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    assert found, result.stdout + result.stderr
    return float(found[1])


def test_verify_is_clean(either: Path) -> None:
    """The unit passes `systemd-analyze verify` without a word, with and without the drop-in."""
    assert verdict(either) == (0, "")


def test_verify_would_name_a_mistake(loosened: Path) -> None:
    """A misspelt key in the drop-in is seen by the check above."""
    drop_in = loosened.with_name("treewarden.service.d") / "handlers.conf"
    drop_in.write_text(drop_in.read_text() + "ProtectSytem=strict\n")
    assert "ProtectSytem" in verdict(loosened)[1]


def test_exposure(either: Path) -> None:
    """`systemd-analyze security` rates the unit 2.0 or better, with and without the drop-in."""
    assert exposure(either) <= 2.0


def test_the_drop_in_opens_what_it_says(loosened: Path) -> None:
    """The drop-in takes effect: @chown and @resources join the unit's filter."""
    options = ("security", "--offline=yes", "--json=short", "--threshold=100")
    result = run(tool("systemd-analyze"), *options, loosened)
    rated = {entry["name"]: entry["set"] for entry in json.loads(result.stdout)}
    assert rated["SystemCallFilter=~@resources"] is False
    assert rated["MemoryDenyWriteExecute="] is False
    assert rated["SystemCallFilter=~@mount"] is True


def test_sysusers_makes_the_account(tmp_path: Path) -> None:
    """systemd-sysusers accepts our file in silence and makes a user that cannot log in."""
    (tmp_path / "etc").mkdir()
    file = UNIT_FILES / "treewarden.sysusers.conf"
    result = run(tool("systemd-sysusers"), f"--root={tmp_path}", "--dry-run", file)
    assert result.returncode == 0, result.stderr
    assert "Creating user 'treewarden' (treewarden, durable file intake)" in result.stderr
    assert str(file) not in result.stderr, "a complaint names the file and its line"


@pytest.mark.skipif(os.geteuid() != 0, reason="makes an account below a folder: needs root")
def test_tmpfiles_makes_the_folder(tmp_path: Path) -> None:
    """systemd-tmpfiles makes /etc/treewarden, root's to write and the daemon's group's to read."""
    (tmp_path / "etc").mkdir()
    root = f"--root={tmp_path}"
    users, folders = tool("systemd-sysusers"), tool("systemd-tmpfiles")
    assert run(users, root, UNIT_FILES / "treewarden.sysusers.conf").returncode == 0
    made = run(folders, root, "--create", UNIT_FILES / "treewarden.tmpfiles.conf")
    assert (made.returncode, made.stderr) == (0, "")
    status = (tmp_path / "etc/treewarden").stat()
    line = re.search(r"^treewarden:x:(\d+):", (tmp_path / "etc/group").read_text(), re.MULTILINE)
    assert line
    assert (oct(status.st_mode), status.st_uid) == (oct(0o040750), 0)
    assert status.st_gid == int(line[1])
