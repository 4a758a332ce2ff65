"""Manifests: the files of a delivery, which settle together, and their checksums. Pure.

One member a line: a name, or a checksum and a name in one of the two forms in which sha256sum and
its kin print them. Nothing is guessed: a line that could be read in two ways is a fault.
"""

import re
from fnmatch import fnmatchcase
from typing import NamedTuple

from msgspec import Struct

from daemon.core.texts import shown

MAX_BYTES = 1024 * 1024
MAX_MEMBERS = 10_000
# Every algorithm that a manifest may use, with the number of its hexadecimal digits.
ALGORITHMS = {
    "md5": 32,
    "sha1": 40,
    "sha224": 56,
    "sha256": 64,
    "sha384": 96,
    "sha512": 128,
    **{f"blake2b-{bits}": bits // 4 for bits in range(8, 513, 8)},
}
# What stands before `(name) = digest`: as coreutils, and as OpenSSL 3 calls SHA-2.
_TAGS = {name.upper(): name for name in ALGORITHMS} | {"BLAKE2B": "blake2b-512"}
_TAGS |= {f"SHA2-{bits}": f"sha{bits}" for bits in (224, 256, 384, 512)}
# What sums print by default. b2sum's 128 digits look like those of sha512sum.
_UNTAGGED = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b-512")
_PLAIN = re.compile(rb"([0-9A-Fa-f]{32,})([ \t].*)", re.DOTALL)
# What may stand where a digest does is narrow, so that no line costs more than its length.
_TAGGED = re.compile(rb"([A-Za-z0-9-]+) ?\((.*)\) ?= ?([0-9A-Za-z+/]+={0,2})[ \t]*", re.DOTALL)
_HEX = re.compile(rb"[0-9A-Fa-f]+")
_ESCAPE = re.compile(rb"\\(.?)", re.DOTALL)
_ESCAPED = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LEAST_DIGITS = 32
_NAME_MAX = 255
_PATH_MAX = 4095
_SHOWN = 100


class Checksum(NamedTuple):
    """`digest`, in lower case, by any one of `algorithms`: a line does not always say which."""

    algorithms: tuple[str, ...]
    digest: str


class Member(NamedTuple):
    """One file of a delivery. `path` starts at the root of the watch, as that of the manifest."""

    path: bytes
    checksum: Checksum | None
    line: int


class Fault(Struct, frozen=True, gc=False):
    """Why a manifest cannot be used, and in which of its lines."""

    line: int | None
    reason: str

    def __str__(self) -> str:
        return self.reason if self.line is None else f"line {self.line}: {self.reason}"


class Manifests:
    """`settle.manifest`, such as `*.manifest`: a shell glob on the name, case-sensitive.

    It is matched byte by byte, so `?` is one byte. Raises `ValueError` for one that fits no name.
    """

    def __init__(self, pattern: str) -> None:
        if not pattern or "/" in pattern or "\0" in pattern:
            raise ValueError("a manifest is given by a glob on its name, without '/'")
        self._pattern = pattern.encode()

    def is_manifest(self, path: bytes) -> bool:
        """Whether this path is a manifest, and so never a data file."""
        return fnmatchcase(path.rpartition(b"/")[2], self._pattern)

    def read(self, path: bytes, content: bytes) -> tuple[Member, ...] | Fault:
        """The members of the manifest at `path`, in its order, each path once."""
        if len(content) > MAX_BYTES:
            return Fault(None, f"a manifest has at most {MAX_BYTES:,} bytes")
        members: dict[bytes, Member] = {}
        for number, line in enumerate(_lines(content), 1):
            if not line.strip() or line.startswith(b"#"):
                continue
            try:
                _add(members, self._member(path, line, number))
            except ValueError as error:
                return Fault(number, str(error))
        return tuple(members.values())

    def _member(self, manifest: bytes, line: bytes, number: int) -> Member:
        name, checksum = _parse(line)
        directory, slash, _ = manifest.rpartition(b"/")
        path = directory + slash + _inside(name)
        if len(path) > _PATH_MAX:
            raise ValueError(f"{_quoted(name)} is longer than any path may be")
        if self.is_manifest(path):
            raise ValueError(f"{_quoted(name)} is a manifest, and no member of one")
        return Member(path, checksum, number)


def _lines(content: bytes) -> list[bytes]:
    lines = content.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    return [line.removesuffix(b"\r") for line in lines]


def _add(members: dict[bytes, Member], member: Member) -> None:
    known = members.setdefault(member.path, member)
    if known.checksum != member.checksum:
        raise ValueError(f"{_quoted(member.path)} has another checksum in line {known.line}")
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"a manifest has at most {MAX_MEMBERS:,} members")


def _parse(line: bytes) -> tuple[bytes, Checksum | None]:
    if b"\0" in line:
        raise ValueError("there is a NUL byte in it, as in UTF-16; names are bytes, one a line")
    if not line.startswith(b"\\"):
        return _fields(line)
    name, checksum = _fields(line[1:])
    return _unescaped(name), checksum


def _fields(line: bytes) -> tuple[bytes, Checksum | None]:
    if (found := _TAGGED.fullmatch(line)) and _is_tagged(found):
        return found[2], _tagged(found[1].decode(), found[3])
    if found := _PLAIN.fullmatch(line):
        if found[2][:2] not in {b"  ", b" *"}:
            raise ValueError("between a checksum and its name stand two spaces, or ' *'")
        return found[2][2:], _untagged(found[1])
    return line, None


def _is_tagged(found: re.Match[bytes]) -> bool:
    """`invoice (2) = paid` is a name; by an algorithm that is not known it would be a checksum."""
    return found[1].decode().upper() in _TAGS or len(found[3]) >= _LEAST_DIGITS


def _tagged(tag: str, digest: bytes) -> Checksum:
    """`SHA256 (name) = digest`."""
    algorithm = _TAGS.get(tag.upper())
    if algorithm is None:
        raise ValueError(f"{tag[:_SHOWN]} is none of MD5, SHA1, SHA224 to SHA512, BLAKE2b")
    if not _HEX.fullmatch(digest) or len(digest) != ALGORITHMS[algorithm]:
        raise ValueError(f"a {tag} checksum has {ALGORITHMS[algorithm]} hexadecimal digits")
    return Checksum((algorithm,), digest.decode().lower())


def _untagged(digest: bytes) -> Checksum:
    """`digest  name`."""
    algorithms = tuple(name for name in _UNTAGGED if ALGORITHMS[name] == len(digest))
    if not algorithms:
        raise ValueError(f"no known checksum has {len(digest)} hexadecimal digits")
    return Checksum(algorithms, digest.decode().lower())


def _unescaped(name: bytes) -> bytes:
    """The name in a line that starts with a backslash, as coreutils escape it."""
    if b"\\" not in name:
        raise ValueError("it starts with a backslash, and nothing in its name is escaped")
    return _ESCAPE.sub(_character, name)


def _character(found: re.Match[bytes]) -> bytes:
    if found[1] not in _ESCAPED:
        raise ValueError(r"in an escaped name a backslash is followed by '\', 'n' or 'r'")
    return _ESCAPED[found[1]]


def _inside(name: bytes) -> bytes:
    """The name without what changes nothing: sums of `find .` begin with `./`."""
    if name.startswith(b"/"):
        raise ValueError(f"{_quoted(name)} is absolute; names start at the manifest's directory")
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise ValueError(f"{_quoted(name)} leads out of the manifest's directory by '..'")
    if not parts or name.endswith((b"/", b"/.")):
        raise ValueError(f"{_quoted(name)} names no file")
    if max(map(len, parts)) > _NAME_MAX:
        raise ValueError(f"{_quoted(name)} is longer than any name may be")
    return b"/".join(parts)


def _quoted(name: bytes) -> str:
    """As it reads in a sentence: names may be anything, and a mebibyte long."""
    return f"'{shown(name[:_SHOWN])}{'...' if len(name) > _SHOWN else ''}'"
