"""`treewarden reconcile`: have the running daemon compare its trees with the database."""

import time
from collections.abc import Iterator
from pathlib import Path

import click

from daemon.cli import render
from daemon.cli.options import config_option
from daemon.cli.places import Place, find_place
from daemon.core.texts import shown
from daemon.errors import NotPermitted, NotRunning, TryLater
from daemon.store.holder import holder_pid
from daemon.store.spool import Request, send, withdraw

PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.02


@click.command()
@config_option
@click.option(
    "--confirm-removals",
    "confirm",
    is_flag=True,
    help="What is missing was removed: it may go, however much it is.",
)
@click.option(
    "--confirm-archive",
    "archive",
    is_flag=True,
    help="The folder that stands where files are taken is the right one.",
)
@click.argument("watches", metavar="[WATCH]...", nargs=-1)
def reconcile(config: Path, watches: tuple[str, ...], *, confirm: bool, archive: bool) -> None:
    """Compare whole trees with the database now; without a WATCH all of them.

    With --confirm-removals the directory that stands at the root now is taken for the right one,
    and what the next scan misses becomes `gone`. Use it where `status` shows that removals are
    frozen and the files were meant to go. With --confirm-archive files go to the folders that
    stand now where `on_done` and `on_quarantine` take them. Use it where the log tells of an
    archive that is lost, and it was meant to be another: it has moved to a new disk, say.

    The scan goes on after this command has ended; what it finds is on the log. Exit code 69 if the
    daemon does not run, 75 if it does not answer within 10 seconds.
    """
    place = find_place(config)
    for name in watches:
        if name not in place.roots:
            known = ", ".join(place.roots) or "none"
            raise click.UsageError(f"no watch {name!r}; there are: {known}")
    pid = _pid(place)
    _wait(send(place.state_dir, Request(list(watches), confirm, archive)), pid)
    names = ", ".join(map(shown, watches or place.roots))
    render.print_lines(_told(names, confirm=confirm, archive=archive))


def _pid(place: Place) -> int:
    try:
        pid = holder_pid(place.state_dir)
    except PermissionError as error:
        remedy = "ask as the user that the daemon runs as, or as root"
        raise NotPermitted(f"{place.state_dir} is not for this user to see; {remedy}") from error
    if pid is None:
        raise NotRunning(
            f"no daemon runs on {place.state_dir}; its next start scans every tree anyway"
        )
    return pid


def _wait(request: Path, pid: int) -> None:
    """Until the daemon has taken it up; past that it is taken back, so that nothing comes late."""
    until = time.monotonic() + PATIENCE_SECONDS
    while request.exists():
        if time.monotonic() > until and withdraw(request):
            raise TryLater(
                f"the daemon, pid {pid or 'unknown'}, has not answered within "
                f"{PATIENCE_SECONDS:g} s, and the request is withdrawn; try again, "
                "and see what its log says"
            )
        time.sleep(_LOOK_SECONDS)


def _told(names: str, *, confirm: bool, archive: bool) -> Iterator[str]:
    if archive:
        yield f"the folders that stand now where {names} has its files taken are the right ones"
    may_go = "; what it misses may go, however much it is" if confirm else ""
    yield f"asked for a scan of {names}{may_go}"
