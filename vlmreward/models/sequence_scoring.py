"""Answers of several tokens: laid out behind the prompt, each token scored where it stands.

The probability of an answer is the product of those of its tokens, each after the prompt and the
tokens before it. One forward pass has them all: where the model's attention allows it, the answers
are branches of one sequence that has the prompt once; otherwise they are rows of a batch.
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
        layout: the batch; ``last_token_index`` is ``(B, M)``, the tokens whose logits are read, or
            ``(B K, T)`` where every answer has a row of its own.
        repeat: how many rows one after the other share their images.
        logit_index: ``(K, T)`` which of the M tokens predicts a token of an answer.
        target: ``(K, T)`` the id of that token.
        mask: bool ``(K, T)``: answers of fewer tokens are filled up in front.
    """

    layout: TokenBatch
    repeat: int
    logit_index: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, M, V)`` or ``(B K, T, V)`` -> those of the answers ``(B, K)``."""
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
    """Lay out K answers behind each of B prompts.

    Args:
        family: how the model reads.
        rows: the prompts.
        answers: token ids of each answer; none begins with another one.
        images_per_item: numbers of images.
        device: where the model is.
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
