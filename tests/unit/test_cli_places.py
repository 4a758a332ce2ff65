"""Which files a path on the command line may mean."""

from pathlib import Path

import pytest

from daemon.cli.places import Place, keys_of
from daemon.core.model import Key


def test_a_path_that_leads_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts where we are, and at no watch: nothing below a root is above it."""
    for name in ("in", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    place = Place(tmp_path, {"w": bytes(tmp_path / "in")}, {})
    assert keys_of(place, ["w"], "../in/a.csv") == [Key("w", b"a.csv")]
    assert keys_of(place, ["w"], "d/../a.csv") == [Key("w", b"a.csv")]
    assert keys_of(place, ["w"], "../a.csv") == []
