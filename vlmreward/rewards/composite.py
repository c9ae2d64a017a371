"""Combinations of several rewards of the same images; each model encodes the images once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from vlmreward.images.batch import ImageBatch, Images
from vlmreward.rewards._joint_forward import check_placeholders, values_of
from vlmreward.rewards.module import RewardModule, SeveralRewards
from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.protocol import Reward, as_named_dict
from vlmreward.rewards.questions import QuestionTemplate
from vlmreward.rewards.reductions import REDUCTIONS

__all__ = ["Combinable", "CompositeReward"]

_UNWEIGHTED = ("min", "and")

Question = str | QuestionTemplate


@runtime_checkable
class Askable(Protocol):
    """A reward that can make rewards for other questions to its model, such as ``YesNoReward``."""

    def __call__(
        self, images: Images, prompt: Text | None = None, **placeholders: Text
    ) -> torch.Tensor:
        """The reward ``(B,)``."""

    def ask(self, question: Question) -> Reward:
        """Another question to the same model."""


class Combinable(RewardModule):
    """Arithmetic with rewards: ``content + 0.5 * geometry`` is a ``CompositeReward``."""

    def __add__(self, other: object) -> CompositeReward:
        terms = _terms(other)
        return NotImplemented if terms is None else _total([*_own(self), *terms])

    def __radd__(self, other: object) -> Combinable:
        if isinstance(other, (int, float)) and other == 0:  # where sum() begins
            return self
        terms = _terms(other)
        return NotImplemented if terms is None else _total([*terms, *_own(self)])

    def __mul__(self, factor: object) -> CompositeReward:
        if isinstance(factor, bool) or not isinstance(factor, (int, float)):
            return NotImplemented
        return _total([(reward, name, weight * factor) for reward, name, weight in _own(self)])

    __rmul__ = __mul__

    def __truediv__(self, divisor: object) -> CompositeReward:
        if not isinstance(divisor, (int, float)):
            return NotImplemented
        if divisor == 0:
            raise ValueError("a reward is divided by 0; expected another number")
        return self * (1 / divisor)

    def __neg__(self) -> CompositeReward:
        return self * -1.0

    def __sub__(self, other: object) -> CompositeReward:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        return _total([*_own(self), *[(reward, name, -weight) for reward, name, weight in terms]])


Term = tuple[Reward, str, float]
"""Reward, name and weight."""


def _own(reward: Reward) -> list[Term]:
    if isinstance(reward, CompositeReward) and reward.reduction == "sum":
        return [
            (member, name, weight)
            for (name, member), weight in zip(reward.members.items(), reward.weights)
        ]
    return [(reward, _name(reward), 1.0)]


def _terms(other: object) -> list[Term] | None:
    return _own(other) if callable(other) else None


def _total(terms: Sequence[Term]) -> CompositeReward:
    members = dict(zip(_distinct([name for _, name, _ in terms]), [term[0] for term in terms]))
    return CompositeReward(members, reduction="sum", weights=[weight for _, _, weight in terms])


def _name(reward: object) -> str:
    return str(getattr(reward, "name", None) or type(reward).__name__)


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, made distinct by numbers from the second occurrence on."""
    out: list[str] = []
    for name in names:
        number = 1
        other = name
        while other in out:
            number += 1
            other = f"{name} ({number})"
        out.append(other)
    return out


class CompositeReward(Combinable, SeveralRewards):
    """A combination of several rewards of the same images.

    Questions to the same model share one forward pass: the images and any other common prefix of
    the questions are encoded once, with gradients. Where image tokens attend to the question
    (PaliGemma, Gemma 3), only the image encoder's work is shared. Values and gradients equal those
    of separate calls.

    Args:
        rewards: rewards in a list or a dict with names; or one ``YesNoReward``, whose model is
            asked the ``questions``. Members may be any callables with the signature of a reward,
            composite rewards too.
        questions: questions as ``YesNoReward`` takes them, a list, or a dict with names.
        reduction: one of ``REDUCTIONS``.
        weights: weight of each member, in order or by name; equal by default. Not for "min" and
            "and".
        temperature: temperature T of "softmin", in units of the values; above 0.

    Attributes:
        members: the rewards by name; of a list, by their own ``name``.
        weights: weight of each member.

    Raises:
        TypeError: ``rewards`` or ``questions`` is of another type.
        ValueError: there are no members, or the reduction, weights or temperature are invalid.

    Example:
        ``CompositeReward(reward, ["paper/content", "paper/geometry"], reduction="and")`` asks the
        two criteria of VLM3D's prompt as two questions.
    """

    def __init__(
        self,
        rewards: Askable | Sequence[Reward] | Mapping[str, Reward],
        questions: Sequence[Question] | Mapping[str, Question] | None = None,
        *,
        reduction: str = "mean",
        weights: Sequence[float] | Mapping[str, float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(reduction, str) or reduction not in REDUCTIONS:
            raise ValueError(f"reduction is {reduction!r}; expected one of {sorted(REDUCTIONS)}")
        if not (isinstance(temperature, (int, float)) and 0 < temperature < math.inf):
            raise ValueError(f"temperature is {temperature!r}; expected a finite number above 0")
        if questions is not None:
            rewards = _asked(rewards, questions)
        members = as_named_dict(rewards, "rewards")
        if not isinstance(rewards, Mapping):
            members = dict(zip(_distinct([_name(m) for m in members.values()]), members.values()))
        for name, member in members.items():
            if not callable(member):
                raise TypeError(f"{name!r} is a {type(member).__name__}; expected a reward")
        self.members: dict[str, Reward] = members
        self.reduction = reduction
        self.temperature = temperature
        self.weights = _weights(weights, list(members), reduction)
        self._children = nn.ModuleList([m for m in members.values() if isinstance(m, nn.Module)])

    def forward_batch(self, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
        """The combined reward of each query; each question is given the values that it has.

        Raises:
            ValueError: a placeholder that no question has, or images that a member refuses.
        """
        return self.reduce(self.per_reward_batch(batch, values))

    def per_reward_batch(
        self, batch: ImageBatch, values: Mapping[str, Text]
    ) -> dict[str, torch.Tensor]:
        """The members' values ``(B,)`` by name, differentiable."""
        leaves = self._leaves()
        check_placeholders(leaves, values)
        known = values_of(leaves, batch, values)
        return {name: _of(member, known) for name, member in self.members.items()}

    def reduce(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The members' values by name, each ``(B,)`` -> ``(B,)``; differentiable."""
        own = [values[name] for name in self.members]
        return REDUCTIONS[self.reduction](own, self.weights, self.temperature)

    def _leaves(self) -> list[Reward]:
        """The non-composite rewards among all members, each once."""
        found: dict[int, Reward] = {}
        for member in self.members.values():
            for leaf in member._leaves() if isinstance(member, CompositeReward) else [member]:
                found[id(leaf)] = leaf
        return list(found.values())


def _of(member: Reward, known: Mapping[int, torch.Tensor]) -> torch.Tensor:
    if not isinstance(member, CompositeReward):
        return known[id(member)]
    return member.reduce({name: _of(inner, known) for name, inner in member.members.items()})


def _asked(
    reward: object, questions: Sequence[Question] | Mapping[str, Question]
) -> Sequence[Reward] | Mapping[str, Reward]:
    if not isinstance(reward, Askable):
        raise TypeError(
            f"rewards is a {type(reward).__name__}; expected one YesNoReward, as questions are "
            "given"
        )
    if isinstance(questions, str):
        raise TypeError("questions is a str; expected a list of questions, or a dict with names")
    if isinstance(questions, Mapping):
        return {
            name: reward.ask(question)
            for name, question in as_named_dict(questions, "questions").items()
        }
    return [reward.ask(question) for question in as_named_dict(questions, "questions").values()]


def _weights(
    given: Sequence[float] | Mapping[str, float] | None, names: Sequence[str], reduction: str
) -> tuple[float, ...]:
    if given is None:
        return (1.0,) * len(names)
    if reduction in _UNWEIGHTED:
        raise ValueError(
            f"weights are given, but reduction={reduction!r} has none; expected none: leave them "
            "out"
        )
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise ValueError(f"weights are for {sorted(given)}; expected {sorted(names)}")
        given = [given[name] for name in names]
    try:
        weights = tuple(float(weight) for weight in given)
    except (TypeError, ValueError):
        raise TypeError(
            f"weights is {given!r}; expected a list of numbers, or a dict of them by name"
        ) from None
    if len(weights) != len(names):
        raise ValueError(f"there are {len(weights)} weights; expected {len(names)}, one for each")
    if not all(map(math.isfinite, weights)):
        raise ValueError(f"weights are {list(weights)}; expected finite numbers")
    if reduction != "sum" and min(weights) <= 0:
        raise ValueError(
            f"weights are {list(weights)}; expected above 0 with reduction={reduction!r}"
        )
    return weights
