"""Secrets and certificates: safe ones alone are used, the right server gets them, none is told."""

import os
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.config_http import Secret
from daemon.errors import ConfigError
from daemon.handlers.http_answer import READ_BYTES
from daemon.handlers.secrets import LONGEST, Key, read_key
from tests.contract.posts import Answer, Line, Post, answering, job_of, response, sending, serving
from tests.unit import shortage

FILE = Path("/srv/incoming/a.csv")
TOKEN = "tok/en-0123456789"  # noqa: S105 - the one that is planted


def kept(folder: Path, text: str = TOKEN, mode: int = 0o600) -> Secret:
    path = folder / "token"
    path.write_text(text)
    path.chmod(mode)
    return Secret(file=path)


def _repeating(status: int, before: str = "", after: str = "", **headers: str) -> Answer:
    async def answer(post: Post, line: Line) -> None:
        told = post.headers["authorization"].removeprefix("Bearer ")
        await line.say(response(status, f"{before}{told}{after}", **headers))

    return answer


async def test_bearer(tmp_path: Path) -> None:
    """The token goes with every request, without the end of its line."""
    keys: dict[str, Any] = {"auth": "bearer", "secret": kept(tmp_path, f"{TOKEN}\r\n")}
    async with serving(answering(204)) as posts, sending(posts, **keys) as handler:
        assert (await handler.run(job_of(FILE))).verdict == "success"
    assert posts.got[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret may be one that systemd hands to the service."""
    kept(tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    keys: dict[str, Any] = {"auth": "bearer", "secret": Secret(credential="token")}
    async with serving(answering(204)) as posts, sending(posts, **keys) as handler:
        await handler.run(job_of(FILE))
    assert posts.got[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("fill", [0, READ_BYTES - 5, READ_BYTES - len(TOKEN), READ_BYTES])
@pytest.mark.parametrize("status", [401, 422, 500])
async def test_server_that_repeats_the_token(tmp_path: Path, status: int, fill: int) -> None:
    """A server that repeats the token, wherever in its answer, does not bring it into the error."""
    keys: dict[str, Any] = {"auth": "bearer", "secret": kept(tmp_path)}
    answer = _repeating(status, "x" * fill, " is no token")
    async with serving(answer) as posts, sending(posts, **keys) as handler:
        outcome = await handler.run(job_of(FILE))
        assert outcome.error
        assert TOKEN[:4] not in outcome.error
        assert TOKEN not in repr(handler) + repr(vars(handler))
    if not fill:
        assert outcome.error == f"HTTP {status}: [secret] is no token"


@pytest.mark.parametrize("escape", ["/", "\\/"])
async def test_result_that_repeats_the_token(tmp_path: Path, escape: str) -> None:
    """Nor does it into what the next step gets, escaped or not."""
    keys: dict[str, Any] = {"auth": "bearer", "secret": kept(tmp_path)}
    said = f'{{"you": "{TOKEN.replace("/", escape)}"}}'
    answer = answering(200, said, Content_Type="application/json")
    async with serving(answer) as posts, sending(posts, **keys) as handler:
        outcome = await handler.run(job_of(FILE))
    assert (outcome.verdict, outcome.result) == ("success", '{"you":"[secret]"}')


def _readable(path: Path) -> None:
    path.chmod(0o604)


def _writable(path: Path) -> None:
    path.chmod(0o620)


def _foreign(path: Path) -> None:
    os.chown(path, 12_345, -1)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def _filled(text: str) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        path.write_text(text)

    return fill


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_readable, "found mode 0604: others may read or write it"),
        (_writable, "found mode 0620: others may read or write it"),
        (_foreign, "found the file of user 12345, who could put another secret into it"),
        (_pipe, "found no regular file"),
        (_folder, "found no regular file"),
        (Path.unlink, "cannot be read: No such file or directory"),
        (_filled(""), "found 0 bytes"),
        (_filled("\n\n"), "found 0 bytes"),
        (_filled("sevench\n"), "found 7 bytes"),
        (_filled("two words and more"), "found what is no bearer token"),
        (_filled("two-lines\r\nX-More: 1"), "found what is no bearer token"),
        (_filled("t\u00f6ken-0123456789"), "found what is no bearer token"),
        (_filled("x" * (LONGEST + 1)), f"found more than {LONGEST} bytes"),
    ],
)
def test_unsafe_secrets(tmp_path: Path, spoil: Callable[[Path], None], found: str) -> None:
    """What others may know, or change, or what is no secret, is refused without being told."""
    if spoil is _foreign and os.geteuid():
        pytest.skip("only root gives files away")
    secret = kept(tmp_path)
    assert secret.file
    spoil(secret.file)
    with pytest.raises(ConfigError) as caught:
        read_key(secret, token=True)
    (problem,) = caught.value.problems
    assert (problem.file, problem.found) == (str(secret.file), found)
    assert not {"sevench", "two", "ken"} & set(str(problem).replace("-", " ").split())


def test_group_may_read(tmp_path: Path) -> None:
    """A file that root keeps for the group of the daemon is a good place."""
    assert read_key(kept(tmp_path, mode=0o640), token=True).bearer == f"Bearer {TOKEN}"


def test_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential outside of a service is told of as such."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match=r"CREDENTIALS_DIRECTORY is not set.*LoadCredential=api:"):
        read_key(Secret(credential="api"), token=True)


def test_key_shows_itself_to_nobody() -> None:
    """No way of printing a key prints the secret."""
    key = Key(TOKEN.encode())
    assert TOKEN not in f"{key} {key!r} {[key]} {vars(Key)}"


class Authority:
    """Certificates for this host, of an authority of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        # Python from 3.13 on wants of an authority that it says what its key is for.
        subject = ["-subj", "/CN=test authority", "-addext", "basicConstraints=critical,CA:TRUE"]
        use = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        self._openssl("req", "-x509", *subject, *use, "-keyout", "ca.key", "-out", "ca.pem")

    def certify(self, name: str, host: str = "IP:127.0.0.1") -> tuple[Path, Path]:
        """A certificate and its key, which is 0600 as OpenSSL makes it."""
        made = [f"{name}.key", f"{name}.pem"]
        use = ["-addext", "basicConstraints=critical,CA:FALSE"]
        use += ["-addext", "keyUsage=critical,digitalSignature"]
        self._openssl(
            *("req", "-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName={host}", *use, "-keyout", made[0], "-out", made[1]),
        )
        return self.folder / made[1], self.folder / made[0]

    def lock(self, key: Path, locked: Path) -> None:
        """The same key with a password."""
        to = ["-aes128", "-passout", "pass:x", "-out", str(locked)]
        self._run("openssl", "pkey", "-in", str(key), *to)

    def _openssl(self, *arguments: str) -> None:
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        self._run("openssl", *arguments, *new)

    def _run(self, *command: str) -> None:
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody else trusts."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def served(authority: Authority) -> ssl.SSLContext:
    """The TLS of a server for 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certify("server"))
    return context


async def test_tls(authority: Authority, served: ssl.SSLContext) -> None:
    """A server with a certificate of the authority that the step names is posted to."""
    server = serving(answering(204), tls=served)
    async with server as posts, sending(posts, "https", ca=authority.ca) as handler:
        assert (await handler.run(job_of(FILE))).verdict == "success"


async def test_untrusted(served: ssl.SSLContext, tmp_path: Path) -> None:
    """A server that shows another authority's certificate gets nothing, and no file is to blame."""
    keys: dict[str, Any] = {"auth": "bearer", "secret": kept(tmp_path)}
    server = serving(answering(204), tls=served)
    async with server as posts, sending(posts, "https", **keys) as handler:
        outcome = await handler.run(job_of(FILE))
    assert (outcome.verdict, posts.got) == ("unavailable", [])
    assert "no safe connection" in (outcome.error or "")
    assert "unable to get local issuer certificate" in (outcome.error or "")


async def test_another_host(authority: Authority) -> None:
    """A certificate that is good for another host is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certify("other", "DNS:other.example"))
    server = serving(answering(204), tls=context)
    async with server as posts, sending(posts, "https", ca=authority.ca) as handler:
        outcome = await handler.run(job_of(FILE))
    assert (outcome.verdict, posts.got) == ("unavailable", [])
    assert "IP address mismatch" in (outcome.error or "")


async def test_no_tls_there() -> None:
    """A server that speaks no TLS is not spoken to without it."""
    server = serving(answering(204))
    async with server as posts, sending(posts, "https", connect=0.3) as handler:
        outcome = await handler.run(job_of(FILE))
    assert (outcome.verdict, posts.got) == ("unavailable", [])


@pytest.mark.parametrize("shown", [True, False])
async def test_client_certificate(authority: Authority, shown: bool) -> None:  # noqa: FBT001
    """A server that wants to know who we are is shown the step's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certify("server2"))
    context.load_verify_locations(authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    cert, key = authority.certify("client")
    keys: dict[str, Any] = {"cert": cert, "key": key} if shown else {}
    server = serving(answering(204), tls=context)
    async with server as posts, sending(posts, "https", ca=authority.ca, **keys) as handler:
        outcome = await handler.run(job_of(FILE))
    if shown:
        assert outcome.verdict == "success"
    else:  # the server's reason may be overtaken by the end of its connection
        assert outcome.verdict == "unavailable" or outcome.suspect
        assert posts.got == []


@pytest.mark.parametrize("broken", ["ca", "cert", "key", "mode", "other key", "password"])
async def test_bad_certificates(authority: Authority, tmp_path: Path, broken: str) -> None:
    """Files that TLS cannot use, or that others can read, are found before anything starts."""
    cert, key = authority.certify("client2")
    _, other = authority.certify("client3")
    keys: dict[str, Any] = {"ca": authority.ca, "cert": cert, "key": key}
    bad = tmp_path / "bad.pem"
    bad.write_text("-----BEGIN NONSENSE-----")
    bad.chmod(0o600)
    if broken in keys:
        keys[broken] = bad
    elif broken == "other key":
        keys["key"] = other
    elif broken == "mode":
        bad.write_bytes(key.read_bytes())
        bad.chmod(0o644)
        keys["key"] = bad
    else:
        authority.lock(key, bad)
        keys["key"] = bad
    with pytest.raises(ConfigError) as caught:
        async with sending(1, "https", **keys):
            pass
    (problem,) = caught.value.problems
    assert problem.file in {str(bad), str(cert)}


@pytest.mark.parametrize("body", ["event", "file"])
async def test_no_descriptor(tmp_path: Path, body: Any) -> None:
    """Without a descriptor for the connection, or for the file, it is put off."""
    path = tmp_path / "a"
    path.write_bytes(b"x")
    async with serving(answering(204)) as posts, sending(posts, body=body) as handler:
        job = job_of(path)
        with shortage.of_descriptors():
            outcome = await handler.run(job)
    assert outcome.verdict == "defer"
    assert "Too many open files" in (outcome.error or "")
