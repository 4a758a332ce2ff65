"""Fixtures of the whole suite."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.sites import Site

# The program is started hundreds of times: compiled anew at each start, as where an image has set
# this, it takes 40 % longer, and collecting the tests twice as long in each of the workers.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Under nohup(1) it is ignored, and so it would be by the daemons that are started here.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A folder for a daemon. Nothing that was started on it outlives the test."""
    site = Site(tmp_path)
    try:
        yield site
    finally:
        site.close()
