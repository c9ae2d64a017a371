"""The explanation of one reward: attribution to pixels and views, and a picture of both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vlmreward.explain._inputs import check_tensor
from vlmreward.explain._integrated_gradients import integrated_gradients
from vlmreward.explain._saliency import SALIENCIES, saliency
from vlmreward.explain.plot import check_suffix, draw
from vlmreward.explain.view_ablation import leave_one_view_out
from vlmreward.rewards.placeholders import Text, placeholder_values
from vlmreward.rewards.protocol import Reward, call_reward
from vlmreward.utils.arguments import number, whole
from vlmreward.utils.output import replacing

__all__ = ["METHODS", "Explanation", "attribute"]

METHODS = ("integrated-gradients", *SALIENCIES)
"""Methods that attribute a reward to pixels."""


@dataclass(frozen=True)
class Explanation:
    """Attribution of a reward of B queries of V views; all tensors detached.

    Attributes:
        method: one of ``METHODS``.
        questions: B texts, for titles: the placeholders' values, or a question without any.
        images: ``(B, V, 3, H, W)``, as given.
        attribution: ``(B, V, H, W)`` of every pixel, summed over the channels. Signed (above 0
            speaks for "Yes"), but for ``"gradient-norm"``.
        reward: ``(B,)``.
        views: ``(B, V)``, r(all views) - r(without this one); see ``replacement``.
        replacement: stand-in for a view; None: it was left out.
        baseline_reward: ``(B,)`` for integrated gradients, otherwise None.
        residual: ``(B,)``, likewise: reward - baseline_reward - sum of ``attribution``.
    """

    method: str
    questions: tuple[str, ...]
    images: torch.Tensor
    attribution: torch.Tensor
    reward: torch.Tensor
    views: torch.Tensor
    replacement: float | str | torch.Tensor | None
    baseline_reward: torch.Tensor | None = None
    residual: torch.Tensor | None = None

    @property
    def signed(self) -> bool:
        """True if ``attribution`` has two directions."""
        return self.method != "gradient-norm"

    def save(
        self, path: str | os.PathLike[str], *, query: int = 0, blur_sigma: float | None = None
    ) -> Path:
        """A picture: the views of one query above their heat maps, with the numbers of each view.

        Args:
            path: a PNG, PDF or any other file that matplotlib writes.
            query: index of the query, from -B to B - 1.
            blur_sigma: standard deviation in pixels of a blur of the heat map, for the eye (the
                numbers are not blurred); 0 for none. Default: 1/40 of the shorter side.

        Returns:
            The path.

        Raises:
            ImportError: matplotlib is not installed.
            OSError: the file cannot be written; see ``vlmreward.utils.output.replacing``.
            TypeError: ``query`` is no whole number, or ``blur_sigma`` no number.
            ValueError: there is no such query, ``blur_sigma`` is below 0, or matplotlib writes no
                files that end like this.
        """
        whole("query", query, -len(self.images))
        if not -len(self.images) <= query < len(self.images):
            raise ValueError(f"query is {query}; expected below {len(self.images)}")
        if blur_sigma is None:
            blur_sigma = min(self.images.shape[-2:]) / 40
        number("blur_sigma", blur_sigma, least=0)
        check_suffix(path)
        with replacing(path) as draft:
            draw(self, draft, query, blur_sigma)
        return Path(path)


def attribute(
    reward: Reward,
    images: torch.Tensor,
    prompt: Text | None = None,
    *,
    method: str = "integrated-gradients",
    baseline: float | str | torch.Tensor = 0.5,
    steps: int = 96,
    tolerance: float = 0.02,
    replacement: float | str | torch.Tensor | None = None,
    **placeholders: Text,
) -> Explanation:
    """Attribute a reward to the pixels and to the views of its images.

    Args:
        reward: any reward, called as ``reward(images, prompt)``.
        images: ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``, floating in [0, 1].
        prompt: value of ``{prompt}``, one for all or a list of B.
        method: one of ``METHODS``; see ``integrated_gradients`` and ``saliency``.
        baseline: baseline of the integrated gradients.
        steps: largest number of gradients of the integrated gradients.
        tolerance: tolerance of the integrated gradients.
        replacement: in the place of a view that is left out; see ``leave_one_view_out``. None:
            nothing, or mid-gray for queries of one view.
        **placeholders: values of the other placeholders, likewise.

    Returns:
        The explanation; ``.save(path)`` makes a picture of it.

    Raises:
        TypeError, ValueError: images outside the contract, or unknown ``method``.
        RuntimeError: the reward is not differentiable.

    Example:
        ``attribute(reward, images, prompt="a red cube").save("why.png")``.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {METHODS}")
    batch = check_tensor(images)
    (images,) = batch.tensors
    values = placeholder_values(prompt, placeholders)
    start = residual = None
    if method == "integrated-gradients":
        path = integrated_gradients(
            reward,
            images,
            prompt,
            baseline=baseline,
            steps=steps,
            tolerance=tolerance,
            **placeholders,
        )
        heat, value = path.attributions.sum(dim=-3), path.reward
        start, residual = path.baseline_reward, path.residual
    else:
        heat = saliency(reward, images, prompt, kind=method, **placeholders)
        with torch.no_grad():
            value = call_reward(reward, batch, values)
    one = images.ndim == 4
    if replacement is None and (one or images.shape[1] == 1):
        replacement = 0.5
    return Explanation(
        method=method,
        questions=_questions(reward, len(images), values),
        images=images[:, None] if one else images,
        attribution=heat[:, None] if one else heat,
        reward=value,
        views=leave_one_view_out(reward, images, prompt, replacement=replacement, **placeholders),
        replacement=replacement,
        baseline_reward=start,
        residual=residual,
    )


def _questions(reward: Reward, batch: int, given: Mapping[str, Text]) -> tuple[str, ...]:
    """Titles of the queries: the placeholders' values, or the question where it has none."""
    values: list[Text] = list(given.values())
    if not values:
        values = [getattr(getattr(reward, "question", None), "template", "")]
    return tuple(
        ", ".join(v if isinstance(v, str) else str(v[i]) for v in values) for i in range(batch)
    )
