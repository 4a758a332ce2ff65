"""Marker files: the name of a marker, and whom one speaks for, as tables of cases."""

import pytest

from daemon.core.markers import Marker, Subjects, is_current
from daemon.core.model import Fingerprint

LONG = b"x" * 255
HOSTILE = [b"a\nb.csv", b"\xff\xfe.\xff", b"{name}", b"%s", b"*", b" ", b"-rf", b"a\\b.c", LONG]

MARKER_OF = [
    ("{name}.done", b"a.csv", b"a.csv.done"),
    ("{name}.done", b"in/deep/a.csv", b"in/deep/a.csv.done"),
    ("{name}.done", b"in.d/a", b"in.d/a.done"),
    ("ok-{name}", b"in/a.csv", b"in/ok-a.csv"),
    (".{name}.ok", b"a", b".a.ok"),
    ("{stem}.done", b"a.csv", b"a.done"),
    ("{stem}.done", b"in.d/a", b"in.d/a.done"),
    (".{stem}.ok", b"in/a.tar.gz", b"in/.a.tar.ok"),
    ("{stem}.ok", b"a.", b"a.ok"),
    ("{stem}.ok", b".profile", b".profile.ok"),
    ("{stem}.ok", b".a.csv", b".a.ok"),
    ("{stem}.ok", b"...", b"....ok"),
    ("\u00e4-{name}", b"\xff", b"\xc3\xa4-\xff"),
]


@pytest.mark.parametrize(("pattern", "path", "marker"), MARKER_OF)
def test_marker_of(pattern: str, path: bytes, marker: bytes) -> None:
    """The marker's name is the pattern around the file's name, or its stem, in its directory."""
    assert Marker(pattern).marker_of(path) == marker
    assert Marker(pattern).speaks_for(marker, path)


SUBJECTS_OF = [
    ("{name}.done", b"in/a.csv.done", Subjects(b"in", b"in/a.csv", exact=True)),
    ("{name}.done", b"a.done", Subjects(b"", b"a", exact=True)),
    ("{name}.done", b"a.done.done", Subjects(b"", b"a.done", exact=True)),
    ("{name}.done", b"in/a.csv", None),
    ("{name}.done", b"in/a.DONE", None),
    ("{name}.done", b"x.done/a", None),
    ("{name}.done", b"in/.done", None),
    ("{name}.done", b"in/..done", None),
    ("{name}.done", b"in/...done", None),
    ("{name}.done", b"in/....done", Subjects(b"in", b"in/...", exact=True)),
    ("a{name}a", b"a", None),
    ("a{name}a", b"aa", None),
    ("a{name}a", b"aaa", Subjects(b"", b"a", exact=True)),
    ("{name}.done", b"a\n.done", Subjects(b"", b"a\n", exact=True)),
    (".{stem}.ok", b"in/.a.tar.ok", Subjects(b"in", b"in/a.tar", exact=False)),
    ("{stem}.ok", b"\xff.ok", Subjects(b"", b"\xff", exact=False)),
    ("{stem}.ok", b"..ok", None),
]


@pytest.mark.parametrize(("pattern", "path", "subjects"), SUBJECTS_OF)
def test_subjects_of(pattern: str, path: bytes, subjects: Subjects | None) -> None:
    """A marker speaks for one name, or for what a stem begins; what does not fit is no marker.

    Nothing stands for `.` and `..`, which are directories everywhere.
    """
    marker = Marker(pattern)
    assert marker.subjects_of(path) == subjects
    assert marker.is_marker(path) is (subjects is not None)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("folder", [b"", b"in\n/\xff/"])
@pytest.mark.parametrize("pattern", ["{name}.done", ".{stem}.ok", "{name}\n"])
def test_there_and_back(pattern: str, folder: bytes, name: bytes) -> None:
    """Whatever a data file is called, its marker leads back to it."""
    marker = Marker(pattern)
    subjects = marker.subjects_of(marker.marker_of(folder + name))
    assert subjects is not None
    assert subjects.directory == folder.rstrip(b"/")
    assert (folder + name).startswith(subjects.start)
    assert not subjects.exact or subjects.start == folder + name


def test_stem_speaks_for_each_of_its_files() -> None:
    """A marker by stem speaks for every file of that stem, for no other, and for no marker."""
    marker = Marker("{stem}.ok")
    paths = [b"in/a", b"in/a.csv", b"in/a.xml", b"in/a.b.csv", b"in/ab.csv", b"a.csv", b"in/a.ok"]
    assert [path for path in paths if marker.speaks_for(b"in/a.ok", path)] == paths[:3]


def test_marker_is_never_data() -> None:
    """A marker has no marker that speaks for it: it would be data."""
    marker = Marker("{name}.done")
    assert not marker.speaks_for(b"a.done.done", b"a.done")


UNUSABLE = ["", "done", "{name}", "{stem}", "{name}{name}", "{name}.{stem}", "{path}.done"]
UNUSABLE += ["{{name}}", "{name", "ok/{name}", "{name}\0", "{name}" + "x" * 255]


@pytest.mark.parametrize("pattern", UNUSABLE)
def test_pattern_that_cannot_be_used(pattern: str) -> None:
    """A pattern holds one placeholder and something beside it, and names a file."""
    with pytest.raises(ValueError, match="marker"):
        Marker(pattern)


@pytest.mark.parametrize(("marker", "data", "current"), [(5, 5, True), (6, 5, True), (4, 5, False)])
def test_left_over(marker: int, data: int, *, current: bool) -> None:
    """A marker that is older than the data is left over from a former delivery."""
    made, written = (Fingerprint(1, mtime, 9, 7, 1) for mtime in (marker, data))
    assert is_current(made, written) is current
