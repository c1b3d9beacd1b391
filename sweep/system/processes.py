"""Who holds something: names a process, and tells whether it is still there."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

LOST_SECONDS = 120.0  # after which a process on another machine that says nothing is taken for gone


def myself() -> dict[str, Any]:
    """Names this process, as plain data."""
    pid, now = os.getpid(), time.time()
    return {"host": platform.node(), "machine": machine(), "pid": pid, "born": born(pid), "since": now, "seen": now}


def describe_owner(owner: Mapping[str, Any]) -> str:
    """Names a process for people: `process 4711 on alpha, since 2026-11-23 07:12:09`."""
    since = datetime.fromtimestamp(owner["since"]).astimezone()
    return f"process {owner['pid']} on {owner['host']}, since {since:%Y-%m-%d %H:%M:%S}"


def alive(owner: Mapping[str, Any]) -> bool:
    """Whether a process still runs, as far as can be seen from here; our own does not count.

    Args:
        owner: As `myself` gives it; `seen` is when a process on another machine last said that it runs.
    """
    if (owner["host"], owner["machine"]) != (platform.node(), machine()):
        return time.time() - owner["seen"] < LOST_SECONDS
    if owner["pid"] == os.getpid():
        return False
    return born(owner["pid"]) == owner["born"] and born(owner["pid"]) != ""


def machine() -> str:
    """Tells apart what has one name: a machine before and after a restart, and containers that count from 1."""
    with suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def born(pid: int) -> str:
    """When a process of this machine started, in ticks; `running` where the kernel does not say, empty without it.

    Args:
        pid: The process.
    """
    with suppress(OSError, IndexError):
        # The second field is a name in brackets, which may hold spaces; the next one is the state, Z for a zombie.
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if after_name[0] in "ZX" else after_name[19]
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "running"
    return "running"
