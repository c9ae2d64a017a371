"""Checks that the model gets the tokens, token types and positions of transformers."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward.doctor.probe import Probe, Sample
from vlmreward.doctor.reference import Inputs
from vlmreward.doctor.result import CheckResult, check, failed, pass_or_fail, skipped
from vlmreward.models.token_layout import Size

__all__ = ["padding", "positions", "prompt", "token_types"]

_TYPES = ("token_type_ids", "mm_token_type_ids")

_POSITIONS = (
    "compute position_ids with the model's get_rope_index, from HF's token types and image grids"
)
_MIXED_UP = (
    "padding and reading position do not belong together: pad on the right and read at length - 1, "
    "or pad on the left, read at -1 and pass mask and positions for it"
)
_SEEN = (
    "padding takes part in the attention, or moves it: pass attention_mask and token types, which "
    "models without causal attention need"
)


def _pairs(subject: Probe) -> list[tuple[Inputs, Inputs]]:
    """The model's inputs and HF's for single queries, so that nothing is padded."""
    return [(g, r.inputs) for g, r in zip(subject.given, subject.references)]


def _compared(given: Inputs, expected: Inputs, keys: list[str]) -> list[str]:
    """Missing and different inputs, in words."""
    wrong = []
    for key in keys:
        if key not in given:
            wrong.append(f"{key} is not passed")
        elif given[key].shape != expected[key].shape:
            wrong.append(f"{key} is {tuple(given[key].shape)}, HF's {tuple(expected[key].shape)}")
        elif not torch.equal(given[key].cpu().long(), expected[key].cpu().long()):
            wrong.append(f"{key} has other values")
    return list(dict.fromkeys(wrong))


def _integers(inputs: Inputs) -> list[str]:
    return [k for k, v in inputs.items() if isinstance(v, Tensor) and not v.is_floating_point()]


def _other_prompt(subject: Probe) -> CheckResult | None:
    """A skipped result for prompts that differ, because all later tokens then differ too."""
    for given, expected in _pairs(subject):
        if _compared(given, expected, ["input_ids"]):
            return skipped("the tokens themselves differ: see 'prompt'")
    return None


@check("prompt")
def prompt(subject: Probe) -> CheckResult:
    """Token ids, image grids and masks equal HF's."""
    wrong, length = [], 0
    for given, expected in _pairs(subject):
        # a mask of ones says nothing
        nothing = {k for k in ("attention_mask",) if k in expected and bool(expected[k].all())}
        keys = [k for k in _integers(expected) if k not in nothing and k not in _TYPES]
        wrong += _compared(given, expected, keys)
        length = max(length, expected["input_ids"].shape[1])
    return pass_or_fail(
        not wrong,
        "; ".join(dict.fromkeys(wrong)) or f"equal, up to {length} tokens",
        "equal to processor(text, images)",
        "the chat template or the image token count differs: compare reward.backbone.layout(...) "
        "with the model's processor; was either changed after the reward was made?",
        tokens=length,
    )


@check("token types")
def token_types(subject: Probe) -> CheckResult:
    """Token types, which tell image tokens from text, are passed where the model takes them.

    Without it, and without a message, PaliGemma and Gemma 3 mask wrongly and Qwen counts its
    positions in one dimension.
    """
    if other := _other_prompt(subject):
        return other
    wrong, known = [], []
    for given, expected in _pairs(subject):
        keys = [k for k in _TYPES if k in expected]
        wrong += _compared(given, expected, keys)
        known += keys
    named = ", ".join(dict.fromkeys(known))
    return pass_or_fail(
        not wrong,
        "; ".join(dict.fromkeys(wrong)) or (f"{named} equal" if named else "the model takes none"),
        "passed, equal to HF's",
        "pass the processor's token types on to the model: without them it masks its prefix or "
        "counts its positions differently from training, without a message",
    )


def _positions_of(subject: Probe, given: Inputs, expected: Inputs) -> Tensor:
    """``(P, L)`` of the first row: passed on, or what the model makes of what it is given."""
    if (passed := given.get("position_ids")) is not None:
        return passed[..., 0, :].reshape(-1, passed.shape[-1]).cpu()
    length = given["input_ids"].shape[1]
    types = given.get("mm_token_type_ids")
    if types is None or not hasattr(subject.vlm.base_model, "get_rope_index"):
        return torch.arange(length)[None]
    made, _ = subject.vlm.base_model.get_rope_index(
        given["input_ids"], mm_token_type_ids=types, image_grid_thw=expected["image_grid_thw"]
    )
    return made[:, 0].cpu()


@check("positions")
def positions(subject: Probe) -> CheckResult:
    """Positions equal those that the model computes by itself from HF's inputs."""
    if other := _other_prompt(subject):
        return other
    off, kind = 0, "one dimension"
    for given, inputs in _pairs(subject):
        expected = torch.arange(inputs["input_ids"].shape[1])[None]
        if hasattr(subject.vlm.base_model, "get_rope_index"):
            made, _ = subject.vlm.base_model.get_rope_index(
                inputs["input_ids"],
                mm_token_type_ids=inputs["mm_token_type_ids"],
                image_grid_thw=inputs["image_grid_thw"],
            )
            expected, kind = made[:, 0].cpu(), f"{len(made)} dimensions"
        taken = _positions_of(subject, given, inputs)
        if len(taken) == 1 and len(expected) > 1:
            taken = taken.expand_as(expected)  # one dimension where there should be three
        if taken.shape != expected.shape:
            return failed(f"{tuple(taken.shape)}", f"{tuple(expected.shape)}", _POSITIONS)
        off = max(off, int((taken - expected).abs().max()))
    return pass_or_fail(off == 0, f"off by {off}, {kind}", "0", _POSITIONS, off=off)


@check("padding")
def padding(subject: Probe) -> CheckResult:
    """A query padded to a longer one: read at its own last token, with an unchanged reward."""
    short = subject.samples[0]
    # longer by its prompt, or by its views if the question has no placeholder
    more = 1 if subject.reward.question.placeholders else 2
    pair = [short, Sample(subject.samples[1].prompt, short.views * more)]
    each = [subject.recorded([sample]) for sample in pair]
    alone = torch.cat([value for value, _ in each])
    batch, together = subject.recorded(pair)
    off, limit = float((batch - alone).abs().max()), subject.limit(alone)
    tokens = [given["input_ids"][0].cpu() for _, given in each]
    trouble = _read_elsewhere(subject, pair, tokens, together) + _side_matters(subject, short)
    return pass_or_fail(
        off <= limit and not trouble,
        "; ".join([f"off by {off:.1e} beside a longer query", *trouble]),
        f"{limit:.0e}; each read at its own end",
        _MIXED_UP if trouble else _SEEN,
        off=off,
    )


def _sizes(sample: Sample) -> list[Size]:
    return [(view.shape[-2], view.shape[-1]) for view in sample.views]


def _read_elsewhere(
    subject: Probe, samples: list[Sample], alone: list[Tensor], together: Inputs
) -> list[str]:
    """Queries of a batch whose answer is not read at the end of their own tokens, in words."""
    questions = [subject.question(sample.prompt) for sample in samples]
    last = subject.backbone.layout(
        questions, [_sizes(sample) for sample in samples]
    ).last_token_index.tolist()
    tokens, mask, wrong = together["input_ids"].cpu(), together.get("attention_mask"), []
    for i, own in enumerate(alone):
        place = slice(max(0, last[i] + 1 - len(own)), last[i] + 1)
        if not torch.equal(tokens[i, place], own):
            at = subject.backbone.decode(int(tokens[i, last[i]]))
            wrong.append(f"query {i} is read at token {last[i]}, {at!r}, which is not its end")
        elif mask is not None and mask.ndim == 2:
            real = torch.zeros(tokens.shape[1], dtype=torch.bool)
            real[place] = True
            if not torch.equal(mask[i].cpu().bool(), real):
                wrong.append(f"the attention mask of query {i} does not mark its tokens")
    return wrong


def _side_matters(subject: Probe, sample: Sample) -> list[str]:
    """Differences that the tokenizer's own padding side makes to a question, in words."""
    tokenizer = subject.processor.tokenizer
    kept, rows = tokenizer.padding_side, []
    try:
        for side in ("left", "right"):
            tokenizer.padding_side = side
            asked = subject.backbone.family.encode(subject.question(sample.prompt), _sizes(sample))
            rows.append(asked.tokens)
    finally:
        tokenizer.padding_side = kept
    same = all(torch.equal(rows[0][key], rows[1][key]) for key in rows[0])
    return [] if same else ["the tokenizer's padding_side changes the tokens of a single query"]
