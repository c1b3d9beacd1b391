"""The choices of `--finetune`, for command lines: imports no torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

CHOICES = "all, head and last:N (the last N stages and the head)"


def is_choice(text: str) -> bool:
    """Whether a text is a choice of `--finetune`; `layer4` is resnet50's older name of `last:1`.

    >>> [is_choice(text) for text in ("all", "head", "last:2", "last:0", "layer4", "some")]
    [True, True, True, False, True, False]
    """
    return text in ("all", "head", "layer4") or re.fullmatch(r"last:[1-9]\d*", text) is not None


def frozen_stages(choice: str, stages: Sequence[Collection[str]]) -> set[str]:
    """The parts that a choice of `--finetune` leaves as they are.

    Args:
        choice: As `is_choice` takes it.
        stages: Names of the parts of each stage, in the order in which they run, without the head.

    >>> sorted(frozen_stages("last:1", [["conv1", "bn1"], ["layer1"], ["layer2"]]))
    ['bn1', 'conv1', 'layer1']
    """
    if choice == "all":
        return set()
    kept = {"head": 0, "layer4": 1}.get(choice)
    count = int(choice.removeprefix("last:")) if kept is None else kept
    return {name for stage in stages[: max(0, len(stages) - count)] for name in stage}
