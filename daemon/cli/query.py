"""`treewarden status`, `ls` and `show`: what the database knows, the daemon up or down.

Measured, a process from start to end on a warm cache: 57 ms, of which 30 are Python and click.
asyncio would add 15 ms, and to check the configuration 13: it is only read.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import translate
from itertools import islice
from pathlib import Path

import click
import msgspec

from daemon.cli import json_form, render, text_form
from daemon.cli.answers import STATES, Status, StepStatus, WatchStatus, Widths
from daemon.cli.options import config_option, json_option
from daemon.cli.places import Place, all_watches, expect_watches, find_place, keys_of
from daemon.core.model import Row
from daemon.core.texts import shown
from daemon.engine.clock import now_us
from daemon.engine.detection import Detection
from daemon.engine.standing import Standing, Standings, heard
from daemon.locate import DATABASE
from daemon.store.holder import holder_pid
from daemon.store.inspect import Inspection, inspect

# What has not been moved into the main file yet counts as well.
_PARTS = ("", "-wal")


@click.command()
@config_option
@json_option
def status(config: Path, *, as_json: bool) -> None:
    """Whether the daemon runs, and how many files are in which state.

    Exit code 0 whether it runs or not, 69 if it never has.
    """
    place = find_place(config)
    with inspect(place.database) as inspection:
        answer = _status(config, place, inspection)
    now = now_us()
    render.print_lines(
        [json_form.of_status(answer, now)] if as_json else text_form.of_status(answer, now)
    )


@click.command()
@config_option
@json_option
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="Only this state."
)
@click.option("--watch", "watches", multiple=True, help="Only this watch.")
@click.option("--limit", type=click.IntRange(min=0), help="No more than so many files.")
@click.argument("glob", required=False)
def ls(
    config: Path,
    *,
    as_json: bool,
    states: tuple[str, ...],
    watches: tuple[str, ...],
    limit: int | None,
    glob: str | None,
) -> None:
    """List files: state, watch, step, attempt, time since the last transition, path.

    GLOB is compared with the whole path below the watched folder; '*' and '?' match a '/' as well,
    so '*.csv' finds files in every folder. Quote it from the shell. --state and --watch may be
    given several times. With --json each line is one object.
    """
    place = find_place(config)
    with inspect(place.database) as inspection:
        expect_watches(place, inspection, watches)
        rows = islice(_matching(inspection.files(watches, states), glob), limit)
        now, widths = now_us(), _widths(place, inspection)
        render.print_lines(
            json_form.of_row(row, now) if as_json else text_form.of_row(row, widths, now)
            for row in rows
        )


@click.command()
@config_option
@json_option
@click.option("--watch", "watches", multiple=True, help="Only in this watch.")
@click.argument("path")
def show(config: Path, *, as_json: bool, watches: tuple[str, ...], path: str) -> int:
    """Show one file: its row and its transitions in order.

    PATH is absolute, or relative to the watched folder or to the present one; where several watches
    have such a file, all are shown. Exit code 1 if no watch has one. With --json each file is one
    line.
    """
    place = find_place(config)
    with inspect(place.database) as inspection:
        expect_watches(place, inspection, watches)
        keys = keys_of(place, watches or all_watches(place, inspection), path)
        found = [row for key in keys if (row := inspection.find(key))]
        render.print_lines(_files(inspection, found, as_json=as_json))
    if not found:
        where = f" in {', '.join(watches)}" if watches else ""
        click.echo(f"treewarden: no file {shown(os.fsencode(path))} is known{where}", err=True)
    return 0 if found else 1


def _files(inspection: Inspection, rows: Iterable[Row], *, as_json: bool) -> Iterator[str | bytes]:
    now = now_us()
    for number, row in enumerate(rows):
        history = inspection.history(row.id)
        if as_json:
            yield json_form.of_file(row, history, now)
        else:
            yield from [""] if number else []
            yield from text_form.of_file(row, history, now)


def _status(config: Path, place: Place, inspection: Inspection) -> Status:
    files: dict[str, dict[str, int]] = defaultdict(dict)
    oldest: dict[str, int] = {}
    for watch, state, count, since in inspection.counts():
        files[watch][state] = count
        if since is not None:
            oldest[watch] = since
    retries = inspection.next_retries()
    detections = _detections(place, inspection)
    steps = _steps(place, inspection)
    watches = [
        WatchStatus(
            name,
            place.roots.get(name),
            files[name],
            oldest.get(name),
            retries.get(name),
            detections.get(name),
            steps.get(name, ()),
        )
        for name in dict.fromkeys([*place.roots, *files])
    ]
    size = sum(_size(place.state_dir / f"{DATABASE}{suffix}") for suffix in _PARTS)
    return Status(
        config,
        holder_pid(place.state_dir),
        place.state_dir,
        place.database,
        size,
        inspection.schema(),
        inspection.owed(),
        watches,
    )


def _detections(place: Place, inspection: Inspection) -> dict[str, Detection]:
    """Of the watches that are configured: of others nobody knows anything any more."""
    found = {}
    for name, text in inspection.detections().items():
        # What a daemon of another version wrote is as good as nothing.
        with suppress(msgspec.MsgspecError):
            found[name] = Detection.heard(text)
    return {name: found[name] for name in place.roots if name in found}


def _steps(place: Place, inspection: Inspection) -> dict[str, list[StepStatus]]:
    """Of each watch the steps that are configured, and others that files wait for all the same."""
    counts = {(watch, step, state): n for watch, step, state, n in inspection.step_counts()}
    names = {watch: dict.fromkeys(steps) for watch, steps in place.steps.items()}
    for watch, step, _ in counts:
        names.setdefault(watch, {})[step] = None
    standings = inspection.steps()
    return {
        watch: [
            StepStatus(
                step,
                counts.get((watch, step, "ready"), 0),
                counts.get((watch, step, "processing"), 0),
                _standings(standings.get(watch)).get(step, Standing()),
            )
            for step in steps
        ]
        for watch, steps in names.items()
    }


def _standings(text: str | None) -> Standings:
    with suppress(msgspec.MsgspecError):
        return heard(text) if text else {}
    return {}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _widths(place: Place, inspection: Inspection) -> Widths:
    steps = [step for names in place.steps.values() for step in names]
    names = [len(name) for name in all_watches(place, inspection)]
    return Widths(max(names, default=1), max(map(len, steps), default=1))


def _matching(rows: Iterator[Row], glob: str | None) -> Iterator[Row]:
    if glob is None:
        return rows
    # Whole characters, not bytes, for '?'; a byte that is none becomes a character of its own.
    matches = re.compile(translate(glob)).match
    return (row for row in rows if matches(os.fsdecode(row.key.path)))
