"""One question in several wordings, and against its opposite."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vlmreward.images.batch import flatten_images
from vlmreward.rewards.prompts import PromptTemplate
from vlmreward.rewards.protocol import Reward, ask, named

__all__ = ["PromptEnsemble"]

Prompts = Mapping[str, str | PromptTemplate] | Sequence[str | PromptTemplate]


def _with_prompt(reward: Any, prompt: Any) -> Any:
    """The reward with another question; everything else, the model above all, is the same."""
    other = copy.copy(reward)
    other.prompt = PromptTemplate.of(prompt)
    return other


class PromptEnsemble(nn.Module):
    """Mean of one reward over wordings of its question, and against the opposite question.

    A picture that fools a model often does so for one wording. With ``opposites`` the value is

        (mean over prompts - mean over opposites) / 2,

    which stays a log-odds, and in which a preference of the model for "Yes", whatever the
    question, cancels exactly.

    Args:
        reward: a ``YesNoReward``, or any reward whose attribute ``prompt`` is the
            ``PromptTemplate`` that it asks. It is not changed; its model is shared.
        prompts: wordings: texts, templates or names in ``NAMED_PROMPTS``, as a list or by name.
        opposites: wordings whose "Yes" is the others' "No", such as "Is there no {text}?".

    Attributes:
        names: of all questions, those of ``opposites`` last.

    Raises:
        TypeError: the reward has no prompt to change.
        ValueError: no prompts, two of one name, or prompts of different fields.

    Example:
        ``PromptEnsemble(reward, ["Is there {text}?"], opposites=["Is there no {text}?"])``.
    """

    def __init__(
        self, reward: Reward, prompts: Prompts, *, opposites: Prompts | None = None
    ) -> None:
        super().__init__()
        if not isinstance(getattr(reward, "prompt", None), PromptTemplate):
            raise TypeError(
                f"reward is a {type(reward).__name__} without a prompt; expected a YesNoReward: "
                "put rewards of another kind into an Ensemble"
            )
        against = {} if opposites is None else named(opposites, "opposites")
        if opposites is not None and not isinstance(opposites, Mapping):
            against = {f"not {name}": prompt for name, prompt in against.items()}
        asked = named(prompts, "prompts")
        if both := sorted(asked.keys() & against.keys()):
            raise ValueError(
                f"prompts and opposites share the name {both[0]!r}; expected each name once"
            )
        self.reward = reward
        # Not submodules: they are the reward again, with another question
        self._asked = {name: _with_prompt(reward, prompt) for name, prompt in asked.items()}
        self._against = {name: _with_prompt(reward, prompt) for name, prompt in against.items()}
        self.names = (*self._asked, *self._against)
        every = [*self._asked.items(), *self._against.items()]
        name, first = every[0]
        for other, asking in every[1:]:
            if set(asking.prompt.fields) != set(first.prompt.fields):
                raise ValueError(
                    f"prompt {other!r} has fields {asking.prompt.fields}; expected those of "
                    f"{name!r}, {first.prompt.fields}: every wording is given the same"
                )

    def forward(
        self,
        images: torch.Tensor | Sequence[Any],
        text: str | Sequence[str] | None = None,
        **fields: str | Sequence[str],
    ) -> torch.Tensor:
        """Mean over the wordings, or half its distance from the opposites'.

        Args:
            images: as the reward takes them. Differentiable.
            text: value of the prompts' ``{text}`` field, one for all or a list of B.
            **fields: values of the prompts' other fields.

        Returns:
            ``(B,)``, differentiable to the images. The graphs of all questions live until the
            backward pass.
        """
        values = self.each(images, text, **fields)
        mean = torch.stack([values[name] for name in self._asked]).mean(dim=0)
        if not self._against:
            return mean
        return (mean - torch.stack([values[name] for name in self._against]).mean(dim=0)) / 2

    def each(
        self,
        images: torch.Tensor | Sequence[Any],
        text: str | Sequence[str] | None = None,
        **fields: str | Sequence[str],
    ) -> dict[str, torch.Tensor]:
        """The reward of every question by name, ``(B,)`` each; opposites with their own sign."""
        _, layout = flatten_images(images)
        return {
            name: ask(asking, images, layout.batch, text, fields)
            for name, asking in (self._asked | self._against).items()
        }
