"""Steps of the kind `http`: what is read, what is refused, and that no refusal tells a secret."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.config import load
from daemon.config_http import Secret
from daemon.config_steps import HttpStep
from daemon.errors import ConfigError, Problem

GOOD = """\
[daemon]
state_dir = "state"
[[watch]]
name = "in"
path = "tree"
[[watch.step]]
name = "post"
http = "https://example.com/in"
"""

Write = Callable[..., Path]
PLANTED = "hunter2secret"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the configuration beside the folder that it watches."""
    (tmp_path / "tree").mkdir()

    def write(*more: str, url: str = "https://example.com/in") -> Path:
        path = tmp_path / "config.toml"
        path.write_text("\n".join([GOOD.replace("https://example.com/in", url), *more]))
        return path

    return write


def step_of(path: Path) -> HttpStep:
    (step,) = load(path).watch[0].step
    assert isinstance(step, HttpStep)
    return step


def problem_of(path: Path) -> Problem:
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert PLANTED not in str(problem)
    return problem


def test_defaults(write: Write) -> None:
    """A URL is enough; everything else has a default that is safe."""
    step = step_of(write())
    assert step == HttpStep(name="post", http="https://example.com/in")
    assert (step.body, step.connect, step.auth, step.secret) == ("event", 10.0, None, None)


def test_everything(write: Write, tmp_path: Path) -> None:
    """Every key is read; paths start at the folder of the configuration."""
    step = step_of(
        write(
            'body = "file"',
            'headers = { "X-Team" = "files" }',
            'connect = "3s"',
            'auth = "hmac-sha256"',
            'secret = { file = "keys/hmac" }',
            'signature_header = "X-Hub-Signature-256"',
            'ca = "ca.pem"',
            'cert = "client.pem"',
            'key = "keys/client.key"',
        )
    )
    assert step.headers == (("X-Team", "files"),)
    assert step.secret == Secret(file=tmp_path / "keys" / "hmac")
    assert (step.ca, step.cert) == (tmp_path / "ca.pem", tmp_path / "client.pem")
    assert step.key == tmp_path / "keys" / "client.key"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "https://example.com:8443/a/b?c=d&e=%20",
        "https://example.com?x",
        "http://[::1]:80/",
        "https://a_b-c.example./",
    ],
)
def test_urls(write: Write, url: str) -> None:
    """A URL is taken as it is written."""
    assert step_of(write(url=url)).http == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/hunter2secret",
        "https://",
        "https:///hunter2secret",
        "https://u:hunter2secret@example.com/",
        "https://example.com:99999/hunter2secret",
        "https://example.com:0/",
        "https://example.com/hunter2secret#here",
        "https://example.com/hunter2secret x",
        "https://example.com/hunter2secret\\nX: y",
        "https://ex\u00e4mple.com/hunter2secret",
        "https://[::1/hunter2secret",
        "https://-example.com/",
        "https://example.com/hunter2secret/{name}",
    ],
)
def test_no_urls(write: Write, url: str) -> None:
    """What is no URL that could be posted to is one problem, which does not repeat it."""
    problem = problem_of(write(url=url))
    assert (problem.line, problem.key) == (8, "watch[0].step[0].http")


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('secret = "hunter2secret"\nauth = "bearer"', "secret"),
        ('secret = ["hunter2secret"]\nauth = "bearer"', "secret"),
        ('secret = {}\nauth = "bearer"', "secret"),
        ('secret = { file = "a", credential = "b" }\nauth = "bearer"', "secret"),
        ('secret = { credential = ".." }\nauth = "bearer"', "secret.credential"),
        ('secret = { credential = "../b" }\nauth = "bearer"', "secret.credential"),
        ('secret = { file = "" }\nauth = "bearer"', "secret.file"),
        ('secret = { value = "hunter2secret" }\nauth = "bearer"', "secret.value"),
        ('secret = { file = "a" }', "secret"),
        ('auth = "bearer"', "auth"),
        ('auth = "basic"\nsecret = { file = "a" }', "auth"),
        ('cert = "a"', "cert"),
        ('key = "a"', "key"),
        ("verify = false", "verify"),
        ('method = "PUT"', "method"),
        ('headers = "X: hunter2secret"', "headers"),
        ('headers = { "X Y" = "hunter2secret" }', "headers.'X Y'"),
        ('headers = { "X" = "hunter2secret\\r\\nY: z" }', "headers.X"),
        ('headers = { "X" = "hunter2secret\u00e4" }', "headers.X"),
        ('headers = { "X" = 7 }', "headers.X"),
        ('headers = { "X" = "1", "x" = "2" }', "headers.x"),
        ('headers = { "Host" = "hunter2secret" }', "headers.Host"),
        ('headers = { "Content-Length" = "7" }', "headers.Content-Length"),
        ('headers = { "Idempotency-Key" = "7" }', "headers.Idempotency-Key"),
        ('headers = { "ce-id" = "7" }', "headers.ce-id"),
        ('headers = { "Content-Type" = "text/csv" }', "headers.Content-Type"),
        ('headers = { "Authorization" = "Basic hunter2secret" }', "headers.Authorization"),
        ('signature_header = "Content-Length"', "signature_header"),
        ('body = "all"', "body"),
        ('connect = "0s"', "connect"),
    ],
)
def test_refused(write: Write, lines: str, key: str) -> None:
    """What is wrong is one problem at its key, and what may be a secret is not repeated."""
    assert problem_of(write(lines)).key == f"watch[0].step[0].{key}"


def test_signature_header_twice(write: Write) -> None:
    """The header of the signature cannot be one of the step's own."""
    more = 'auth = "hmac-sha256"\nsecret = { file = "a" }\nsignature_header = "X-S"'
    problem = problem_of(write(more, 'headers = { "x-s" = "1" }'))
    assert problem.key == "watch[0].step[0].headers.x-s"


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("http://example.com/", True),
        ("http://127.example.com/", True),
        ("http://127.0.0.1:8000/", False),
        ("http://localhost/", False),
        ("http://[::1]/", False),
        ("https://example.com/", False),
    ],
)
def test_token_in_the_clear(write: Write, url: str, refused: bool) -> None:  # noqa: FBT001
    """A token is sent over TLS, or to this host."""
    path = write('auth = "bearer"\nsecret = { file = "a" }', url=url)
    if refused:
        assert problem_of(path).key == "watch[0].step[0].auth"
    else:
        assert step_of(path).auth == "bearer"


def test_certificates_without_tls(write: Write) -> None:
    """Certificates beside a URL without TLS are a mistake."""
    path = write('ca = "ca.pem"', url="http://localhost/")
    assert problem_of(path).key == "watch[0].step[0].ca"


def test_without_the_extra(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where aiohttp is not installed, the problem is the command that installs it."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    problem = problem_of(write())
    assert problem.found == "nothing can be sent without aiohttp"
    assert problem.remedy == f"run {sys.executable} -m pip install 'treewarden[http]'"
