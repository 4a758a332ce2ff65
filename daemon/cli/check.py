"""`treewarden check`: the configuration, then everything around it."""

from pathlib import Path

import click

from daemon.cli import json_form, render, text_form
from daemon.cli.checks import Finding
from daemon.cli.options import config_option, json_option
from daemon.errors import ConfigError, Problem


@click.command()
@config_option
@json_option
def check(config: Path, *, as_json: bool) -> int:
    """Look for what would keep the daemon from working, and say all of it at once.

    One line a finding: ok, warning or error, what it is about, the detail, the remedy. Ask as the
    user that the daemon runs as. Exit code 0 without an error, 78 with one.
    """
    # Imported here: `--help` need not wait for all that is looked at.
    from daemon.cli.checks.environment import examine  # noqa: PLC0415
    from daemon.cli.loading import load_whole  # noqa: PLC0415

    try:
        loaded = load_whole(config)
    except ConfigError as error:
        _print_problems(error.problems, as_json=as_json)
        return error.exit_code
    findings = list(examine(loaded))
    _print_findings(findings, as_json=as_json)
    refused = any(finding.level == "error" for finding in findings)
    return ConfigError.exit_code if refused else 0


def _print_problems(problems: list[Problem], *, as_json: bool) -> None:
    render.print_lines(map(json_form.of_problem if as_json else text_form.of_problem, problems))


def _print_findings(findings: list[Finding], *, as_json: bool) -> None:
    text = map(json_form.of_finding, findings) if as_json else text_form.of_findings(findings)
    render.print_lines(text)
