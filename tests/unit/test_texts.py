"""How names read: never a line of its own, never a command to a terminal, never two alike."""

import pytest

from daemon.core.texts import path_fields, shown


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        (b"plain name.csv", "plain name.csv"),
        ("gr\u00fc\u00df".encode(), "gr\u00fc\u00df"),
        (b"a\nb\tc\rd", r"a\nb\tc\rd"),
        (b"\x1b[2J\x7f\x00", r"\x1b[2J\x7f\x00"),
        (b"\xff\xc3", r"\xff\xc3"),
        ("\u0085\u202e\u2028\U000e0001".encode(), r"\u0085\u202e\u2028\U000e0001"),
        (rb"back\slash", r"back\\slash"),
        (rb"\n", r"\\n"),
    ],
)
def test_a_name_reads_as_one_harmless_line(name: bytes, reads: str) -> None:
    """Control characters, bidirectional marks and foreign bytes become escapes."""
    assert shown(name) == reads
    assert shown(name).isprintable()


def test_the_exact_bytes_stand_beside_what_is_not_utf_8() -> None:
    r"""Only then, though a UTF-8 name may read the same: `\xff` spelt out has no path_b64."""
    assert path_fields("path", b"\xff") == {"path": "\\xff", "path_b64": "/w=="}
    assert path_fields("path", rb"\xff") == {"path": "\\xff"}
