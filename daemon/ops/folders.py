"""The folders that a start makes."""

from daemon.config import Config
from daemon.locate import Unanswered
from daemon.store.spool import make_folder


def make_folders(config: Config) -> None:
    """The daemon's own, and trees that are to be made; but none where a disk hangs.

    Raises:
        OSError: one cannot be made.
    """
    config.daemon.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    make_folder(config.daemon.state_dir)
    for watch in config.watch:
        if watch.create and not isinstance(watch.path, Unanswered):
            watch.path.mkdir(parents=True, exist_ok=True)
