"""The unit as shipped, under a real systemd: started, killed, hung, misconfigured, stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.nspawn import Guest, Record, booted, why_not

UNIT = "treewarden.service"
STARTED = "39f53479d3a045ac8e11786248231fbf"  # SD_MESSAGE_UNIT_STARTED

CONFIG = """\
[daemon]
node = "guest"
drain = "5s"

[[watch]]
name = "incoming"
path = "/srv/incoming"
exclude = ["*.tmp"]

[watch.settle]
quiet = "50ms"
writers = "probe"

[[watch.step]]
name = "copy"
command = ["/bin/cp", "{path}", "/srv/outgoing/"]
"""

# Files arrive as root's, readable to the daemon by group only: its lease needs CAP_LEASE.
FOLDERS = """\
d /srv/incoming 2750 root       treewarden
d /srv/outgoing 0750 treewarden treewarden
"""

# The deviations from the files as shipped: nobody waits for half a minute here, and systemd forgets
# how a unit ended that ended well.
HURRY = """\
[Service]
RestartSec=100ms
WatchdogSec=3s
TimeoutAbortSec=1s
ExecStopPost=/bin/sh -c 'echo "ended: $SERVICE_RESULT, $EXIT_CODE $EXIT_STATUS"'
"""

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """A guest with the project installed and configured, and the service not yet started."""
    with booted(tmp_path) as guest:
        (guest.root / "usr/lib/tmpfiles.d/srv.conf").write_text(FOLDERS)
        (guest.root / f"etc/systemd/system/{UNIT}.d/hurry.conf").write_text(HURRY)
        guest.run("systemd-sysusers")
        guest.run("systemd-tmpfiles", "--create")
        (guest.root / "etc/treewarden/config.toml").write_text(CONFIG)
        guest.run("systemctl", "daemon-reload")
        yield guest


def drop(guest: Guest, name: str) -> None:
    """Deliver a file as a careful sender does: complete under its final name at once."""
    inside = f"/srv/incoming/{name}"
    guest.run("sh", "-c", f"umask 027; echo {name} >{inside}.tmp; mv {inside}.tmp {inside}")


def delivered(guest: Guest, name: str) -> str:
    return (guest.root / "srv/outgoing" / name).read_text()


def started(record: Record) -> bool:
    return record.get("MESSAGE_ID") == STARTED


def done(name: str) -> dict[str, object]:
    return {"event": "succeed", "outcome": "success", "to_state": "done", "path": name}


def test_a_file_dropped_in_is_done(guest: Guest) -> None:
    """`start` returns at READY; a file of root's is handled, on the evidence of a read lease."""
    guest.run("systemctl", "start", UNIT)
    shown = guest.show(UNIT, "ActiveState", "StatusText", "User")
    assert (shown["ActiveState"], shown["User"]) == ("active", "treewarden")
    assert shown["StatusText"]
    drop(guest, "a.csv")
    with guest.journal(UNIT) as journal:
        # By its first look, where that comes late.
        settled = journal.until_line(path="a.csv", to_state="ready")
        journal.until_line(**done("a.csv"))
    assert settled["evidence"] == "quiet+lease"
    assert delivered(guest, "a.csv") == "a.csv\n"


def test_state_and_runtime_folders(guest: Guest) -> None:
    """Both folders are made for the daemon alone, and the database is in the first."""
    guest.run("systemctl", "start", UNIT)
    for folder in ("/var/lib/treewarden", "/run/treewarden"):
        assert guest.run("stat", "-c", "%A %U %G", folder) == "drwxr-x--- treewarden treewarden\n"
    mode = guest.run("stat", "-c", "%A %U", "/var/lib/treewarden/treewarden.db").split()
    assert mode[1] == "treewarden"
    assert mode[0].endswith("---")


def test_a_killed_daemon_is_restarted(guest: Guest) -> None:
    """After SIGKILL systemd starts the daemon again, and it goes on with the next file."""
    guest.run("systemctl", "start", UNIT)
    before = guest.show(UNIT, "MainPID")["MainPID"]
    with guest.journal(UNIT) as journal:
        journal.until(started)
        guest.run("systemctl", "kill", "--kill-who=main", "--signal=SIGKILL", UNIT)
        drop(guest, "b.csv")
        journal.until(started)
        journal.until_line(**done("b.csv"))
    shown = guest.show(UNIT, "MainPID", "NRestarts")
    assert shown["NRestarts"] == "1"
    assert shown["MainPID"] != before
    assert delivered(guest, "b.csv") == "b.csv\n"


def test_a_hung_daemon_is_restarted(guest: Guest) -> None:
    """A daemon that is stopped dead misses its watchdog and is started again."""
    guest.run("systemctl", "start", UNIT)
    with guest.journal(UNIT) as journal:
        journal.until(started)
        guest.run("systemctl", "kill", "--kill-who=main", "--signal=SIGSTOP", UNIT)
        result = journal.until(lambda record: "UNIT_RESULT" in record)
        journal.until(started)
    assert result["UNIT_RESULT"] == "watchdog"
    assert guest.show(UNIT, "NRestarts")["NRestarts"] == "1"


def test_the_watchdog_is_fed(guest: Guest) -> None:
    """A daemon that is well feeds its watchdog: it outlives the time that one feeding lasts."""
    guest.run("systemctl", "start", UNIT)
    feedings = {guest.show(UNIT, "WatchdogTimestampMonotonic")["WatchdogTimestampMonotonic"]}
    while max(map(int, feedings)) - min(map(int, feedings)) < 3_500_000:  # WatchdogSec is 3 s
        feedings |= set(guest.show(UNIT, "WatchdogTimestampMonotonic").values())
    shown = guest.show(UNIT, "ActiveState", "NRestarts")
    assert shown == {"ActiveState": "active", "NRestarts": "0"}


def test_a_broken_configuration_is_not_retried(guest: Guest) -> None:
    """A configuration that cannot be used ends with 78, named in the journal, and stays ended."""
    with (guest.root / "etc/treewarden/config.toml").open("a") as config:
        config.write("atempts = 5\n")
    assert guest.try_run("systemctl", "start", UNIT).returncode != 0
    shown = guest.show(UNIT, "ActiveState", "SubState", "ExecMainStatus", "NRestarts")
    assert shown == {
        "ActiveState": "failed",
        "SubState": "failed",
        "ExecMainStatus": "78",
        "NRestarts": "0",
    }
    with guest.journal(UNIT) as journal:
        journal.until(lambda record: "atempts" in str(record.get("MESSAGE")))


def test_stop_is_clean(guest: Guest) -> None:
    """`systemctl stop` ends the daemon with exit 0, after it has said that it stops and stopped."""
    guest.run("systemctl", "start", UNIT)
    guest.run("systemctl", "stop", UNIT)
    assert guest.show(UNIT, "ActiveState") == {"ActiveState": "inactive"}
    with guest.journal(UNIT) as journal:
        journal.until_line(event="daemon.stopping")
        journal.until_line(event="daemon.stopped")
        end = journal.until(lambda record: str(record.get("MESSAGE")).startswith("ended: "))
    assert end["MESSAGE"] == "ended: success, exited 0"
