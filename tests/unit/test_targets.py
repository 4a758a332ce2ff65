"""Where a file goes: templates, and the names that are tried."""

from itertools import islice

import pytest

from daemon.core.model import Fingerprint, Key
from daemon.core.targets import Target, numbered, split

# 2026-11-28T08:07:29Z
SEEN = Fingerprint(1, 2, 1_795_853_249_999_999_999, 4, 5)


@pytest.mark.parametrize(
    ("template", "path", "place"),
    [
        ("/srv/{relpath}", b"a/b.csv", b"/srv/a/b.csv"),
        ("/srv/{date}/{time}/{name}", b"a/b.csv", b"/srv/2026-11-28/080729/b.csv"),
        ("/srv/{watch}/{directory}/{stem}-x{suffix}", b"a/c/b.tar.gz", b"/srv/w/a/c/b.tar-x.gz"),
        ("/srv/{directory}/{name}", b"b", b"/srv/b"),
        ("/srv/{{x}}/100%/{name}", b"%s{name}", b"/srv/{x}/100%/%s{name}"),
        ("/srv/{name}", b"\xff\n$(x)", b"/srv/\xff\n$(x)"),
    ],
)
def test_place(template: str, path: bytes, place: bytes) -> None:
    """Each placeholder stands for its part of the file, whatever bytes that is; times are UTC."""
    assert Target(template).of(Key("w", path), SEEN) == place


@pytest.mark.parametrize(
    ("template", "name"), [("/srv/{stem}/x{suffix}", b"...x"), ("/srv/.{name}", b".")]
)
def test_no_name_leads_elsewhere(template: str, name: bytes) -> None:
    """A name never becomes a component that leads up, whatever is put together from it."""
    try:
        place = Target(template).of(Key("w", name), SEEN)
    except ValueError:
        return
    assert not {b".", b".."} & set(place.split(b"/"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (b"a.csv", (b"a", b".csv")),
        (b"a.tar.gz", (b"a.tar", b".gz")),
        (b".bashrc", (b".bashrc", b"")),
        (b"..x", (b"..x", b"")),
        (b"a.", (b"a.", b"")),
        (b"a", (b"a", b"")),
    ],
)
def test_split(name: bytes, parts: tuple[bytes, bytes]) -> None:
    """A suffix follows a stem; a name that begins with its only dot has none."""
    assert split(name) == parts


def test_numbered() -> None:
    """The number stands before the suffix, so that the kind of file stays what it is."""
    assert list(islice(numbered(b"/a/b.csv"), 3)) == [b"/a/b.csv", b"/a/b.1.csv", b"/a/b.2.csv"]
    assert list(islice(numbered(b"/a/.x"), 2)) == [b"/a/.x", b"/a/.x.1"]
