"""The owner of a study or a folder is a process: describes it, and tells whether it still runs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

LOST_SECONDS = 120.0  # after which a silent process on another machine counts as gone


def myself() -> dict[str, Any]:
    """Describes this process, as JSON can hold it."""
    pid, now = os.getpid(), time.time()
    process = {"host": platform.node(), "machine": machine_id(), "pid": pid, "born": start_time(pid)}
    return {**process, "since": now, "seen": now}


def describe_owner(owner: Mapping[str, Any]) -> str:
    """Names a process for people: `process 4711 on alpha, since 2026-11-23 07:12:09`, in local time."""
    since = datetime.fromtimestamp(owner["since"]).astimezone()
    return f"process {owner['pid']} on {owner['host']}, since {since:%Y-%m-%d %H:%M:%S}"


def alive(owner: Mapping[str, Any]) -> bool:
    """Whether another process still runs, as far as can be seen from here; False for this process itself.

    Args:
        owner: As `myself` returns it; `seen` is when a process on another machine last reported that it runs.
    """
    if not is_here(owner):
        return time.time() - owner["seen"] < LOST_SECONDS
    if owner["pid"] == os.getpid():
        return False
    return owner["born"] != "" and start_time(owner["pid"]) == owner["born"]


def is_here(owner: Mapping[str, Any]) -> bool:
    """Whether a process is of this machine, as it was booted last, and of this container."""
    return (owner["host"], owner["machine"]) == (platform.node(), machine_id())


def machine_id() -> str:
    """Identifies a boot of the machine and a container on it, which number their own processes; empty if unknown."""
    with suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def start_time(pid: int) -> str:
    """When a process of this machine started, in clock ticks; empty if there is no such process.

    Where the kernel does not tell (no /proc), a process that runs gives `running`.
    """
    with suppress(OSError, IndexError):
        # The second field is a name in brackets, which may contain spaces; the next one is the state, Z for a zombie.
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
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
