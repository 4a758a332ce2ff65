"""The TLS of a step: whom it trusts, and as whom it shows itself."""

import ssl
from pathlib import Path

from daemon.config_steps import HttpStep
from daemon.errors import ConfigError, Problem
from daemon.handlers.secrets import read_private


def context_of(step: HttpStep) -> ssl.SSLContext:
    """Servers are verified, against `ca` alone where it is given; there is no way not to.

    Raises:
        ConfigError: a file cannot be read or used, or the key is not safe where it is.
    """
    try:
        context = ssl.create_default_context(cafile=step.ca)
    except OSError as error:
        raise _refused(step.ca or Path(), error, "certificates of authorities in PEM") from None
    if step.cert and step.key:
        read_private(step.key)
        try:
            context.load_cert_chain(step.cert, step.key, password=_no_password)
        except (OSError, ValueError) as error:
            wanted = f"a certificate in PEM, and its own key, without a password, in {step.key}"
            raise _refused(step.cert, error, wanted) from None
    return context


def _no_password() -> str:
    """Keeps OpenSSL from asking for one on the terminal."""
    raise ValueError("the key has a password")


def _refused(path: Path, error: Exception, wanted: str) -> ConfigError:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ConfigError(
        [Problem(str(path), None, "", f"cannot be used: {said}", f"put {wanted} there")]
    )
