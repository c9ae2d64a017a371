"""Several rewards of the same images as one, with one look at the images for each model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from vlmreward.images.validation import flatten_views, sizes_of
from vlmreward.models.frozen_vlm import FrozenVLM
from vlmreward.rewards.protocol import as_named_dict, call_reward

__all__ = ["REDUCTIONS", "Combinable", "CompositeReward", "QuestionReward"]


@runtime_checkable
class QuestionReward(Protocol):
    """A reward that asks a model one question, and can be asked together with others."""

    backbone: FrozenVLM
    validate: bool
    placeholders: tuple[str, ...]
    """Placeholders of its question."""
    tokens: tuple[int, ...] | None
    """T token ids whose logits it needs; None if those are not enough."""
    needs_own_forward: bool
    """Whether it has to be asked by itself."""

    def questions(self, placeholders: Mapping[str, Any], batch: int) -> list[str]:
        """Values of the placeholders -> B questions."""

    def from_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits ``(..., T)`` of the tokens -> ``(...)``, differentiable."""


@runtime_checkable
class Looking(Protocol):
    """A question that looks at all logits when it is asked for the first time."""

    def first_look(self, questions: Sequence[str]) -> Callable[[torch.Tensor], None] | None:
        """B questions -> a function of ``(B, V)``, or None."""


Values = Sequence[torch.Tensor]
Combination = Callable[[Values, Sequence[float], float], torch.Tensor]
"""Values, weights and a temperature -> one value. Numbers stay numbers: a tensor of weights would
have to be copied to a GPU at every call."""


def _sum(values: Values, weights: Sequence[float], temperature: float) -> torch.Tensor:
    return torch.stack([w * v for w, v in zip(weights, values)]).sum(dim=0)


def _mean(values: Values, weights: Sequence[float], temperature: float) -> torch.Tensor:
    return _sum(values, weights, temperature) / sum(weights)


def _min(values: Values, weights: Sequence[float], temperature: float) -> torch.Tensor:
    return torch.stack(list(values)).amin(dim=0)


def _softmin(values: Values, weights: Sequence[float], temperature: float) -> torch.Tensor:
    shares = [math.log(weight / sum(weights)) for weight in weights]
    terms = [share - value / temperature for share, value in zip(shares, values)]
    return -temperature * torch.stack(terms).logsumexp(dim=0)


def _and(values: Values, weights: Sequence[float], temperature: float) -> torch.Tensor:
    # The odds against a and b are (1 + o_a)(1 + o_b) - 1 = o_a + o_b + o_a o_b: as logarithms,
    # nothing is rounded away, however sure the model is
    against = -values[0]
    for value in values[1:]:
        against = torch.logaddexp(torch.logaddexp(against, -value), against - value)
    return -against


REDUCTIONS: dict[str, Combination] = {
    "sum": _sum,
    "mean": _mean,
    "min": _min,
    "softmin": _softmin,
    "and": _and,
}
"""How the values m_k of K rewards, with weights w_k, become one.

- ``"sum"``: sum of w_k m_k; what ``a + 0.5 * b`` makes.
- ``"mean"``: that over the sum of the weights.
- ``"min"``: the smallest; only its question has a gradient.
- ``"softmin"``: -T log of the weighted mean of exp(-m_k / T): "min" for T to 0, "mean" for T to
  infinity; the gradient is shared, most to the smallest.
- ``"and"``: for log-odds: those of all answers being "Yes", if they are independent.
"""
_UNWEIGHTED = ("min", "and")


class Combinable:
    """Arithmetic with rewards: ``content + 0.5 * geometry`` is a ``CompositeReward``."""

    def __add__(self, other: Any) -> CompositeReward:
        terms = _terms(other)
        return NotImplemented if terms is None else _total([*_own(self), *terms])

    def __radd__(self, other: Any) -> Any:
        if isinstance(other, (int, float)) and other == 0:  # where sum() begins
            return self
        terms = _terms(other)
        return NotImplemented if terms is None else _total([*terms, *_own(self)])

    def __mul__(self, factor: Any) -> CompositeReward:
        if isinstance(factor, bool) or not isinstance(factor, (int, float)):
            return NotImplemented
        return _total([(reward, name, weight * factor) for reward, name, weight in _own(self)])

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> CompositeReward:
        if not isinstance(divisor, (int, float)):
            return NotImplemented
        if divisor == 0:
            raise ValueError("a reward is divided by 0; expected another number")
        return self * (1 / divisor)

    def __neg__(self) -> CompositeReward:
        return self * -1.0

    def __sub__(self, other: Any) -> CompositeReward:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        return _total([*_own(self), *[(reward, name, -weight) for reward, name, weight in terms]])


Term = tuple[Any, str, float]
"""Reward, name and weight."""


def _own(reward: Any) -> list[Term]:
    if isinstance(reward, CompositeReward) and reward.reduction == "sum":
        return [
            (member, name, weight)
            for (name, member), weight in zip(reward.members.items(), reward.weights)
        ]
    return [(reward, _name(reward), 1.0)]


def _terms(other: Any) -> list[Term] | None:
    return _own(other) if callable(other) else None


def _total(terms: Sequence[Term]) -> CompositeReward:
    members = dict(zip(_distinct([name for _, name, _ in terms]), [term[0] for term in terms]))
    return CompositeReward(members, reduction="sum", weights=[weight for _, _, weight in terms])


def _name(reward: Any) -> str:
    return str(getattr(reward, "name", None) or type(reward).__name__)


def _distinct(names: Sequence[str]) -> list[str]:
    """The same names; from the second on of each with a number."""
    out: list[str] = []
    for name in names:
        number = 1
        other = name
        while other in out:
            number += 1
            other = f"{name} ({number})"
        out.append(other)
    return out


class CompositeReward(Combinable, nn.Module):
    """Several rewards of the same images, combined.

    Questions to the same model are asked together: the images are encoded once, and so is
    everything else that the questions have in common from their beginning, with gradients through
    it. Where image tokens look at the question (PaliGemma, Gemma 3) only the image encoder's work
    is shared. Values and gradients are those of separate calls.

    Args:
        rewards: a list, or a dict with names; or one ``YesNoReward`` whose model is asked the
            ``questions``. Members may be anything that is called like a reward, checklists too.
        questions: questions as ``YesNoReward`` takes them, a list, or a dict with names.
        reduction: one of ``REDUCTIONS``.
        weights: one for each member, or by name; equal by default. Not for "min" and "and".
        temperature: T of "softmin", in units of the values; above 0.

    Attributes:
        members: the rewards by name; in a list by their own ``name``.
        weights: a number for each of them.

    Raises:
        TypeError: ``rewards`` or ``questions`` is of another type.
        ValueError: empty, or a combination, weights or a temperature outside of the above.

    Example:
        ``CompositeReward(reward, ["paper/content", "paper/geometry"], reduction="and")`` asks the
        two criteria of VLM3D's prompt as two questions.
    """

    def __init__(
        self,
        rewards: Any,
        questions: Sequence[Any] | Mapping[str, Any] | None = None,
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
        self.members: dict[str, Any] = members
        self.reduction = reduction
        self.temperature = temperature
        self.weights = _weights(weights, list(members), reduction)
        self._children = nn.ModuleList([m for m in members.values() if isinstance(m, nn.Module)])

    def per_reward(
        self,
        images: torch.Tensor | Sequence[Any],
        prompt: str | Sequence[str] | None = None,
        **placeholders: str | Sequence[str],
    ) -> dict[str, torch.Tensor]:
        """The members' values ``(B,)`` by name, differentiable; arguments as in ``forward``."""
        return self._per_reward(images, prompt, placeholders)

    def forward(
        self,
        images: torch.Tensor | Sequence[Any],
        prompt: str | Sequence[str] | None = None,
        **placeholders: str | Sequence[str],
    ) -> torch.Tensor:
        """The combined reward of each query.

        Args:
            images: as ``YesNoReward`` takes them.
            prompt: value of the questions' ``{prompt}`` placeholder, one for all or a list of B.
            **placeholders: values of other placeholders. Each question is given those that it has.

        Returns:
            ``(B,)``, differentiable to the images.

        Raises:
            ValueError: a placeholder that no question has, or what a member does not take.
        """
        return self.reduce(self._per_reward(images, prompt, placeholders))

    def reduce(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The members' values by name, each ``(B,)`` -> ``(B,)``; differentiable."""
        own = [values[name] for name in self.members]
        return REDUCTIONS[self.reduction](own, self.weights, self.temperature)

    def _per_reward(
        self, images: Any, prompt: Any, placeholders: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        given = dict(placeholders) if prompt is None else {"prompt": prompt, **placeholders}
        leaves = self._leaves()
        _check_placeholders(leaves, given)
        known = _values(leaves, images, given)
        return {name: _of(member, known) for name, member in self.members.items()}

    def _leaves(self) -> list[Any]:
        """The rewards that are no checklists, each once."""
        found: dict[int, Any] = {}
        for member in self.members.values():
            for leaf in member._leaves() if isinstance(member, CompositeReward) else [member]:
                found[id(leaf)] = leaf
        return list(found.values())


def _of(member: Any, known: Mapping[int, torch.Tensor]) -> torch.Tensor:
    if not isinstance(member, CompositeReward):
        return known[id(member)]
    return member.reduce({name: _of(inner, known) for name, inner in member.members.items()})


def _asked(reward: Any, questions: Any) -> Any:
    if not hasattr(reward, "ask"):
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


def _weights(given: Any, names: Sequence[str], reduction: str) -> tuple[float, ...]:
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


def _check_placeholders(leaves: Sequence[Any], given: Mapping[str, Any]) -> None:
    if not all(isinstance(leaf, QuestionReward) for leaf in leaves):
        return  # what others take is for them to say
    known = dict.fromkeys(placeholder for leaf in leaves for placeholder in leaf.placeholders)
    unknown = [placeholder for placeholder in given if placeholder not in known]
    if unknown:
        raise ValueError(
            f"no question has a placeholder {', '.join(unknown)}; expected placeholders: "
            f"{', '.join(known) or 'none'}: leave out {unknown[0]}=..."
        )


def _values(
    leaves: Sequence[Any], images: Any, given: Mapping[str, Any]
) -> dict[int, torch.Tensor]:
    """Value ``(B,)`` of each reward by its id; questions to one model are asked together."""
    groups: dict[int, list[QuestionReward]] = {}
    known: dict[int, torch.Tensor] = {}
    batch: int | None = None
    for leaf in leaves:
        if isinstance(leaf, QuestionReward) and not leaf.needs_own_forward:
            groups.setdefault(id(leaf.backbone), []).append(leaf)
            continue
        if batch is None:
            batch = len(flatten_views(images, values=False)[1])
        own = given
        if isinstance(
            leaf, QuestionReward
        ):  # which is asked by itself, with the placeholders that it has
            own = {key: value for key, value in given.items() if key in leaf.placeholders}
        rest = {key: value for key, value in own.items() if key != "prompt"}
        known[id(leaf)] = call_reward(leaf, images, batch, own.get("prompt"), rest)
    for group in groups.values():
        known.update(_together(group, images, given))
    return known


def _first_look(
    group: Sequence[QuestionReward], columns: Sequence[Sequence[str]]
) -> Callable[[torch.Tensor], None] | None:
    """The members' first looks at the answers to their questions, if any has one."""
    looks = [
        question.first_look(asked) if isinstance(question, Looking) else None
        for question, asked in zip(group, columns)
    ]

    def look(logits: torch.Tensor) -> None:
        for k, one in enumerate(looks):
            if one is not None:
                one(logits[:, k])

    return look if any(looks) else None


def _together(
    group: Sequence[QuestionReward], images: Any, given: Mapping[str, Any]
) -> dict[int, torch.Tensor]:
    flat, counts = flatten_views(images, values=any(question.validate for question in group))
    columns = [
        question.questions({f: given[f] for f in question.placeholders if f in given}, len(counts))
        for question in group
    ]
    wanted = [question.tokens or () for question in group]
    tokens = tuple(dict.fromkeys(token for own in wanted for token in own))
    logits = group[0].backbone.multi_question_logits(
        flat, list(zip(*columns)), sizes_of(flat, counts), tokens, look=_first_look(group, columns)
    )
    out = {}
    for k, question in enumerate(group):
        own = logits[:, k]
        if wanted[k] != tokens:  # one by one, as a list of indices is copied to a GPU
            own = torch.stack([own[:, tokens.index(token)] for token in wanted[k]], dim=1)
        out[id(question)] = question.from_logits(own).to(flat[0].device)
    return out
