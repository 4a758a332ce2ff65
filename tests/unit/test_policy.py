"""Patterns and backoff, as tables of cases."""

import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.config_steps import Backoff
from daemon.core.policy import Matcher, backoff_seconds

WANTED = [
    ([], [], b"a/b", True),
    ([], [], b"\xff\n", True),
    (["*.csv"], [], b"a.csv", True),
    (["*.csv"], [], b"deep/er/a.csv", True),
    (["*.csv"], [], b"a.txt", False),
    (["*.csv"], [], b"a.csv\n", False),
    (["*.csv"], [], b"new\nline/a.csv", True),
    (["*.csv"], [], b"\xff\xfe.csv", True),
    (["*.csv"], [], b"'; rm -rf \".csv", True),
    (["*.csv"], [], b"x" * 251 + b".csv", True),
    (["/in/"], [], b"in/a", True),
    (["/in/"], [], b"out/in/a", False),
    (["*.csv", "!secret.csv"], [], b"a.csv", True),
    (["*.csv", "!secret.csv"], [], b"d/secret.csv", False),
    ([], [".*"], b"a", True),
    ([], [".*"], b".a", False),
    ([], [".*"], b".git/a", False),
    ([], [".*"], b"new\nline/.git/a", False),
    ([], [".*"], b".\xff", False),
    ([], ["a\ufffd"], b"a\xff", True),
    ([], ["\xe9*"], b"\xc3\xa9t", False),
    ([], ["?"], b"\n", False),
    ([], ["*.part"], b"a.part", False),
    ([], ["*.part"], b"a.part\n", True),
    ([], ["*.part"], b"a.part\nb", True),
    ([], ["*~"], b"a~", False),
    ([], ["build/"], b"build", True),
    ([], ["build/"], b"build/a\nb", False),
    ([], ["build/", "!build/keep"], b"build/keep", False),
    ([], ["build/*", "!build/keep"], b"build/keep", True),
    ([], ["/a/**/z"], b"a/b/c/z", False),
    ([], ["/a/**/z"], b"b/a/z", True),
    ([], ["*", "!*.csv"], b"a.csv", True),
    ([], ["*", "!*.csv"], b"d/a.csv", False),
    (["*.csv"], ["old.csv"], b"old.csv", False),
    (["old.csv"], ["*.csv"], b"old.csv", False),
    (["*.csv"], ["old/"], b"old/a.csv", False),
    ([], ["x"], b"a/" * 2000 + b"b", True),
    ([], ["x"], b"a/" * 1000 + b"x/" + b"a/" * 999 + b"b", False),
]  # fmt: skip


@pytest.mark.parametrize(("include", "exclude", "path", "wanted"), WANTED)
def test_wants(include: list[str], exclude: list[str], path: bytes, wanted: bool) -> None:  # noqa: FBT001
    """A file is wanted if it is included, and neither it nor a folder above it is excluded."""
    assert Matcher(include, exclude).wants(path) is wanted


ENTERED = [
    ([], [], b"a", True),
    (["*.csv"], [], b"a", True),
    (["/in/"], [], b"out", True),
    ([], [".*"], b"", True),
    ([], ["*"], b"", True),
    ([], [".*"], b".git", False),
    ([], [".*"], b".git/objects", False),
    ([], [".*"], b"a\nb/.git", False),
    ([], ["build/"], b"a/build", False),
    ([], ["build/"], b"build\n", True),
    ([], ["*.csv"], b"a", True),
    ([], ["*", "!*/"], b"a", True),
    ([], ["/*", "!/keep/"], b"keep/deeper", True),
    ([], ["/*", "!/keep/"], b"lose", False),
    ([], ["?"], b"\xff", False),
]


@pytest.mark.parametrize(("include", "exclude", "folder", "entered"), ENTERED)
def test_enters(include: list[str], exclude: list[str], folder: bytes, entered: bool) -> None:  # noqa: FBT001
    """Only an exclude pattern prunes a folder, and the root is never pruned."""
    assert Matcher(include, exclude).enters(folder) is entered


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_exclude_agrees_with_git(tmp_path: Path) -> None:
    """`git check-ignore` excludes the same files, those in excluded folders among them."""
    patterns = [".*", "build/", "!build/keep", "/top", "a/**/z", "*.p?rt", "!ok.part", "log[0-9]"]
    paths = [
        *(".a", "d/.a/b", "build/keep", "build", "e/build/x", "top", "d/top", "a/z", "a/b/c/z"),
        *("b/a/z", "x.part", "ok.part", ".d/ok.part", "log1", "logx", "log1/y"),
    ]
    (tmp_path / "ignore").write_text("\n".join(patterns))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    configured = ["-c", f"core.excludesFile={tmp_path / 'ignore'}"]
    said = subprocess.run(
        ["git", "-C", tmp_path, *configured, "check-ignore", "--no-index", *paths],
        capture_output=True,
        check=True,
        text=True,
    )
    matcher = Matcher(exclude=patterns)
    assert [path for path in paths if not matcher.wants(path.encode())] == said.stdout.split()


BACKOFF = [
    (1, 0.5, 1.0),
    (2, 0.5, 2.0),
    (4, 0.5, 8.0),
    (5, 0.5, 10.0),
    (2, 0.0, 1.6),
    (2, 1.0, 2.4),
    (5, 1.0, 12.0),
    (1025, 0.5, 10.0),
    (10**9, 0.5, 10.0),
    (10**9, 0.0, 8.0),
]


@pytest.mark.parametrize(("failures", "rand", "seconds"), BACKOFF)
def test_backoff(failures: int, rand: float, seconds: float) -> None:
    """The wait grows by the factor up to the cap, spread by the jitter, and never overflows."""
    backoff = Backoff(first=1, factor=2, max=10, jitter=0.2)
    assert backoff_seconds(backoff, failures, rand) == pytest.approx(seconds)
