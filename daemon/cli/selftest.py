"""`treewarden selftest`: the adversarial checks, on the machine where the daemon will run."""

import asyncio
import json
import tempfile
import time
from pathlib import Path

import click

from daemon import locate
from daemon.cli import render
from daemon.cli.options import config_option, json_option
from daemon.errors import ServiceError
from daemon.handlers.command import install_child_watcher


@click.command()
@config_option
@json_option
@click.pass_context
def selftest(ctx: click.Context, config: Path, *, as_json: bool) -> None:
    """Try to break the engine here, in a temporary folder beside the state folder."""
    install_child_watcher()
    state = locate.state_dir(locate.read_toml(config), config)
    try:
        with tempfile.TemporaryDirectory(
            prefix=".treewarden-selftest-", dir=_existing(state)
        ) as folder:
            failed = asyncio.run(_run(Path(folder), as_json=as_json))
    except OSError as error:
        raise ServiceError(f"{error.filename or state}: {error.strerror}") from error
    if not as_json and not failed:
        render.print_lines(["ALL CHECKS PASSED"])
    ctx.exit(1 if failed else 0)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above that exists: the same file system, most likely."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


async def _run(folder: Path, *, as_json: bool) -> int:
    """Run every check and report each as it ends; the number that failed."""
    from daemon.cli.adversary import CHECKS, CheckFailed  # noqa: PLC0415 - the engine is slow to import

    failed = 0
    for name, check in CHECKS.items():
        began = time.monotonic()
        try:
            passed, detail = True, await check(folder)
        except CheckFailed as error:
            passed, detail = False, str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this check that failed
            passed, detail = False, f"{type(error).__name__}: {error}"
        failed += not passed
        took = round((time.monotonic() - began) * 1000)
        _report(name, detail, took, passed=passed, as_json=as_json)
    return failed


def _report(name: str, detail: str, took: int, *, passed: bool, as_json: bool) -> None:
    if as_json:
        answer = {"check": name, "passed": passed, "detail": detail, "duration_ms": took}
        render.print_lines([json.dumps(answer)])
    else:
        render.print_lines([f"{'ok' if passed else 'FAILED':<7} {name}: {detail}"])
