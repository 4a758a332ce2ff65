"""`[metrics]` with the real daemon: asked over the wire, refused, and left out."""

import http.client
import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.harness import DEADLINE
from tests.acceptance.sites import Site

LIBRARIES = {"aiohttp", "prometheus_client"}


class Local(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def configure(site: Site, listen: str, *steps: str) -> None:
    metrics = f"[metrics]\nlisten = {json.dumps(listen)}"
    site.configure(site.watch(*steps), daemon=metrics)


def ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    with closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def ask_port(port: int, path: str) -> tuple[int, bytes]:
    return ask(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE), path)


def files(text: bytes) -> dict[str, float]:
    """How many files are in each state, without those that none is in."""
    families = {f.name: f for f in text_string_to_metric_families(text.decode())}
    samples = families["treewarden_files"].samples
    return {sample.labels["state"]: sample.value for sample in samples if sample.value}


def checked(site: Site) -> dict[str, Any]:
    answer = site.run("check", "--json", "--config", str(site.config))
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    (finding,) = [finding for finding in found if finding["what"] == "metrics.listen"]
    return dict(finding)


def imported(stderr: str) -> set[str]:
    """The packages that a process imported: `PYTHONPROFILEIMPORTTIME` makes it name them."""
    lines = [line for line in stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_files_are_counted_as_they_are_handled(site: Site) -> None:
    """A scrape tells where each file is, and a health check that all is well, until the stop."""
    effects, gate = site.effects(), site.gate()
    script = site.script("load", 'echo "$TREEWARDEN_RELPATH" >"$EFFECTS"; read x <"$GATE"')
    port = free_port()
    configure(site, f"127.0.0.1:{port}", f'name = "load"\ncommand = [{script}]')
    daemon = site.start().ready()
    assert ask_port(port, "/health") == (200, b'{"status":"ok","reasons":[]}')
    (site.tree / "a").write_text("a")
    assert effects.next() == b"a"
    status, text = ask_port(port, "/metrics")
    assert (status, files(text)) == (200, {"processing": 1})
    assert b"\ntreewarden_handlers_running 1.0\n" in text
    gate.open()
    daemon.done("a")
    assert files(ask_port(port, "/metrics")[1]) == {"done": 1}
    daemon.stop()
    with pytest.raises(ConnectionRefusedError):
        ask_port(port, "/health")


def test_health_while_it_drains(site: Site) -> None:
    """Until the last handler has ended it answers, and says that the end has begun."""
    effects, gate = site.effects(), site.gate()
    script = site.script("load", 'echo "$TREEWARDEN_RELPATH" >"$EFFECTS"; read x <"$GATE"')
    path = site.folder / "metrics.sock"
    configure(site, "unix:metrics.sock", f'name = "load"\ncommand = [{script}]')
    daemon = site.start().ready()
    (site.tree / "a").write_text("a")
    effects.next()
    daemon.process.terminate()
    daemon.line("daemon.stopping")
    status, answer = ask(Local(path), "/health")
    assert (status, json.loads(answer)["reasons"]) == (503, ["the daemon stops"])
    gate.open()
    assert daemon.wait() == 0
    assert daemon.state("a") == "done"
    assert not path.exists()


def test_a_root_that_is_taken_away(site: Site) -> None:
    """A watch without its folder is not served; once it is back, all is well again."""
    path = site.folder / "metrics.sock"
    configure(site, "unix:metrics.sock")
    daemon = site.start().ready()
    away = site.tree.rename(site.folder / "away")
    daemon.line("daemon.root_lost")
    status, answer = ask(Local(path), "/health")
    assert (status, json.loads(answer)["reasons"]) == (503, ["w: there is no folder to watch"])
    text = ask(Local(path), "/metrics")[1]
    assert b'\ntreewarden_root_present{watch="w"} 0.0\n' in text
    assert b'\ntreewarden_removals_frozen{watch="w"} 1.0\n' in text
    away.rename(site.tree)
    daemon.line("daemon.root_back")
    assert ask(Local(path), "/health")[0] == 200
    daemon.stop()


def test_a_killed_daemon_is_followed_by_another(site: Site) -> None:
    """The socket that was left behind is in nobody's way."""
    path = site.folder / "metrics.sock"
    configure(site, "unix:metrics.sock")
    site.start().ready().kill()
    assert path.is_socket()
    daemon = site.start().ready()
    assert ask(Local(path), "/health")[0] == 200
    daemon.stop()


def test_an_address_in_use(site: Site) -> None:
    """The start ends with 74 and one sentence, which `check` says as well."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        configure(site, f"127.0.0.1:{port}")
        finding = checked(site)
        ended = site.refused()
    assert (ended.returncode, ended.stdout) == (74, "")
    assert ended.stderr == (
        f"treewarden: cannot listen at 127.0.0.1:{port}: Address already in use; "
        "end whoever has it, or name another in metrics.listen\n"
    )
    assert finding["level"] == "error"
    assert "Address already in use" in finding["detail"]


def test_no_address_is_a_configuration_error(site: Site) -> None:
    """The start ends with 78, and the line and the key are named."""
    configure(site, "9464")
    ended = site.refused()
    assert ended.returncode == 78
    assert f"{site.config}:6: metrics.listen: found '9464'; write \"host:port\"" in ended.stderr


FINDINGS = [
    ("127.0.0.1", "ok", "this host alone"),
    ("[::1]", "ok", "this host alone"),
    ("0.0.0.0", "warning", "other hosts"),  # noqa: S104 - looked at, not listened at
    ("192.0.2.1", "error", "Cannot assign"),
    ("no-such-host.invalid", "error", "not known"),
]


@pytest.mark.parametrize(("host", "level", "detail"), FINDINGS)
def test_check_tells_who_could_ask(site: Site, host: str, level: str, detail: str) -> None:
    """Loopback is good, more than that a warning, and what cannot be had an error."""
    configure(site, f"{host}:{free_port()}")
    finding = checked(site)
    assert finding["level"] == level
    assert detail in finding["detail"]
    assert (finding["remedy"] is None) == (level == "ok")


SOCKETS = [("m.sock", "ok"), ("none/m.sock", "error"), ("config.toml", "error")]


@pytest.mark.parametrize(("path", "level"), SOCKETS)
def test_check_looks_at_the_place_of_a_socket(site: Site, path: str, level: str) -> None:
    """A folder that is not there, or a file in the socket's place, is an error; nothing is made."""
    configure(site, f"unix:{path}")
    before = sorted(site.folder.iterdir())
    assert checked(site)["level"] == level
    assert sorted(site.folder.iterdir()) == before


def test_check_beside_the_daemon(site: Site) -> None:
    """The port that the daemon has is not a port that is in use."""
    configure(site, f"127.0.0.1:{free_port()}")
    daemon = site.start().ready()
    assert checked(site)["level"] == "ok"
    daemon.stop()


@pytest.mark.parametrize("configured", [False, True])
def test_the_libraries_are_imported_only_where_needed(site: Site, *, configured: bool) -> None:
    """A daemon without metrics does not carry aiohttp and prometheus-client: 14 MB."""
    site.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    if configured:
        configure(site, f"127.0.0.1:{free_port()}")
    else:
        site.configure(site.watch())
    daemon = site.start().ready()
    daemon.process.terminate()
    assert daemon.wait() == 0
    found = imported(daemon.stderr)
    assert "aiosqlite" in found
    assert LIBRARIES & found == (LIBRARIES if configured else set())
