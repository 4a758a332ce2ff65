"""Handlers with the real daemon: secrets stay secret, names stay names, one bad file is alone."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import RunningDaemon
from tests.acceptance.sites import Site
from tests.acceptance.test_metrics import Local, ask

TOKEN = "s3cr3t-4f1e77"  # noqa: S105 - planted, to be looked for
NAMES = [b"--help", b"$(touch x)", b"a\nb", b"'\"`", b"\xff\xfe", b"{path} %s", b"; rm -rf ."]


def ended(site: Site, daemon: RunningDaemon, count: int, state: str = "done") -> None:
    query = "SELECT count(*) FROM files WHERE state = ?"
    daemon.wait_for(lambda _: site.sql(query, state) == [(count,)], f"{count} files {state}")


def arguments_of_everybody() -> Iterator[bytes]:
    """What `ps` shows."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / "cmdline").read_bytes()
            except OSError:
                continue


def test_a_secret_is_found_nowhere(site: Site) -> None:
    """Neither one in a credential nor one in a variable of the step, whatever is looked into."""
    effects, gate = site.effects(), site.gate()
    (site.folder / "credentials").mkdir()
    (site.folder / "credentials" / "token").write_text(TOKEN)
    site.environment["CREDENTIALS_DIRECTORY"] = str(site.folder / "credentials")
    body = (
        'read token <"$CREDENTIALS_DIRECTORY/token" || true\n'
        f'[ "$token" = {TOKEN[:6]}"${{TOKEN#??????}}" ] && echo same >"$EFFECTS"\n'
        'read _ <"$GATE"; echo "no luck" >&2; exit 3'
    )
    step = f'name = "s"\ncommand = [{site.script("uses", body)}, "{{path}}"]\nattempts = 1'
    socket = site.folder / "metrics"
    metrics = f'[metrics]\nlisten = "unix:{socket}"'
    site.configure(site.watch(f'{step}\nenv = {{ TOKEN = "{TOKEN}" }}'), daemon=metrics)
    daemon = site.start().ready()
    (site.tree / "file").write_text("x")
    assert effects.next() == b"same"
    seen = list(arguments_of_everybody())
    gate.open()
    ended(site, daemon, 1, "quarantined")
    config = ("--config", str(site.config))
    for question in (("status",), ("ls",), ("show", "file"), ("explain", "file"), ("check",)):
        for form in ((), ("--json",)):
            answer = site.run(question[0], *form, *config, *question[1:])
            seen += [answer.stdout.encode(), answer.stderr.encode()]
    seen += [ask(Local(socket), path)[1] for path in ("/metrics", "/health")]
    lines = daemon.stop()
    seen += [repr(lines).encode(), daemon.stderr.encode()]
    seen += [path.read_bytes() for path in site.state.rglob("*") if path.is_file()]
    assert [line["error"] for line in lines if line["event"] == "fail"] == [
        "exit status 3: no luck"
    ]
    assert len(seen) > 20
    assert not [text for text in seen if TOKEN.encode() in text]


@pytest.mark.parametrize("keys", ["", "batch = 100", 'batch = 100\nstdin = "paths0"'])
def test_hostile_names(site: Site, keys: str) -> None:
    """Each arrives as it is, absolute, as an argument of its own or as a name on stdin."""
    body = f'{{ for path; do printf "%s\\0" "$path"; done; cat; }} >>{site.folder}/got'
    argument = '"{path}"' if not keys else "" if "paths0" in keys else '"{paths}"'
    step = f'name = "s"\ncommand = [{site.script("says", body)}, {argument}]\n{keys}'
    site.configure(site.watch(step))
    daemon = site.start().ready()
    root = os.fsencode(site.tree)
    paths = {root + b"/" + name for name in NAMES}
    for path in paths:
        Path(os.fsdecode(path)).write_text("x")
    ended(site, daemon, len(NAMES))
    daemon.stop()
    assert set((site.folder / "got").read_bytes().split(b"\0")[:-1]) == paths


def test_one_bad_file_in_a_batch(site: Site) -> None:
    """It is refused alone; of the others none has spent a second attempt."""
    body = 'for path; do case "$path" in *bad) echo no table >&2; exit 65;; esac; done'
    step = f'name = "s"\ncommand = [{site.script("loads", body)}, "{{paths}}"]\nbatch = 100'
    for number in range(20):
        (site.tree / f"good{number}").write_text("x")
    (site.tree / "bad").write_text("x")
    site.configure(site.watch(step))
    daemon = site.start().ready()
    ended(site, daemon, 20)
    ended(site, daemon, 1, "quarantined")
    daemon.stop()
    query = "SELECT error FROM files WHERE state = 'quarantined'"
    assert site.sql(query) == [("exit status 65: no table",)]
    assert site.sql("SELECT max(attempt) FROM transitions WHERE trigger = 'start'") == [(1,)]


def test_missing_program_quarantines_nothing(site: Site) -> None:
    """A program that is not there spends no attempt; when it is, its files are handled."""
    program = site.folder / "later"
    breaker = 'breaker = { after = 1, first = "50ms", max = "50ms" }'
    step = f'name = "s"\ncommand = ["{program}"]\nattempts = 1\n{breaker}'
    site.configure(site.watch(step))
    daemon = site.start().ready()
    (site.tree / "file").write_text("x")
    assert "No such file" in daemon.line("interrupt", cause="unavailable")["error"]
    assert site.sql("SELECT failures FROM files") == [(0,)]
    site.script("later", "exit 0")
    ended(site, daemon, 1)
    daemon.stop()


def test_result_for_the_next_step(site: Site) -> None:
    """What one step prints, the next one has."""
    first = 'echo "{ \\"rows\\": 12 }"'
    second = f'printf %s "$TREEWARDEN_PREVIOUS" >{site.folder}/previous'
    site.configure(
        site.watch(
            f'name = "a"\ncommand = [{site.script("first", first)}]\nresult = "stdout"',
            f'name = "b"\ncommand = [{site.script("second", second)}]',
        )
    )
    daemon = site.start().ready()
    (site.tree / "file").write_text("x")
    ended(site, daemon, 1)
    daemon.stop()
    assert (site.folder / "previous").read_text() == '{"rows":12}'


def test_check_looks_at_how_a_program_runs(site: Site) -> None:
    """User, folder for the output and limits are looked at before the first file is."""
    keys = 'user = "nobody"\nlimits = { files = 64 }\noutput = "nowhere/{name}.log"'
    site.configure(site.watch(f'name = "s"\ncommand = ["true"]\n{keys}'))
    answer = site.run("check", "--config", str(site.config))
    assert answer.returncode == 78
    assert "w.s.output" in answer.stdout
    assert "there is no folder" in answer.stdout
    assert "w.s.user" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        ('"{relpath}"', True),
        ('"-v", "{name}.out"', True),
        ('"--", "{relpath}"', False),
        ('"{path}", "--in={name}"', False),
    ],
)
def test_check_warns_of_options(site: Site, arguments: str, *, warned: bool) -> None:
    """Where a name is what an argument begins with, a file may be called as an option is."""
    site.configure(site.watch(f'name = "s"\ncommand = ["true", {arguments}]'))
    answer = site.run("check", "--config", str(site.config))
    assert answer.returncode == 0
    assert ("would be taken for an option" in answer.stdout) is warned
