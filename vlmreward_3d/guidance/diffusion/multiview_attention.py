"""Self-attention across the views of a group, as in MVDream (Shi et al., 2023)."""

from __future__ import annotations

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from vlmreward.utils.arguments import whole


class ViewMergingAttention:
    """An attention processor that lets the ``n_views`` images of a group attend to each other.

    Hidden states ((b f), l, c) become (b, (f l), c) for the attention and are split again behind
    it. Text cross-attention must keep its own processor.
    """

    def __init__(self, n_views: int) -> None:
        self.n_views = n_views
        self.inner = AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: object,
    ) -> Tensor:
        """Attend over all tokens of all views of a group."""
        n, length, channels = hidden_states.shape
        if n % self.n_views:
            raise ValueError(
                f"received {n} images; expected a multiple of {self.n_views} views: pass whole "
                "groups, view after view"
            )
        merged = hidden_states.reshape(n // self.n_views, self.n_views * length, channels)
        return self.inner(attn, merged, None, attention_mask, **kwargs).reshape(n, length, channels)


def merge_views(unet: UNet2DConditionModel, n_views: int) -> UNet2DConditionModel:
    """Put ``ViewMergingAttention`` on every self-attention of a UNet, in place.

    Raises:
        TypeError, ValueError: ``n_views`` is no whole number >= 1.
    """
    whole("n_views", n_views)
    unet.set_attn_processor(
        {
            name: ViewMergingAttention(n_views) if ".attn1." in name else processor
            for name, processor in unet.attn_processors.items()
        }
    )
    return unet
