"""Manifests: what a line says, as tables of cases, and what none may say."""

import pytest

from daemon.core.manifest import (
    MAX_BYTES,
    MAX_MEMBERS,
    Checksum,
    Fault,
    Manifests,
    Member,
)

MD5, SHA1, SHA256 = "d4" * 16, "a9" * 20, "e3" * 32
SHA512 = "cf" * 64
MANIFESTS = Manifests("*.manifest")


def read(content: bytes, path: bytes = b"x.manifest") -> tuple[Member, ...] | Fault:
    return MANIFESTS.read(path, content)


LINES: dict[bytes, tuple[bytes, Checksum | None]] = {
    b"a.csv": (b"a.csv", None),
    b"sub/deep/a.csv": (b"sub/deep/a.csv", None),
    b"./sub/.//a.csv": (b"sub/a.csv", None),
    b"a.csv\r": (b"a.csv", None),
    b" two  words ": (b" two  words ", None),
    b"\xff\xfe": (b"\xff\xfe", None),
    b"x" * 255: (b"x" * 255, None),
    b"a#b": (b"a#b", None),
    b"./#1": (b"#1", None),
    b"*": (b"*", None),
    b"..a": (b"..a", None),
    MD5.encode(): (MD5.encode(), None),
    b"abc  a.csv": (b"abc  a.csv", None),
    b"invoice (2) = paid": (b"invoice (2) = paid", None),
    f"{MD5}  a.csv".encode(): (b"a.csv", Checksum(("md5",), MD5)),
    f"{SHA1} *a.csv".encode(): (b"a.csv", Checksum(("sha1",), SHA1)),
    f"{SHA256.upper()}  a.csv\r".encode(): (b"a.csv", Checksum(("sha256",), SHA256)),
    f"{'ab' * 28}  a.csv".encode(): (b"a.csv", Checksum(("sha224",), "ab" * 28)),
    f"{'ab' * 48}  a.csv".encode(): (b"a.csv", Checksum(("sha384",), "ab" * 48)),
    f"{SHA512}  a.csv".encode(): (b"a.csv", Checksum(("sha512", "blake2b-512"), SHA512)),
    f"{MD5}    a.csv ".encode(): (b"  a.csv ", Checksum(("md5",), MD5)),
    f"{MD5}  #1".encode(): (b"#1", Checksum(("md5",), MD5)),
    f"{MD5}  ./a b/\\c".encode(): (b"a b/\\c", Checksum(("md5",), MD5)),
    f"\\{MD5}  a\\nb\\\\c\\rd".encode(): (b"a\nb\\c\rd", Checksum(("md5",), MD5)),
    b"\\a\\nb": (b"a\nb", None),
    b"\\\\\\a": (b"\\a", None),
    f"MD5 (a.csv) = {MD5}".encode(): (b"a.csv", Checksum(("md5",), MD5)),
    f"SHA256 (a.csv) = {SHA256.upper()}".encode(): (b"a.csv", Checksum(("sha256",), SHA256)),
    f"SHA256(a.csv)= {SHA256} \t".encode(): (b"a.csv", Checksum(("sha256",), SHA256)),
    f"SHA2-256(a b)= {SHA256}".encode(): (b"a b", Checksum(("sha256",), SHA256)),
    f"BLAKE2B-512(a)= {SHA512}".encode(): (b"a", Checksum(("blake2b-512",), SHA512)),
    f"sha1 (a) = (b) = {SHA1}".encode(): (b"a) = (b", Checksum(("sha1",), SHA1)),
    f"SHA512 (a) = {SHA512}".encode(): (b"a", Checksum(("sha512",), SHA512)),
    f"BLAKE2b (a) = {SHA512}".encode(): (b"a", Checksum(("blake2b-512",), SHA512)),
    f"BLAKE2b-256 (a) = {SHA256}".encode(): (b"a", Checksum(("blake2b-256",), SHA256)),
    f"\\MD5 (a\\nb) = {MD5}".encode(): (b"a\nb", Checksum(("md5",), MD5)),
}


@pytest.mark.parametrize(("line", "expected"), LINES.items(), ids=[repr(line) for line in LINES])
def test_line(line: bytes, expected: tuple[bytes, Checksum | None]) -> None:
    """Each form of a line gives its member, with and without a line's end, below its directory."""
    name, checksum = expected
    assert read(line) == read(line + b"\n") == (Member(name, checksum, 1),)
    assert read(b"\n" + line, b"in/x.manifest") == (Member(b"in/" + name, checksum, 2),)


FAULTS = {
    b"/etc/passwd": "absolute",
    b"../a.csv": "leads out",
    b"sub/../a.csv": "leads out",
    b"..": "leads out",
    b".": "names no file",
    b"sub/": "names no file",
    b"sub/.": "names no file",
    f"{MD5}  ".encode(): "names no file",
    f"MD5 () = {MD5}".encode(): "names no file",
    b"x" * 256: "longer than any name",
    b"/".join([b"x" * 200] * 21): "longer than any path",
    b"a\0b": "NUL",
    "a.csv".encode("utf-16-le"): "NUL",
    b"x.manifest": "a manifest, and no member",
    b"sub/other.manifest": "a manifest, and no member",
    f"{MD5} a.csv".encode(): "two spaces",
    f"{MD5}\ta.csv".encode(): "two spaces",
    f"{MD5} \ta.csv".encode(): "two spaces",
    f"{MD5}0  a.csv".encode(): "no known checksum has 33",
    f"SHA256 (a) = {MD5}".encode(): "64 hexadecimal digits",
    f"MD5 (a) = {'xy' * 16}".encode(): "32 hexadecimal digits",
    b"SHA256 (a) = 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=": "64 hexadecimal digits",
    f"SM3 (a) = {SHA256}".encode(): "SM3 is none of",
    b"\\foo": "nothing in its name is escaped",
    f"\\{MD5}  a".encode(): "nothing in its name is escaped",
    b"\\a\\tb": "followed by",
    b"\\a\\": "followed by",
}


@pytest.mark.parametrize(("line", "reason"), FAULTS.items(), ids=[repr(line) for line in FAULTS])
def test_fault(line: bytes, reason: str) -> None:
    """A line that says nothing, something else, or two things at once: its number and why."""
    found = read(b"# a comment\r\n\r\nfirst.csv\r\n" + line + b"\nlast.csv\n")
    assert isinstance(found, Fault)
    assert found.line == 4
    assert reason in found.reason
    assert str(found).startswith("line 4: ")
    assert str(found).isprintable()
    assert len(str(found)) < 600


def test_what_is_skipped() -> None:
    """Blank lines, comments and a byte order mark are no members, and the order is kept."""
    content = b"\xef\xbb\xbfb.csv\r\n\r\n# comment\n  \t\n#\na.csv\n\n"
    assert read(content) == (Member(b"b.csv", None, 1), Member(b"a.csv", None, 6))
    assert read(b"") == read(b"\n# none\n") == ()


def test_same_name_again() -> None:
    """A name may come again with the same checksum, in whatever spelling; not with another."""
    same = f"{MD5}  a.csv\n{MD5.upper()} *./a.csv\n".encode()
    assert read(same) == (Member(b"a.csv", Checksum(("md5",), MD5), 1),)
    for other in (f"{'0' * 32}  a.csv", f"{SHA1}  a.csv", "./a.csv"):
        found = read(f"x\n{MD5}  a.csv\n{other}\n".encode())
        assert found == Fault(3, "'a.csv' has another checksum in line 2")


def test_size() -> None:
    """A mebibyte is read, one byte more is not."""
    line = b"x" * 99 + b"\n"
    assert read(line * (MAX_BYTES // 100) + b"\n" * (MAX_BYTES % 100)) == (
        Member(b"x" * 99, None, 1),
    )
    found = read(b"#" * (MAX_BYTES + 1))
    assert found == Fault(None, "a manifest has at most 1,048,576 bytes")
    assert str(found) == found.reason


def test_members() -> None:
    """Ten thousand members are read, repeated or not; the next one is a fault."""
    lines = [b"%d" % number for number in range(MAX_MEMBERS + 1)]
    members = read(b"\n".join(lines[:-1] + lines[:-1]))
    assert isinstance(members, tuple)
    assert len(members) == MAX_MEMBERS
    found = read(b"\n".join(lines))
    assert found == Fault(MAX_MEMBERS + 1, "a manifest has at most 10,000 members")


@pytest.mark.parametrize(
    "unit", [b")=", b")", b"(", b") = ", b"A(", b"= ", b"a", b"0", b"\\", b"\\n", b"/", b"./", b" "]
)
@pytest.mark.parametrize("start", [b"", b"A(", b"SHA256 (", b"\\", MD5.encode() + b" "])
@pytest.mark.parametrize("end", [b"", b" x", b" x y"])
def test_hostile_line(start: bytes, unit: bytes, end: bytes) -> None:
    """A line of a mebibyte that is made to be hard costs no more than its length."""
    room = MAX_BYTES - len(start) - len(end)
    found = read(start + unit * (room // len(unit)) + end)
    assert isinstance(found, Fault) or len(found) <= 1


def test_is_manifest() -> None:
    """The glob is matched with the name alone, byte by byte, case-sensitive."""
    assert all(map(MANIFESTS.is_manifest, [b"a.manifest", b"in/.manifest", b"\xff\n.manifest"]))
    assert not any(map(MANIFESTS.is_manifest, [b"a.MANIFEST", b"x.manifest/a", b"a.manifest~"]))
    assert Manifests("SHA25[6]SUMS").is_manifest(b"in/SHA256SUMS")
    assert Manifests("?").is_manifest(b"\xff")
    assert Manifests("*.m\u00e4").is_manifest(b"x.m\xc3\xa4")


@pytest.mark.parametrize("pattern", ["", "in/*.manifest", "a\0"])
def test_glob_that_fits_no_name(pattern: str) -> None:
    """A glob with a slash would fit no name, and is refused."""
    with pytest.raises(ValueError, match="glob"):
        Manifests(pattern)
