"""Report on a model whose weights are not read: prompt layout, sizes, estimated step costs."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch

from vlmreward.doctor.architecture import towers
from vlmreward.doctor.estimate import GPUS, UTILIZATION, Cost, Work, step_cost
from vlmreward.models.answer_tokens import Answer, Answers, resolve_answers
from vlmreward.models.meta_loading import load_on_meta
from vlmreward.models.text_side import TextSide
from vlmreward.models.token_layout import EncodedPrompt
from vlmreward.processors import FallbackProcessor, from_hf
from vlmreward.rewards.questions import QuestionTemplate

__all__ = ["MetaReport", "describe", "report_lines"]

VIEWS, SIDES = (1, 2, 4, 8), (256, 512, 1024)
"""Rows and columns of the estimate."""
_RUN = 3
"""Longest run of a token that is written out."""


@dataclass(frozen=True)
class MetaReport:
    """Properties of a model that are known without its weights.

    Attributes:
        kind: the model's class, and its ``model_type`` in parentheses.
        dtype: dtype of the parameters.
        quantized: True if the configuration is of quantized weights, which are counted as if not.
        parameters: number of parameters by part: ``"vision"``, ``"connector"``, ``"text"``,
            ``"all"``.
        prompt: the prompt for one image, as text, with a run of one token as "<token> x 81".
        tokens: number of tokens of ``prompt``.
        image_tokens: number of tokens of one square image, without the tokens that mark its ends,
            by the side in pixels.
        answers: the tokens whose log-odds the reward is.
        gpu: name of the GPU, a key of ``GPUS``.
        costs: cost of a step of one query, by number of views and side, such as ``"2x512"``.
    """

    kind: str
    dtype: str
    quantized: bool
    parameters: dict[str, int]
    prompt: str
    tokens: int
    image_tokens: dict[int, int]
    answers: Answers
    gpu: str
    costs: dict[str, Cost]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON, with the seconds and peaks of each cost."""
        out = asdict(self)
        for key, cost in self.costs.items():
            out["costs"][key] |= {
                "seconds": cost.seconds(GPUS[self.gpu]),
                "peak": cost.peak,
                "peak_checkpoint": cost.peak_checkpoint,
            }
        return out


def describe(
    source: str | os.PathLike[str],
    *,
    question: str | QuestionTemplate = "yes-no",
    prompt: str = "a red ball",
    answers: tuple[Answer, Answer] = ("Yes", "No"),
    gpu: str = "H100",
    dtype: torch.dtype | None = None,
) -> MetaReport:
    """Describe a model as a reward, from its configuration and processor alone.

    No weight is read: the model is built on torch's meta device. Costs are estimates by the
    formulas of ``vlmreward.doctor.estimate``, for one query with all views in one question.

    Args:
        source: hub id, local folder or ``"builtin/blocks"``; weights need not be there.
        question: question with placeholders, a template or a name; see ``YesNoReward``.
        prompt: value of all placeholders of the question.
        answers: the positive and the negative answer; see ``YesNoReward``.
        gpu: a key of ``vlmreward.doctor.estimate.GPUS``.
        dtype: dtype of the parameters; default: that of ``config.json``, and bfloat16 if it names
            none.

    Raises:
        OSError: the files cannot be found or read.
        ValueError: an unknown GPU, or a question or answers as ``YesNoReward`` refuses them.

    Example:
        ``doctor.describe("builtin/blocks").image_tokens[256]``.
    """
    if gpu not in GPUS:
        raise ValueError(f"gpu is {gpu!r}; expected one of {', '.join(GPUS)}")
    template = QuestionTemplate.of(question)
    asked = template.format(**dict.fromkeys(template.placeholders, prompt))
    side = load_on_meta(source, dtype)
    found = resolve_answers(answers, side.lookup())
    vision, text, connector = towers(side.vlm)
    row = side.encode(asked, [(SIDES[0],) * 2])
    costs, image_tokens = {}, {}
    for pixels in SIDES:
        patches = _patches(side, pixels)
        lengths = _lengths(side, asked, pixels)
        image_tokens[pixels] = lengths[0][1]
        for views in VIEWS:
            tokens, of_images = _extended(lengths, views)
            costs[f"{views}x{pixels}"] = step_cost(
                vision,
                text,
                connector,
                Work(patches * views, of_images, tokens),
                item_size=side.vlm.dtype.itemsize,
            )
    parameters = {"vision": vision.parameters, "connector": connector, "text": text.parameters}
    return MetaReport(
        kind=f"{type(side.vlm).__name__} ({side.vlm.config.model_type})",
        dtype=str(side.vlm.dtype).removeprefix("torch."),
        quantized=getattr(side.vlm.config, "quantization_config", None) is not None,
        parameters={**parameters, "all": sum(parameters.values())},
        prompt=_written(side, row),
        tokens=len(row),
        image_tokens=image_tokens,
        answers=found,
        gpu=gpu,
        costs=costs,
    )


def _lengths(side: TextSide, asked: str, pixels: int) -> list[tuple[int, int]]:
    """Numbers of tokens and of image tokens, for prompts with 1, 2 and 3 images."""
    of_config = getattr(side.vlm.config, "image_token_id", -1)
    image = int(getattr(side.processor, "image_token_id", of_config))
    rows = [side.encode(asked, [(pixels, pixels)] * views) for views in (1, 2, 3)]
    return [(len(row), int(row.tokens["input_ids"].eq(image).sum())) for row in rows]


def _extended(lengths: list[tuple[int, int]], views: int) -> tuple[int, int]:
    """The same for more images, each as the third; some models read a single one otherwise."""
    if views <= len(lengths):
        return lengths[views - 1]
    further = views - len(lengths)
    (tokens, images), (before, images_before) = lengths[-1], lengths[-2]
    return tokens + further * (tokens - before), images + further * (images - images_before)


def _patches(side: TextSide, pixels: int) -> tuple[int, ...]:
    """Patches of an image, or of each of its tiles, as the image processor makes them."""
    images = from_hf(side.processor)
    if isinstance(images, FallbackProcessor):
        images.options = side.image_options()
    blank = torch.zeros(1, 3, pixels, pixels)
    values = images.process(blank[None] if images.nested else blank)["pixel_values"]
    if values.ndim == 2:  # patches already
        return (len(values),)
    size = getattr(side.vlm.config, "vision_config", side.vlm.config).patch_size
    high, wide = (size, size) if isinstance(size, int) else size
    patches = (values.shape[-2] // high) * (values.shape[-1] // wide)
    return (patches,) * values.shape[:-3].numel()


def _written(side: TextSide, row: EncodedPrompt) -> str:
    """Tokens as text, with runs of one token counted."""
    runs = [(token, len([*same])) for token, same in groupby(row.tokens["input_ids"].tolist())]
    parts: list[str] = []
    plain: list[int] = []  # decoded together: a character may be several tokens
    for token, count in [*runs, (0, 0)]:
        if 0 < count <= _RUN:
            plain += [token] * count
            continue
        parts.append(side.decode(*plain) if plain else "")
        parts.append(f"{side.decode(token)} x {count}" if count else "")
        plain = []
    return "".join(parts)


def report_lines(report: MetaReport) -> list[str]:
    """A report as lines of text."""
    gpu, cost = GPUS[report.gpu], report.costs[f"{VIEWS[0]}x{SIDES[0]}"]
    parts = ", ".join(
        f"{name} {_billions(count)}"
        for name, count in report.parameters.items()
        if count and name != "all"
    )
    answers = report.answers
    both = zip(
        (*answers.positive, *answers.negative), (*answers.positive_tokens, *answers.negative_tokens)
    )
    rows = []
    for views in VIEWS:
        cells = []
        for side in SIDES:
            at = report.costs[f"{views}x{side}"]
            over = "!" if at.peak > gpu.memory else " "
            cells.append(
                f"{at.seconds(gpu):7.2f} s {_gib(at.peak):>5}{over}{_gib(at.peak_checkpoint):>5} GB"
            )
        rows.append(f"{views:>5} |" + " |".join(cells))
    head = "views |" + " |".join(f"{f'{s}x{s}':>25}" for s in SIDES)
    note = "; the checkpoint is quantized, counted as if it were not" if report.quantized else ""
    return [
        f"model         {report.kind}, not loaded",
        f"parameters    {_billions(report.parameters['all'])} ({parts}), "
        f"{_gib(cost.weights)} GB in {report.dtype}{note}",
        f"prompt        {report.tokens} tokens with one image of {SIDES[0]}x{SIDES[0]}: "
        f"{report.prompt!r}",
        "image         "
        + ", ".join(f"{count} tokens of {s}x{s}" for s, count in report.image_tokens.items()),
        "answers       " + ", ".join(f"{text!r} ({token})" for token, text in both),
        f"estimate      a step, forward and backward, on {report.gpu} at {UTILIZATION:.0%} of its "
        "rate; from sizes alone,",
        "              not measured: seconds, GB at the peak, and GB with checkpoint=True "
        "(! more than it has)",
        *(f"{'':14}{line}" for line in (head, *rows)),
    ]


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e8 else f"{count / 1e6:.1f} M"


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f}"
