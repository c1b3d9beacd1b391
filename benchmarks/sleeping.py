"""An engine whose trainings take their time and do no work: what comes back are recorded curves.

With it two cores are enough for hundreds of trainings at once, and what is measured is the sweep itself.
"""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass

import numpy as np

from benchmarks.overhead import CHECKPOINT_BYTES
from sweep.engines import EpochFinished, Event, Job, JobFinished
from sweep.training.config import BEST, EpochResult

# Validation loss and AUROC of five epochs, the worst trial first, as mlruns.example/mlflow.db has them.
CURVES: tuple[tuple[tuple[float, float], ...], ...] = (
    ((0.692, 0.9041), (0.691, 0.9194), (0.690, 0.9246), (0.690, 0.9276), (0.689, 0.9295)),  # cnn3-002
    ((10.517, 0.9441), (0.400, 0.9908), (0.289, 0.9887), (0.236, 0.9851), (1.101, 0.9817)),  # cnn1-002
    ((0.419, 0.9323), (0.401, 0.9665), (0.205, 0.9779), (0.184, 0.9798), (0.185, 0.9826)),  # cnn3-000
    ((1.131, 0.9437), (0.233, 0.9768), (0.243, 0.9804), (0.193, 0.9847), (0.191, 0.9858)),  # cnn2-000
    ((0.774, 0.9309), (0.878, 0.9523), (0.388, 0.9738), (0.181, 0.9824), (0.253, 0.9860)),  # cnn1-000
    ((1.090, 0.9509), (1.295, 0.9760), (0.262, 0.9815), (0.188, 0.9844), (0.164, 0.9867)),  # cnn2-005
    ((0.548, 0.9271), (0.283, 0.9657), (0.175, 0.9819), (0.225, 0.9816), (0.130, 0.9887)),  # cnn3-006
    ((3.311, 0.9782), (0.272, 0.9832), (0.757, 0.9845), (0.610, 0.9887), (0.238, 0.9889)),  # cnn1-001
    ((29.952, 0.5000), (18.911, 0.7257), (0.924, 0.9888), (0.914, 0.9884), (0.215, 0.9910)),  # cnn1-005
    ((0.273, 0.9787), (0.218, 0.9868), (0.151, 0.9903), (0.143, 0.9918), (0.142, 0.9922)),  # cnn2-003
    ((0.212, 0.9845), (0.134, 0.9899), (0.128, 0.9903), (0.228, 0.9922), (0.181, 0.9937)),  # cnn1-003
    ((4.211, 0.9549), (2.090, 0.9876), (0.130, 0.9943), (0.146, 0.9930), (0.096, 0.9950)),  # cnn2-002
)  # fmt: skip
EPOCHS = len(CURVES[0])
STEP_SECONDS = 0.02  # what a training that is told to stop still computes


class SleepingEngine:
    """So many trainings at once that take their time and do no work; what comes back are recorded curves.

    A real worker trains on whether anybody listens or not. Epochs are therefore due at moments that nothing delays,
    and only a job that follows another one begins late where the loop is.
    """

    def __init__(self, workers: int, seconds: tuple[float, float], labels: np.ndarray) -> None:
        """Makes the engine.

        Args:
            workers: Trainings at once.
            seconds: What the shortest and the longest epoch take.
            labels: Of the validation images, int [N].
        """
        self._workers, self._seconds = workers, seconds
        self._logits = [[logits_of(labels, auroc) for _, auroc in curve] for curve in CURVES]
        self._sleeping: dict[int, _Sleeping] = {}
        self._heap: list[tuple[float, int, int]] = []  # when, which job, which epoch; the one past the last is the end
        self.due: dict[tuple[int, int], float] = {}  # of reported epochs: job and epoch -> when it ended
        self.trained: list[float] = []  # seconds of each job that has ended
        self.last = 0.0  # when the latest one ended

    def start(self, jobs: int) -> None:
        """Nothing has to start."""

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now."""
        return self._workers - len(self._sleeping)

    def submit(self, job: Job) -> None:
        """Decides when a job's epochs end and what comes of them, by the trial's seed."""
        draws, now = np.random.default_rng(job.config.seed), time.monotonic()
        ends = (now + draws.uniform(*self._seconds, EPOCHS).cumsum()).tolist()
        self._sleeping[job.number] = _Sleeping(job, now, ends, ends[-1], curve_of(job.config.learning_rate, draws))
        for epoch, end in enumerate([*ends, ends[-1]], start=1):
            heapq.heappush(self._heap, (end, job.number, epoch))

    def stop(self, number: int, *, after_epoch: bool = False) -> None:
        """Has a job end after a moment or with its epoch; nothing happens if it has ended."""
        if (sleeping := self._sleeping.get(number)) is None:
            return
        now = time.monotonic()
        until = next((end for end in sleeping.ends if end > now), now) if after_epoch else now + STEP_SECONDS
        if until < sleeping.until:
            sleeping.until = until
            heapq.heappush(self._heap, (until, number, EPOCHS + 1))

    def events(self, timeout: float) -> list[Event]:
        """Waits up to `timeout` seconds for something to be due, and returns all that is, oldest first."""
        events: list[Event] = []
        until = time.monotonic() + timeout
        while self._heap and not events:
            time.sleep(max(0.0, min(self._heap[0][0], until) - time.monotonic()))
            now = time.monotonic()
            while self._heap and self._heap[0][0] <= now:
                events += self._happened(*heapq.heappop(self._heap))
            if now >= until:
                break
        return events

    def close(self) -> None:
        """Nothing is open."""

    def _happened(self, end: float, number: int, epoch: int) -> list[Event]:
        sleeping = self._sleeping.get(number)
        if sleeping is None or end > sleeping.until:  # what a job that was stopped would have come to
            return []
        job = sleeping.job
        if epoch > EPOCHS:
            del self._sleeping[number]
            self.trained.append(end - sleeping.began)
            self.last = max(self.last, end)
            stopped = end < sleeping.ends[-1]
            if not stopped:
                job.folder.mkdir(parents=True, exist_ok=True)
                (job.folder / BEST).write_bytes(bytes(CHECKPOINT_BYTES))
            return [JobFinished(number, stopped)]
        self.due[number, epoch] = end
        curve, index = CURVES[sleeping.curve], epoch - 1
        loss, auroc = curve[index]
        seconds = end - (sleeping.ends[index - 1] if index else sleeping.began)
        result = EpochResult(
            epoch,
            train_loss=loss,  # what training came to is drawn in a figure, and decides nothing
            train_accuracy=auroc,
            validation_loss=loss,
            validation_logits=self._logits[sleeping.curve][index],
            improved=loss < min((before for before, _ in curve[:index]), default=math.inf),
            seconds=seconds,
            images_per_second=len(job.training) / seconds,
            ended=time.time() - (time.monotonic() - end),
        )
        return [EpochFinished(number, result)]


@dataclass
class _Sleeping:
    job: Job
    began: float
    ends: list[float]  # of its epochs
    until: float  # the last of them, or earlier if it was stopped
    curve: int


def curve_of(learning_rate: float, draws: np.random.Generator) -> int:
    """Which of the curves a trial has.

    Trials near a learning rate of 0.001 do better, so that there is something to search. Were they all alike, nearly
    all would be pruned in the end: only the better half goes into the median, which rises without the trials.
    """
    best = len(CURVES) - 1
    return int(np.clip(round(best - 3 * abs(math.log10(learning_rate) + 3) + draws.normal(0, 1.5)), 0, best))


def logits_of(labels: np.ndarray, auroc: float) -> np.ndarray:
    """Makes logits that give an AUROC, and are calibrated.

    Args:
        labels: 0 or 1, int [N].
        auroc: From 0.5 to 1; it is met as closely as the pairs of so many images can.

    Returns:
        float32 [N, 2].
    """
    noise = np.random.default_rng(0).normal(size=len(labels))
    # How far positives must be moved up for so large a share of the pairs to be in order.
    shift = np.quantile(noise[labels == 0][None, :] - noise[labels == 1][:, None], auroc)
    scores = shift * (noise + shift * labels - shift / 2)
    return np.stack([np.zeros(len(labels)), scores], axis=1).astype(np.float32)
