"""What the daemon asks of the interpreter, each in an interpreter of its own."""

import subprocess
import sys

from tests.acceptance.harness import PROJECT

STAGES = """
import gc
import daemon.__main__
print(gc.isenabled())
from daemon.engine.tuning import tune_process
tune_process()
print(gc.isenabled(), gc.get_freeze_count() > 10_000)
"""


def test_garbage_is_looked_for_once_all_is_imported() -> None:
    """Not among what is imported, which stays; a daemon that lives for months does look for it."""
    argv = [sys.executable, "-c", STAGES]
    ended = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=PROJECT)
    assert ended.stdout.split() == ["False", "True", "True"]
