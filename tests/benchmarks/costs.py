"""What a process and everything that it started use, from /proc."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """What a process and its descendants use."""

    rss_mb: float
    cpu_seconds: float
    switches: int
    processes: int


def cost_of(pid: int) -> Cost:
    """Resident memory now; processor time and context switches since they began."""
    pids = family_of(pid)
    rss = sum(megabytes(each, "VmRSS") for each in pids)
    seconds = sum(_cpu_seconds(each) for each in pids)
    return Cost(rss, seconds, sum(_switches(each) for each in pids), len(pids))


def family_of(pid: int) -> list[int]:
    """A process and everything that descends from it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(_stat_fields(stat)[1])
    family = [pid]
    for each in family:
        family += [child for child, parent in parents.items() if parent == each]
    return family


def megabytes(pid: int, field: str) -> float:
    """A figure of /proc/PID/status; 0 for a process that has ended."""
    return _of_status(Path(f"/proc/{pid}/status"), field) / 1024


def _cpu_seconds(pid: int) -> float:
    try:
        fields = _stat_fields(Path(f"/proc/{pid}/stat"))
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def _switches(pid: int) -> int:
    kinds = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
    threads = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(_of_status(thread, kind) for thread in threads for kind in kinds)


def _stat_fields(stat: Path) -> list[str]:
    """Those that follow the name, which may hold spaces: the state is the first."""
    return stat.read_text("ascii", errors="replace").rpartition(")")[2].split()


def _of_status(status: Path, field: str) -> int:
    try:
        found = re.search(rf"^{field}:\s+(\d+)", status.read_text("ascii", "replace"), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) if found else 0
