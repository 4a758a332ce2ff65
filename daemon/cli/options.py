"""Options that several commands have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from daemon.locate import find_config

Command = TypeVar("Command", bound=Callable[..., Any])


def _find(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Path:
    return find_config(value)


def config_option(command: Command) -> Command:
    """`--config FILE`, else `$TREEWARDEN_CONFIG`, else `/etc/treewarden/config.toml`."""
    option = click.option(
        "--config",
        "-c",
        metavar="FILE",
        callback=_find,
        help="Default: $TREEWARDEN_CONFIG, else /etc/treewarden/config.toml.",
    )
    return option(command)


def json_option(command: Command) -> Command:
    """`--json`: the answer as JSON."""
    return click.option("--json", "as_json", is_flag=True, help="Answer as JSON.")(command)
