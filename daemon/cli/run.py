"""`treewarden run`: the daemon."""

import asyncio
import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from daemon.cli.loading import load_whole
from daemon.cli.options import config_option
from daemon.engine.output import occupy_standard_descriptors
from daemon.errors import ServiceError


@click.command()
@config_option
def run(config: Path) -> None:
    """Watch, handle and log until SIGTERM or SIGINT. Lines go to standard output."""
    occupy_standard_descriptors()
    loaded = load_whole(config)
    # Imported after the configuration was found good: an error in it is told at once.
    from daemon.handlers.command import install_child_watcher  # noqa: PLC0415
    from daemon.service import serve  # noqa: PLC0415

    install_child_watcher()
    try:
        # The journal alone writes to descriptor 1: what a function prints must not come between.
        with redirect_stdout(sys.stderr):
            asyncio.run(serve(loaded))
    except OSError as error:
        found = f"{error.filename or 'system'}: {error.strerror}"
        raise ServiceError(f"{found}; `treewarden check` tells what to do about it") from error
