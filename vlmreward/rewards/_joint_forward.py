"""Several questions to one model in one forward pass, which encodes the images once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from vlmreward.images.batch import ImageBatch, Images
from vlmreward.models.frozen_vlm import FrozenVLM
from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.protocol import Reward, call_reward

__all__ = ["QuestionReward", "check_placeholders", "values_of"]


@runtime_checkable
class QuestionReward(Protocol):
    """A reward of one question to a model, which can share a forward pass with other questions."""

    backbone: FrozenVLM
    validate: bool
    placeholders: tuple[str, ...]
    """Placeholders of the reward's question."""
    tokens: tuple[int, ...] | None
    """T token ids whose logits the reward needs; None if logits of tokens are not enough."""
    needs_own_forward: bool
    """True if the question needs a separate forward pass."""

    def __call__(
        self, images: Images | ImageBatch, prompt: Text | None = None, **placeholders: Text
    ) -> torch.Tensor:
        """The reward ``(B,)``, computed in a separate forward pass."""

    def questions(self, values: Mapping[str, Text], batch: int) -> list[str]:
        """Values of the placeholders -> B questions."""

    def from_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits ``(..., T)`` of the tokens -> ``(...)``, differentiable."""


@runtime_checkable
class Looking(Protocol):
    """A reward that checks the logits of the whole vocabulary at the first use of a question."""

    def first_look(self, questions: Sequence[str]) -> Callable[[torch.Tensor], None] | None:
        """B questions -> a function that checks logits ``(B, V)``, or None if no check is due."""


def check_placeholders(rewards: Sequence[Reward], values: Mapping[str, Text]) -> None:
    """Refuse placeholders that no question has.

    Raises:
        ValueError: there is such a one, and all rewards say which they have.
    """
    known: dict[str, None] = {}
    for reward in rewards:
        if not isinstance(reward, QuestionReward):
            return  # what others take is for them to say
        known.update(dict.fromkeys(reward.placeholders))
    unknown = [placeholder for placeholder in values if placeholder not in known]
    if unknown:
        raise ValueError(
            f"no question has a placeholder {', '.join(unknown)}; expected placeholders: "
            f"{', '.join(known) or 'none'}: leave out {unknown[0]}=..."
        )


def values_of(
    rewards: Sequence[Reward], batch: ImageBatch, values: Mapping[str, Text]
) -> dict[int, torch.Tensor]:
    """Value ``(B,)`` of each reward by its id; questions to one model share a forward pass."""
    groups: dict[int, list[QuestionReward]] = {}
    found: dict[int, torch.Tensor] = {}
    for reward in rewards:
        if not isinstance(reward, QuestionReward):
            found[id(reward)] = call_reward(reward, batch, values)
        elif reward.needs_own_forward:
            found[id(reward)] = call_reward(reward, batch, _own(reward, values))
        else:
            groups.setdefault(id(reward.backbone), []).append(reward)
    for group in groups.values():
        found.update(_together(group, batch, values))
    return found


def _own(reward: QuestionReward, values: Mapping[str, Text]) -> dict[str, Text]:
    """The values of the question's own placeholders."""
    return {name: value for name, value in values.items() if name in reward.placeholders}


def _together(
    group: Sequence[QuestionReward], batch: ImageBatch, values: Mapping[str, Text]
) -> dict[int, torch.Tensor]:
    if any(reward.validate for reward in group):
        batch.check_values()
    columns = [reward.questions(_own(reward, values), len(batch)) for reward in group]
    wanted = [reward.tokens or () for reward in group]
    tokens = tuple(dict.fromkeys(token for own in wanted for token in own))
    logits = group[0].backbone.multi_question_logits(
        batch.views,
        list(zip(*columns)),
        batch.sizes,
        tokens,
        logits_hook=_first_look(group, columns),
    )
    found = {}
    for k, reward in enumerate(group):
        own = logits[:, k]
        if wanted[k] != tokens:  # one by one, as a list of indices is copied to a GPU
            own = torch.stack([own[:, tokens.index(token)] for token in wanted[k]], dim=1)
        found[id(reward)] = reward.from_logits(own).to(batch.device)
    return found


def _first_look(
    group: Sequence[QuestionReward], columns: Sequence[Sequence[str]]
) -> Callable[[torch.Tensor], None] | None:
    """The checks of all rewards at the first use of their questions; None without any."""
    looks = [
        reward.first_look(asked) if isinstance(reward, Looking) else None
        for reward, asked in zip(group, columns)
    ]

    def look(logits: torch.Tensor) -> None:
        for k, one in enumerate(looks):
            if one is not None:
                one(logits[:, k])

    return look if any(looks) else None
