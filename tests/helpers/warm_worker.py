"""What the process imports from which warm sweeps fork their workers: torch alone is three seconds of each worker's life.

multiprocessing's fork server imports this module once; a worker forked there is no child of its sweep, so the kernel does
not end it with its sweep, and it has to watch for that itself.
"""

import os
import signal
import threading
from multiprocessing import parent_process

import torch._dynamo  # the first optimizer of a process imports it

import sweep.engines.local
import sweep.system.hardware
import sweep.training.loop

torch.set_num_threads(1)  # a fork has the thread that forks and no other


def die_with_parent() -> None:
    parent = parent_process()
    if parent is None:
        raise RuntimeError("only a worker has a parent to watch")

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


sweep.system.hardware.die_with_parent = die_with_parent
