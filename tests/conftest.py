"""Fixtures of the whole suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.sites import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A folder for a daemon. Nothing that was started on it outlives the test."""
    site = Site(tmp_path)
    try:
        yield site
    finally:
        site.close()
