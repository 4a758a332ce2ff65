"""`treewarden run`: the daemon."""

import asyncio
from pathlib import Path

import click

from daemon.cli.options import config_option
from daemon.config import load
from daemon.engine.output import occupy_standard_descriptors
from daemon.errors import ServiceError


@click.command()
@config_option
def run(config: Path) -> None:
    """Watch, handle and log until SIGTERM or SIGINT. Lines go to standard output."""
    occupy_standard_descriptors()
    loaded = load(config)
    # Imported after the configuration was found good: an error in it is told at once.
    from daemon.handlers.command import install_child_watcher  # noqa: PLC0415
    from daemon.service import serve  # noqa: PLC0415

    install_child_watcher()
    try:
        asyncio.run(serve(loaded))
    except OSError as error:
        raise ServiceError(f"{error.filename or 'system'}: {error.strerror}") from error
