"""The network of Reward3D: BLIP and a head, from four views and their texts to one number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPImageProcessor
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from vlmreward.models.quiet_loading import quiet
from vlmreward.models.reward3d.blip import (
    convert_text_encoder,
    convert_vision_encoder,
    load_strictly,
)
from vlmreward.models.reward3d.heads import N_VIEWS, CrossViewFusion, Scorer, head_of
from vlmreward.models.weight_files import read_tensors, weight_file
from vlmreward.models.wording import reason_of
from vlmreward.processors import from_hf
from vlmreward.processors.base import ImageProcessor

__all__ = ["Reward3DNetwork", "image_processor", "load_network"]

_VISION, _TEXT = "blip.visual_encoder.", "blip.text_encoder."
_UNUSED = ("blip.vision_proj.", "blip.text_proj.")
"""Prefixes of tensors in the checkpoints that only BLIP's training used."""


class Reward3DNetwork(nn.Module):
    """Reward3D, frozen and in eval mode.

    Attributes:
        vision: Image encoder.
        text: Text encoder with cross-attention to the image.
        head: Module from the features (B, 4, D) of four views to rewards (B,).
        image_size: Side of the images in pixels.
    """

    def __init__(
        self, vision: BlipVisionModel, text: BlipTextModel, head: Scorer | CrossViewFusion
    ) -> None:
        super().__init__()
        self.vision, self.text, self.head = vision, text, head
        self.image_size = int(vision.config.image_size)
        self.requires_grad_(False).eval()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], *, head_channels: int = 64) -> Reward3DNetwork:
        """Build from the authors' tensors, all of which have to find their place.

        Args:
            state: Tensors by name, as in "Reward3D_Scorer.pt" or "Reward3D_CrossViewFusion.pt".
            head_channels: Channels of an attention head, which the tensors do not tell.

        Raises:
            KeyError, ValueError: Tensors are missing, unknown or of another shape.
        """
        own = {name: value for name, value in state.items() if not name.startswith(_UNUSED)}
        parts: dict[str, dict[str, Tensor]] = {_VISION: {}, _TEXT: {}, "": {}}
        for name, value in own.items():
            before = next(part for part in parts if name.startswith(part))
            parts[before][name.removeprefix(before)] = value
        head = head_of(parts[""], head_channels=head_channels)
        return cls(
            convert_vision_encoder(parts[_VISION], head_channels=head_channels),
            convert_text_encoder(parts[_TEXT], head_channels=head_channels),
            load_strictly(head, parts[""], "head"),
        )

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """The rewards of B objects.

        Args:
            pixels: (B * 4, 3, S, S), normalized.
            tokens: (B * 4, L) ids of the text of each view.
            mask: (B * 4, L) 1 where there is a token, 0 where there is padding.

        Returns:
            (B,), differentiable to the pixels.
        """
        seen = self.vision(pixel_values=pixels).last_hidden_state
        told = self.text(
            input_ids=tokens,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=mask.new_ones(seen.shape[:2]),
            is_decoder=False,
        ).last_hidden_state[:, 0]
        return self.head(told.unflatten(0, (-1, N_VIEWS)))


def load_network(
    source: str | Path, *, dtype: torch.dtype = torch.float32, head_channels: int = 64
) -> Reward3DNetwork:
    """Load one of the authors' two checkpoints.

    Args:
        source: The file, such as "Reward3D_Scorer.pt", read with ``weights_only=True``, or as
            safetensors by its name; or hub id and name, joined by "/".
        dtype: Dtype of the weights.
        head_channels: Channels of an attention head.

    Raises:
        OSError: The file is missing or damaged, or cannot be reached.
        ValueError: The file is of another model.
    """
    expected = (
        "expected Reward3D_Scorer.pt or Reward3D_CrossViewFusion.pt of "
        "'yejunliang23/Reward3D', or the same tensors as safetensors: check the name, or download "
        "it again"
    )
    try:
        state = read_tensors(weight_file(source, (".pt", ".safetensors")))
    except Exception as error:  # the libraries raise errors of their own
        raise OSError(f"cannot load {str(source)!r} ({reason_of(error)}); {expected}") from error
    try:
        with quiet():
            network = Reward3DNetwork.from_state(state, head_channels=head_channels)
    except (KeyError, ValueError, IndexError) as error:
        missing = isinstance(error, KeyError)
        reason = f"{error.args[0]} is missing" if missing else reason_of(error)
        raise ValueError(f"{str(source)!r} is not Reward3D ({reason}); {expected}") from error
    return network.to(dtype)


def image_processor(side: int, pixel_mode: str) -> ImageProcessor:
    """CLIP's image processor for squares of a side: the shorter side, a crop, CLIP's constants."""
    size = {"height": side, "width": side}
    hf = CLIPImageProcessor(size={"shortest_edge": side}, crop_size=size)
    return from_hf(hf, pixel_mode=pixel_mode)
