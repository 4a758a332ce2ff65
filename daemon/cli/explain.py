"""`treewarden explain`: why a file is where it is, and what it waits for.

Unlike the other commands that read, this one needs all of the configuration, and looks at the disk.
"""

import shlex
from pathlib import Path

import click

from daemon.cli import json_form, render, text_form
from daemon.cli.answers import Explanation
from daemon.cli.options import config_option, json_option
from daemon.cli.places import Place, all_watches, expect_watches, find_place, keys_of
from daemon.store.inspect import Inspection, inspect


@click.command()
@config_option
@json_option
@click.option("--watch", "watches", multiple=True, help="Only in this watch.")
@click.argument("path")
def explain(config: Path, *, as_json: bool, watches: tuple[str, ...], path: str) -> int:
    """Say why a file is where it is, and what is missing for it to go on.

    PATH is absolute, or relative to the watched folder or to the present one; where several watches
    have such a file, all are explained. Ask as the user that the daemon runs as, or as root: others
    may not see who has a file open. Exit code 0 where nothing is amiss (done, gone, ready,
    processing, or a manifest whose files have settled), 1 where a file waits for something:
    settling, failed, quarantined, held, not known, or not looked at yet. With --json each file is
    one line.
    """
    place = find_place(config)
    with inspect(place.database) as inspection:
        expect_watches(place, inspection, watches)
        chosen = watches or tuple(all_watches(place, inspection))
        found = _explanations(config, place, inspection, chosen, path)
    if as_json:
        render.print_lines(json_form.of_explanation(one, path) for one in found)
    else:
        render.print_lines(line for one in found for line in text_form.of_explanation(one, path))
    return 1 if any(one.waits for one in found) else 0


def _explanations(
    config: Path, place: Place, inspection: Inspection, watches: tuple[str, ...], path: str
) -> list[Explanation]:
    """One for each watch that has the file, at least one in all."""
    # Imported here: `--help` need not wait for everything that is looked at.
    from daemon.cli.evidence import gather, look_around  # noqa: PLC0415
    from daemon.cli.reasons import explained, of_no_watch  # noqa: PLC0415

    scene = look_around(config, place)
    seen = [gather(scene, inspection, key) for key in keys_of(place, watches, path)]
    # A path that is named from its root on is explained, even if nothing was ever there.
    absolute = path.startswith("/")
    known = [one for one in seen if one.row or one.is_there or absolute]
    if not known:
        return [of_no_watch(place.roots, absolute=absolute)]
    confirmations = (text_form.confirmation(config, one.key.watch) for one in known)
    return [
        explained(scene, one, shlex.join(words))
        for one, words in zip(known, confirmations, strict=True)
    ]
