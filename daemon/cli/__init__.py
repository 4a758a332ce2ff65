"""The command line. Commands are imported when they are called: an answer takes under 100 ms."""

import gc
import signal
import sys
from importlib import import_module

import click

from daemon import __version__
from daemon.errors import TreewardenError

# Command to the module that has it.
COMMANDS = {
    "run": "daemon.cli.run",
    "check": "daemon.cli.check",
    "status": "daemon.cli.query",
    "ls": "daemon.cli.query",
    "show": "daemon.cli.query",
    "explain": "daemon.cli.explain",
    "reconcile": "daemon.cli.reconcile",
    "selftest": "daemon.cli.selftest",
}
USAGE = 64


class LazyGroup(click.Group):
    """A group that knows its commands' names, and imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order in which an operator meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the module that has the command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="treewarden")
def cli() -> None:
    """Watch directory trees and drive every file through a durable life cycle."""


def main() -> None:
    """Run the command line; every error becomes a sentence on stderr and its exit code."""
    # What the kernel sends when a writer meets a read lease of ours, and its default is the end.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        sys.exit(cli.main(prog_name="treewarden", standalone_mode=False) or 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except TreewardenError as error:
        click.echo(f"treewarden: {error}", err=True)
        sys.exit(error.exit_code)
    finally:
        # Or else the exit searches all that was imported for cycles to free: 8 ms of every answer.
        gc.freeze()
