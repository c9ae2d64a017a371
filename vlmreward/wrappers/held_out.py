"""Monitoring of an optimized reward by another one that is held out of the optimization."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from statistics import NormalDist
from typing import TypedDict

import torch

from vlmreward.images.batch import ImageBatch
from vlmreward.rewards.module import RewardModule
from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.protocol import Reward, call_reward
from vlmreward.utils.arguments import number, reward_like, whole
from vlmreward.wrappers.trend import mann_kendall

__all__ = ["HeldOutMonitor", "Observation", "RewardHackingWarning"]

_STEPS = threading.Lock()
"""Lock of the steps and the history, which calls from several threads update."""


class RewardHackingWarning(UserWarning):
    """Warning that the optimized reward rises while the held-out one falls."""


@dataclass(frozen=True)
class Observation:
    """Both rewards at one step, each the mean over the queries."""

    step: int
    reward: float
    held_out: float


class _State(TypedDict):
    step: int
    history: list[tuple[int, float, float]]
    warned: bool


class HeldOutMonitor(RewardModule):
    """A reward that is monitored by a held-out reward, which is never optimized.

    A high value of an optimized reward is no evidence of quality, because the reward can be hacked.
    A second reward, of another model or at least another question, that takes no part in the
    gradient shows when that happens.

    At every ``every``-th step both rewards are recorded. Once there are ``window`` observations,
    the last ``window`` are tested for a monotone trend, each series separately (``mann_kendall``),
    and a ``RewardHackingWarning`` is issued if the optimized reward rises and the held-out one
    falls, both at the one-sided level ``significance``. There is one warning per episode, and
    another only after one of the two trends has ended. The level is exact for independent noise;
    the observations of one optimization depend on each other, so that the warning is a hint and
    not a rigorous test.

    Steps are calls whose value carries gradients; under ``torch.no_grad()`` nothing is recorded.
    The step and the history are part of ``state_dict()``.

    Args:
        reward: the optimized reward; see ``vlmreward.rewards.protocol.Reward``.
        held_out: the held-out reward; it is given the same images, prompts and placeholders,
            without gradients, and torch's random generators are restored afterwards, so that the
            monitoring does not change a run.
        every: number of steps from one observation to the next.
        window: number of observations in a test.
        significance: one-sided level of each of the two tests.

    Attributes:
        step: number of calls with gradients so far.
        history: all observations, oldest first.
        warned: True if the last observation was in an episode with a warning.

    Raises:
        ValueError: ``every`` below 1, ``significance`` outside (0, 0.5), or a window so short that
            the level cannot be reached.

    Example:
        ``reward = HeldOutMonitor(reward, held_out=other, every=10)``.
    """

    def __init__(
        self,
        reward: Reward,
        held_out: Reward,
        *,
        every: int = 10,
        window: int = 20,
        significance: float = 0.01,
    ) -> None:
        super().__init__()
        reward_like(reward)
        reward_like(held_out, "held_out")
        whole("every", every)
        whole("window", window)
        number("significance", significance, above=0, below=0.5)
        self.threshold = NormalDist().inv_cdf(1 - significance)
        if mann_kendall(range(window)) < self.threshold:
            raise ValueError(
                f"window is {window}; expected more: even a straight line of that many has no "
                f"trend at the level {significance}"
            )
        self.reward = reward
        self.held_out = held_out
        self.every = every
        self.window = window
        self.step = 0
        self.history: list[Observation] = []
        self.warned = False

    def forward_batch(self, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
        """The optimized reward of each query, unchanged."""
        rewards = call_reward(self.reward, batch, values)
        if not rewards.requires_grad:
            return rewards
        with _STEPS:
            step = self.step
            self.step += 1
        if step % self.every == 0:
            device = batch.device
            forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
            with torch.no_grad(), forked:
                held_out = call_reward(self.held_out, batch.detach(), values)
            with _STEPS:
                self._note(
                    Observation(step, float(rewards.detach().mean()), float(held_out.mean()))
                )
        return rewards

    def trends(self) -> tuple[float, float]:
        """Standard scores of the trends of reward and held-out reward in the last window."""
        last = self.history[-self.window :]
        return (
            mann_kendall([seen.reward for seen in last]),
            mann_kendall([seen.held_out for seen in last]),
        )

    def _note(self, seen: Observation) -> None:
        self.history.append(seen)
        if len(self.history) < self.window:
            return
        rising, falling = self.trends()
        if rising > self.threshold and falling < -self.threshold:
            if not self.warned:
                start = self.history[-self.window]
                warnings.warn(
                    f"step {seen.step}: in the last {self.window} looks the reward rose from "
                    f"{start.reward:.3g} to {seen.reward:.3g} while the held-out one fell from "
                    f"{start.held_out:.3g} to {seen.held_out:.3g}; expected both to rise: the "
                    "reward is probably being hacked, so stop, lower the reward's weight, or use "
                    "ExpectationOverTransformations",
                    RewardHackingWarning,
                    stacklevel=6,  # past this class, RewardModule and nn.Module's two
                )
            self.warned = True
        elif rising <= 0 or falling >= 0:
            # Not as soon as a score is back under the threshold, or noise would warn anew
            self.warned = False

    def get_extra_state(self) -> _State:
        """Step, history and episode, for ``state_dict()``."""
        history = [astuple(seen) for seen in self.history]
        return {"step": self.step, "history": history, "warned": self.warned}

    def set_extra_state(self, state: _State) -> None:
        """Restore a state from ``get_extra_state``."""
        self.step, self.warned = state["step"], state["warned"]
        self.history = [Observation(*seen) for seen in state["history"]]
