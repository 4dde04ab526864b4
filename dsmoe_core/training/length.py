"""Length of a training: a number of images, or a time limit, with early stopping.

The cosine follows the fraction of the training that is done: of the steps, or of the time if that is limited.
``wsd`` follows the steps done and the step at which the decay begins. That step and the last one are part of
the checkpoint, so a training that is resumed in or after its decay keeps them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from dsmoe_core.config import TrainingConfig
from dsmoe_core.errors import SettingsError
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.schedule import cosine_factor, warmup_steps, wsd_factor

SPEED_WINDOW = 64
"""Steps over which the speed is measured."""
UNLIMITED_STEPS = 10**9
StopReason = Literal["length", "time", "no improvement"]


@dataclass(slots=True)
class LengthState:
    """What has been decided about the length of a training, and its evaluations.

    Attributes:
        decay_from: steps done when the decay begins; None: not decided, or a schedule without decay.
        end: steps done at the end; None: not decided.
        stopped: what ended the training.
        evaluations: steps done, and mAP@.5:.95 on the held-out images.
    """

    decay_from: int | None = None
    end: int | None = None
    stopped: StopReason = "length"
    evaluations: list[tuple[int, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> LengthState:
        """The state of :meth:`to_dict`."""
        evaluations = [(int(step), float(value)) for step, value in raw["evaluations"]]
        return cls(raw["decay_from"], raw["end"], raw["stopped"], evaluations)


class TrainingLength:
    """Decides after each step whether the decay begins and whether the training ends.

    Args:
        training: schedule and length.
        state: of the checkpoint, or a new one; it is updated.
        processes: the processes that train together; the main one's clock and evaluations count.
        evaluate: mAP@.5:.95 on the held-out images; None: no early stopping.
        seconds_before: time spent before this process started.
        clock: seconds, for tests.

    Raises:
        SettingsError: the schedule needs a length that is not known.
    """

    def __init__(
        self,
        training: TrainingConfig,
        state: LengthState,
        processes: ProcessGroup,
        evaluate: Callable[[], float] | None = None,
        *,
        seconds_before: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_schedule(training)
        self.state = state
        self._training, self._processes, self._evaluate = training, processes, evaluate
        self._clock = clock
        self._started = clock() - seconds_before
        self._steps = None if training.minutes else math.ceil(training.images_seen / training.batch)
        self._warmup = warmup_steps(training, self._steps)
        self._times: deque[tuple[int, float]] = deque(maxlen=SPEED_WINDOW)
        self._time_used = seconds_before
        if state.end is None and self._steps is not None:
            state.end = self._steps
            if training.kind_of_schedule == "wsd":
                state.decay_from = self._steps - max(1, round(training.decay * self._steps))

    @property
    def seconds(self) -> float:
        """Time spent, with that before a kill."""
        return self._clock() - self._started

    @property
    def last_step(self) -> int:
        """Upper limit of the steps."""
        return UNLIMITED_STEPS if self.state.end is None else self.state.end

    def learning_rate(self, step: int) -> float:
        """Learning rate of the step after ``step`` steps."""
        if self._training.kind_of_schedule == "cosine":
            limit = self._training.minutes
            done = step / self.last_step if limit is None else min(1.0, self._time_used / (60 * limit))
            factor = cosine_factor(done, self._training.warmup)
        else:
            factor = wsd_factor(step, self._warmup, self.state.decay_from, self.state.end)
        return self._training.learning_rate * factor

    def is_done(self, step: int) -> bool:
        """Whether the training ends after ``step`` steps."""
        return step >= self.last_step

    def update(self, step: int) -> None:
        """Evaluate if it is time to, and decide on the decay and the end.

        Args:
            step: steps done, at least 1.
        """
        self._times.append((step, self.seconds))
        decays = self.state.decay_from is not None and step >= self.state.decay_from
        if self._evaluate is not None and not decays and step % self._evaluation_steps == 0:
            self.state.evaluations.append((step, self._agreed(self._evaluate())))
            if self._stands_still():
                share = self._training.decay
                self._begin_decay(step, round(step * share / (1 - share)), "no improvement")
        if self._training.minutes is not None:
            self._watch_time(step, 60 * self._training.minutes)

    def forecast(self, step: int) -> tuple[int, dict[str, float]]:
        """Steps in total at the present speed, and ``seconds_left``, without it while it is unknown."""
        speed = self._steps_per_second()
        if self.state.end is not None:
            return self.state.end, {"seconds_left": (self.state.end - step) / speed} if speed else {}
        left = max(0.0, 60 * (self._training.minutes or 0.0) - self.seconds)
        return step + max(1, round(left * (speed or 0.0))), {"seconds_left": left}

    @property
    def _evaluation_steps(self) -> int:
        return max(1, math.ceil(self._training.evaluate_every / self._training.batch))

    def _stands_still(self) -> bool:
        values = [value for _, value in self.state.evaluations]
        patience = self._training.patience
        return patience is not None and len(values) - 1 - values.index(max(values)) >= patience

    def _watch_time(self, step: int, limit: float) -> None:
        """End when the time is used; with ``wsd``, begin the decay so that it ends with the time.

        Args:
            limit: seconds.
        """
        self._time_used = seconds = self._agreed(self.seconds)
        left = limit - seconds
        if left <= 0:
            if not self.is_done(step):
                self.state.end, self.state.stopped = step, "time"
        elif self._training.kind_of_schedule == "cosine" or self.state.decay_from is not None:
            return
        elif seconds >= (1 - self._training.decay) * limit:
            self._begin_decay(step, round(self._agreed(self._steps_per_second() or 0.0) * left), "time")

    def _begin_decay(self, step: int, steps: int, reason: StopReason) -> None:
        """Decay over the next ``steps`` steps, at most to the end that is known already."""
        self.state.decay_from, self.state.stopped = step, reason
        self.state.end = min(step + max(1, steps), self._steps or UNLIMITED_STEPS)

    def _steps_per_second(self) -> float | None:
        if len(self._times) < 2:
            return None
        (first, began), (last, ended) = self._times[0], self._times[-1]
        return (last - first) / (ended - began) if ended > began else None

    def _agreed(self, value: float) -> float:
        """The main process's value."""
        if self._processes.count == 1:
            return value
        own = torch.tensor(value if self._processes.is_main else 0.0, dtype=torch.float64)
        return float(self._processes.all_reduce(own))


def check_schedule(training: TrainingConfig) -> None:
    """Refuse the cosine schedule for a training with early stopping.

    Raises:
        SettingsError: it is.
    """
    if training.schedule == "cosine" and training.patience is not None:
        raise SettingsError(
            f"training.schedule is cosine and patience is {training.patience}; the length of such a training "
            "is not known before, and a cosine falls over the whole length",
            "Set detector.training.schedule to wsd or auto.",
        )
