"""Scoring of answers of several tokens.

The probability of an answer is the product of the probabilities of its tokens, each given the
prompt and the tokens before it. One forward pass computes all of them: where the model's attention
allows it, the answers are branches of one sequence that contains the prompt once; otherwise they
are rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vlmreward.models.families.base import VLMFamily
from vlmreward.models.token_layout import EncodedPrompt, TokenBatch

__all__ = ["AnswerBatch", "build_answer_batch"]


@dataclass(frozen=True)
class AnswerBatch:
    """A batch of B queries with K answers of up to T tokens behind each.

    Attributes:
        layout: token layout of the batch; its ``last_token_index`` holds the indices of the tokens
            whose logits are read, ``(B, M)``, or ``(B K, T)`` where every answer has its own row.
        repeat: number of consecutive rows that share their images.
        logit_index: integers ``(K, T)``, the index in the last dimension of ``last_token_index`` of
            the token that predicts each token of an answer.
        target: integers ``(K, T)``, the id of each token of an answer.
        mask: bool ``(K, T)``, False for padding, which precedes answers of fewer tokens.
    """

    layout: TokenBatch
    repeat: int
    logit_index: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, M, V)`` or ``(B K, T, V)`` -> log-probabilities ``(B, K)``."""
        each = logits.log_softmax(-1)
        if self.repeat == 1:
            chosen = each[:, self.logit_index, self.target]
        else:
            several = torch.arange(len(self.logit_index), device=each.device)[:, None]
            each = each.unflatten(0, (-1, self.repeat))
            chosen = each[:, several, self.logit_index, self.target]
        # not multiplied by 0: an impossible token has a log-probability of minus infinity
        return torch.where(self.mask, chosen, 0.0).sum(-1)


def build_answer_batch(
    family: VLMFamily,
    rows: Sequence[EncodedPrompt],
    answers: Sequence[Sequence[int]],
    images_per_item: Sequence[int],
    device: torch.device,
) -> AnswerBatch:
    """Build the token layout of K answers behind each of B prompts.

    Args:
        family: family of the model.
        rows: the B prompts.
        answers: token ids of each of the K answers; none begins with another one.
        images_per_item: number of images of each prompt.
        device: device of the model.
    """
    lengths = [len(answer) for answer in answers]
    longest = max(lengths)
    target = torch.tensor([[0] * (longest - len(answer)) + list(answer) for answer in answers])
    mask = torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]
    # an answer's last token predicts nothing that is wanted
    queries = [[family.append_tokens(row, answer[:-1]) for answer in answers] for row in rows]
    packed = family.pack_prompts(queries)
    if packed is None:
        layout = family.collate(
            [row for several in queries for row in several],
            [count for count in images_per_item for _ in answers],
            device,
        )
        back = torch.arange(longest - 1, -1, -1).to(device)
        layout = replace(layout, last_token_index=layout.last_token_index[:, None] - back)
        logit_index = torch.arange(longest).expand(len(answers), -1)
        return AnswerBatch(
            layout, len(answers), *(t.to(device) for t in (logit_index, target, mask))
        )
    layout = family.collate_sequences(packed, images_per_item, device)
    places = [p.places(lengths) for p in packed]
    # each once: a gradient that was scattered to the same token twice would count twice
    wanted = [sorted({place for several in query for place in several}) for query in places]
    found = [[wanted[0].index(place) for place in several] for several in places[0]]
    logit_index = torch.tensor([[0] * (longest - len(several)) + several for several in found])
    layout = replace(layout, last_token_index=torch.tensor(wanted).to(device))
    return AnswerBatch(layout, 1, *(t.to(device) for t in (logit_index, target, mask)))
