"""What the machine offers to trials, and how a training process is set up to use it well."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data.faults import InputError

# mallopt's names in glibc's <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


@dataclass(frozen=True)
class Machine:
    """What trials have on the machine where they run.

    Attributes:
        device: `cpu`, `cuda` or `mps`.
        precision: `float32` or `bfloat16`, for training steps.
        workers: Trials at once.
        threads: CPU threads of each.
    """

    device: str
    precision: str
    workers: int
    threads: int


def this_machine(device: str, precision: str, workers: int | None) -> Machine:
    """Decides how trials use this machine.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `float32` or `bfloat16`.
        workers: Trials at once; None takes one per GPU or core.

    Raises:
        InputError: A GPU is asked for and there is none.
    """
    device = choose_device(device)
    workers = choose_workers(workers, device)
    return Machine(device, choose_precision(precision, device), workers, max(1, usable_cores() // workers))


def choose_device(choice: str) -> str:
    """Resolves `auto` to `cuda` if such a GPU can be used, else to `cpu`: nothing has been measured on Apple's GPUs.

    Raises:
        InputError: `cuda` or `mps` is asked for and there is none.
    """
    if choice == "cpu":
        return choice
    import torch

    if choice == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("--device mps: torch finds no GPU of Apple's here; use --device cpu or auto")
        return choice
    if torch.cuda.is_available():
        return "cuda"
    if choice == "cuda":
        raise InputError("--device cuda: torch finds no GPU here; use --device cpu or auto")
    return "cpu"


def choose_precision(choice: str, device: str) -> str:
    """Resolves `auto` to `bfloat16` if the hardware computes in it, else to `float32`."""
    if choice != "auto":
        return choice
    if device == "cuda":
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device == "mps":
        return "float32"
    # A CPU without these instructions emulates bfloat16, which is slower than float32.
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & _cpu_flags() else "float32"


def choose_workers(choice: int | None, device: str) -> int:
    """Trials to train at once: as asked, else one per GPU or one per usable core, at most 8."""
    if choice is not None:
        return choice
    if device == "cuda":
        import torch

        return torch.cuda.device_count()
    if device == "mps":
        return 1
    # Two processes of one thread beat one process of two threads by up to 1.27x.
    return min(usable_cores(), 8)


def workers_alone(workers: int, device: str, share: float) -> int:
    """How many trials at once would share no GPU's memory.

    Args:
        workers: Trials at once, as planned.
        device: `cpu`, `cuda` or `mps`.
        share: GPUs that a trial reserves on a cluster; 0 on this machine.

    Returns:
        1 or more, at most `workers`.
    """
    if device != "cuda" or share >= 1:
        return workers
    if share:
        return max(1, int(workers * share))
    import torch

    return min(workers, torch.cuda.device_count())


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_training_process(device: str, threads: int) -> None:
    """Sets up a training process: memory allocator, threads, determinism.

    Only for a process that does nothing else: its changes are global.

    Args:
        device: `cpu`, `cuda` or `mps`.
        threads: CPU threads that torch may use.
    """
    # glibc returns every large buffer to the kernel, which zeroes it again for the next batch; keeping the memory makes
    # these networks 1.3x to 1.6x faster.
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_TOP_PAD, 64 * 2**20)
        libc.mallopt(_M_ARENA_MAX, 1)  # a thread's own arena ends at 64 MB, and a Ray worker trains in a thread
    # Large tensors on pages of 2 MB are 1.02x to 1.06x faster, if the kernel leaves it to the program (`madvise`).
    # torch reads this once, when it first allocates memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may differ from run to run
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would fill every new tensor, to expose code that reads memory it never wrote: 6 to 12 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    if device == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True


def die_with_parent() -> None:
    """Has the kernel kill this process as soon as its parent is gone (on Linux alone).

    An orphan would otherwise train on until its next message, beside the worker that takes its place.
    """
    if sys.platform == "linux":
        parent = multiprocessing.parent_process()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent is not None and os.getppid() != parent.pid:  # it ended in the meantime
            os.kill(os.getpid(), signal.SIGKILL)


def describe() -> dict[str, str]:
    """Describes the machine, for the tags of a run: `platform`, `processor`, `cores`, and `gpu` where there is one."""
    processor = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    gpus = _gpus(Path("/proc/driver/nvidia/gpus"))
    gpu = {"gpu": gpus} if gpus else {}
    return {"platform": platform.platform(), "processor": processor, "cores": str(usable_cores()), **gpu}


def _gpus(folder: Path) -> str:
    """The GPUs as NVIDIA's driver for Linux names them: what torch would say takes seconds to import."""
    lines = [line for file in folder.glob("*/information") for line in file.read_text(errors="replace").splitlines()]
    counts = Counter(line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:"))
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in counts.items())


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def _cpu_flags() -> set[str]:
    return {flag for line in _cpuinfo() if line.startswith("flags") for flag in line.split(":", 1)[1].split()}
