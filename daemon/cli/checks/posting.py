"""What an `http` step needs here: its secret, and its certificates. Its server is not asked."""

import os
from collections.abc import Iterator

from daemon.cli.checks import Finding, quoted
from daemon.config_http import Secret, origin
from daemon.config_steps import HttpStep
from daemon.errors import ConfigError
from daemon.handlers.secrets import CREDENTIALS, place_of, read_key


def examine_posting(what: str, step: HttpStep) -> Iterator[Finding]:
    """Everything about a step that can be known without the network; no secret is repeated."""
    yield Finding("ok", f"{what}.http", f"{origin(step.http)}, which is not asked here")
    if step.secret:
        yield _secret(f"{what}.secret", step.secret, token=step.auth == "bearer")
    if step.ca or step.cert:
        yield _certificates(f"{what}.{'cert' if step.cert else 'ca'}", step)


def _secret(what: str, secret: Secret, *, token: bool) -> Finding:
    if secret.credential and not os.environ.get(CREDENTIALS):
        detail = f"the credential {secret.credential!r} is known to the service alone"
        return Finding("warning", what, detail, "ask in the unit: ExecStartPre=treewarden check")
    try:
        read_key(secret, token=token)
    except ConfigError as error:
        return _refused(what, error)
    return Finding("ok", what, f"{quoted(place_of(secret))}, which others cannot read")


def _certificates(what: str, step: HttpStep) -> Finding:
    # Imported here: 30 ms, for which few configurations have a use.
    from daemon.handlers.tls import context_of  # noqa: PLC0415

    try:
        context_of(step)
    except ConfigError as error:
        return _refused(what, error)
    files = [quoted(path) for path in (step.ca, step.cert, step.key) if path]
    return Finding("ok", what, f"{', '.join(files)}: can be used")


def _refused(what: str, error: ConfigError) -> Finding:
    (problem,) = error.problems
    return Finding("error", what, f"{quoted(problem.file)}: {problem.found}", problem.remedy)
