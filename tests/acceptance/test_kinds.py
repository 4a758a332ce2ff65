"""Steps of several kinds in the real daemon, one after the other on the same file."""

import json
import signal
from pathlib import Path

from tests.acceptance.sites import Site
from tests.acceptance.test_metrics import Local, ask

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "worker.py"
MODULE = """
from daemon.handlers import Job, Reject

def check(job: Job) -> dict[str, int]:
    print("looking at", job.name)
    if job.name == "bad":
        raise Reject(f"{job.previous['lines']} lines are too few")
    return {"lines": job.previous["lines"], "size": job.size}

async def note(job: Job) -> None:
    print("noting", job.previous)
"""


def steps(site: Site) -> list[str]:
    (site.folder / "shop.py").write_text(MODULE)
    return [
        f'name = "count"\nworker = {json.dumps([str(EXAMPLE)])}\nprocesses = 2',
        'name = "check"\nfunction = "shop:check"\npath = ["."]',
        'name = "again"\nfunction = "shop:check"\npath = ["."]\npool = "process"',
        'name = "note"\nfunction = "shop:note"\npath = ["."]',
    ]


def test_one_after_the_other(site: Site) -> None:
    """A worker's result reaches functions in a thread, a process, the loop; none spoils the log."""
    site.configure(site.watch(*steps(site)))
    daemon = site.start().ready()
    (site.tree / "good").write_text("1\n2\n")
    daemon.done("good")
    (site.tree / "bad").write_text("1\n")
    assert daemon.line("reject", path="bad")["error"] == "1 lines are too few"
    assert daemon.state("bad") == "quarantined"
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert "looking at good" in daemon.stderr
    assert "noting {'lines': 2, 'size': 4}" in daemon.stderr
    assert site.orphans() == []


def test_workers_of_a_killed_daemon(site: Site) -> None:
    """Workers end when the daemon is killed, and the next one has its own."""
    site.configure(site.watch(*steps(site)))
    daemon = site.start().ready()
    (site.tree / "a").write_text("1\n")
    daemon.done("a")
    daemon.kill()
    again = site.start().ready()
    (site.tree / "b").write_text("1\n")
    again.done("b")
    again.signal(signal.SIGTERM)
    assert again.wait() == 0
    assert site.orphans() == []


def test_end_of_a_worker_is_told(site: Site) -> None:
    """The log and the metrics tell of a worker that ends, and another one takes over."""
    body = """while read line; do case "$line" in
        *ping*) echo '{"pong":1}';;
        *'"attempt":1'*) echo "no more" >&2; exit 7;;
        *) echo '{"id":2,"outcome":"success"}';;
    esac; done"""
    socket = site.folder / "metrics"
    step = f'name = "s"\nworker = [{site.script("dies", body)}]\nbackoff.first = "50ms"'
    site.configure(site.watch(step), daemon=f'[metrics]\nlisten = "unix:{socket}"')
    daemon = site.start().ready()
    (site.tree / "a").write_text("1\n")
    ended = daemon.line("daemon.worker_ended", watch="w", step="s", reason="crash")
    assert ended["error"] == "the worker ended: exit status 7: no more"
    daemon.done("a")
    told = ask(Local(socket), "/metrics")[1]
    assert b'treewarden_step_workers_ended_total{step="s",watch="w"} 1.0' in told
    daemon.stop()


def test_function_that_is_not_there(site: Site) -> None:
    """Neither `check` nor `run` goes on with a function that cannot be used; both say which."""
    site.configure(site.watch('name = "x"\nfunction = "nowhere:f"'))
    for answer in (site.refused(), site.run("check", "--config", str(site.config))):
        assert answer.returncode == 78
        assert "watch[0].step[0].function: cannot import 'nowhere'" in answer.stdout + answer.stderr
