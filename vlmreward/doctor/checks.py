"""The list of all checks, and functions that run them in order."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from torch import nn

from vlmreward.doctor import answers, cost, gradients, parity, pixels, tokens
from vlmreward.doctor.probe import Probe
from vlmreward.doctor.result import Check, CheckResult
from vlmreward.rewards.yes_no import YesNoReward

__all__ = ["CHECKS", "SLOW_CHECKS", "checks", "iter_checks", "run_checks"]

CHECKS: tuple[Check, ...] = (
    pixels.processor_float,
    pixels.processor_uint8,
    pixels.flat_images,
    tokens.prompt,
    tokens.token_types,
    tokens.positions,
    tokens.padding,
    parity.whole_reward,
    parity.batch,
    answers.answer_tokens,
    answers.answer_mass,
    gradients.gradient,
    gradients.finite_differences,
    cost.time_and_memory,
    cost.forecast,
)
"""All checks, from the pixels to the whole reward: the first failure usually causes later ones."""

SLOW_CHECKS: tuple[Check, ...] = (gradients.finite_differences, cost.forecast)
"""Checks that ``quick`` leaves out: they need a copy of the model in float64, or larger steps."""


def checks(quick: bool = False) -> list[Check]:
    """The checks that ``run_checks`` makes, in order."""
    return [check for check in CHECKS if not (quick and check in SLOW_CHECKS)]


def iter_checks(
    reward: YesNoReward | tuple[nn.Module, object],
    *,
    prompt: str = "a red ball",
    answers: tuple[str, str] = ("Yes", "No"),
    quick: bool = False,
) -> Iterator[CheckResult]:
    """``run_checks``, one finding at a time."""
    if isinstance(reward, (tuple, list)) and len(reward) == 2:
        reward = YesNoReward((reward[0], reward[1]))
    if not isinstance(reward, YesNoReward):
        raise TypeError(
            f"reward is a {type(reward).__name__}; expected a YesNoReward or a (model, processor) "
            "pair: of a wrapped reward, examine the one inside"
        )
    if reward.needs_own_forward:
        raise ValueError(
            "the reward has answers of several tokens, or per_view; expected answers of one token "
            "and all views in one question: examine reward.backbone with another question"
        )
    reward.question.format(
        **dict.fromkeys(reward.question.placeholders, prompt)
    )  # refuses bad ones
    subject = Probe(reward, prompt=prompt, words=answers)
    for check in checks(quick):
        with warnings.catch_warnings():
            # the sample prompts are of a larger world than a small model's, and there is a check of
            # the answers
            warnings.filterwarnings("ignore", "the text has words|the answers .* of the prob")
            finding = check(subject)
        yield finding


def run_checks(
    reward: YesNoReward | tuple[nn.Module, object],
    *,
    prompt: str = "a red ball",
    answers: tuple[str, str] = ("Yes", "No"),
    quick: bool = False,
) -> list[CheckResult]:
    """Check whether a vision-language model works as a differentiable reward.

    The checks compare the reward with transformers' own processor and forward pass, examine the
    model's inputs, the answers and the gradient, and measure a step, in about twenty forward and a
    dozen backward passes. The reward is left unchanged; a pair's model is frozen, as by any reward.

    Args:
        reward: a ``YesNoReward``, or a ``(model, processor)`` pair of transformers objects.
        prompt: value of the question's placeholders; the sample images show a red disc.
        answers: the words that the reward's answers stand for.
        quick: leave out finite differences (which need a copy of the model in double precision)
            and the forecast of costs.

    Returns:
        One result per check, in the order of ``CHECKS``; none is ``"FAIL"`` if all is well.

    Raises:
        TypeError: ``reward`` is neither of the two.
        ValueError: the reward has answers of several tokens, or ``per_view``.

    Example:
        ``[f for f in doctor.run_checks(reward) if f.status == "FAIL"]``.
    """
    return list(iter_checks(reward, prompt=prompt, answers=answers, quick=quick))
