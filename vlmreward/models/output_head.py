"""The output layer of a language model, computed for selected tokens only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["score_tokens", "vocabulary_size"]

_VOCABULARY_AT_ONCE = 16384


def vocabulary_size(vlm: PreTrainedModel) -> int:
    """Number of token ids that the model scores."""
    head = vlm.get_output_embeddings()
    return int(getattr(head, "out_features", None) or head.weight.shape[0])


def score_tokens(vlm: PreTrainedModel, hidden: Tensor, tokens: Sequence[int] | None) -> Tensor:
    """Logits of some tokens, in at least float32 and with the model's soft cap.

    Args:
        vlm: the model.
        hidden: ``(..., D)`` its last hidden states.
        tokens: T token ids; None for the whole vocabulary.

    Returns:
        ``(..., T)``, differentiable to ``hidden``.
    """
    head = vlm.get_output_embeddings()
    wanted = torch.promote_types(hidden.dtype, torch.float32)
    # A quantized or adapted head has no rows to take out, one that is on disk not yet
    if type(head) is not nn.Linear or head.weight.is_meta:
        logits = head(hidden).to(wanted)
        logits = logits if tokens is None else logits[..., list(tokens)]
    elif tokens is None:
        logits = _all_logits(head, hidden.to(head.weight.device), wanted)
    else:
        # One by one, because a list of indices would have to be copied to a GPU every time
        matrix = torch.stack([head.weight[token] for token in tokens]).to(wanted)
        logits = hidden.to(matrix) @ matrix.T
        if head.bias is not None:
            logits = logits + torch.stack([head.bias[token] for token in tokens]).to(wanted)
    cap = getattr(vlm.config.get_text_config(), "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits


def _all_logits(head: nn.Linear, hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits of the whole vocabulary, not rounded to half precision."""
    if hidden.dtype == dtype:
        return head(hidden)

    def part(hidden: Tensor, weight: Tensor) -> Tensor:
        return hidden.to(dtype) @ weight.to(dtype).T

    # in parts, made again in the backward pass: as a whole the matrix would be there twice
    parts = [
        recomputed(part, hidden, weight, use_reentrant=False)
        for weight in head.weight.split(_VOCABULARY_AT_ONCE)
    ]
    logits = torch.cat(parts, dim=-1)
    return logits if head.bias is None else logits + head.bias.to(dtype)
