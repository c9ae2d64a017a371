"""Checks that the reward equals that of transformers alone, and is the same in any batch."""

from __future__ import annotations

import torch

from vlmreward.doctor.probe import Probe
from vlmreward.doctor.result import CheckResult, check, pass_or_fail
from vlmreward.models.answer_tokens import log_odds

__all__ = ["batch", "whole_reward"]


@check("whole reward")
def whole_reward(subject: Probe) -> CheckResult:
    """Reward compared with HF's processor and full forward pass, one query at a time."""
    answers = subject.reward.answers
    ids = list(answers.ids or ())
    expected = torch.stack(
        [log_odds(reference.logits[ids], len(answers.positive)) for reference in subject.references]
    ).double()
    off, limit = float((subject.alone - expected).abs().max()), subject.limit(expected)
    return pass_or_fail(
        off <= limit,
        f"off by {off:.1e} (log-odds {', '.join(f'{z:+.2f}' for z in expected.tolist())})",
        f"{limit:.0e}",
        "where the other checks are right, the difference is inside the model: dtype, attention "
        "or the output layer; where they are not, mend those first",
        off=off,
    )


@check("batch")
def batch(subject: Probe) -> CheckResult:
    """Rewards of a batch of mixed prompts, sizes and view counts: as alone, and in any order."""
    samples = list(subject.mixed)
    each = subject.alone
    if subject.mixed is not subject.samples:
        each = torch.cat([subject.values([sample]) for sample in samples])
    forward = subject.values(samples)
    backward = subject.values(samples[::-1]).flip(0)
    limit = subject.limit(each)
    alone = float((forward - each).abs().max())
    order = float((forward - backward).abs().max())
    return pass_or_fail(
        alone <= limit and order <= limit,
        f"off by {alone:.1e} from alone, by {order:.1e} in reverse order",
        f"{limit:.0e}",
        "a query's reward depends on the others: ask one at a time, and look at padding, masks "
        "and which image belongs to which text",
        alone=alone,
        order=order,
    )
