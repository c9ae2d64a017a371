"""MVDream (Shi et al., 2023): Stable Diffusion 2.1 on four views at once, with cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from vlmreward_3d.diffusion.latent import LatentDiffusion
from vlmreward_3d.diffusion.ldm import (
    convert_mvdream_unet,
    convert_open_clip_text,
    convert_vae,
    part,
)
from vlmreward_3d.diffusion.view_attention import merge_views

__all__ = ["MVDream"]


class MVDream(LatentDiffusion):
    """MVDream as a score-distillation teacher.

    Args:
        unet: takes the 16-number camera as ``class_labels``; its self-attention is made to merge
            the views of a group, in place.
        vae: see ``LatentDiffusion``; likewise all that follows.
        text_encoder: see there.
        tokenizer: see there.
        scheduler: see there.
        n_views: views of a group.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: Any,
        scheduler: DDPMScheduler,
        n_views: int = 4,
    ) -> None:
        if unet.config.class_embed_type != "projection":
            raise ValueError(
                "the UNet takes no cameras (class_embed_type is not 'projection'); expected that "
                "of MVDream: for Stable Diffusion use StableDiffusion"
            )
        super().__init__(merge_views(unet, n_views), vae, text_encoder, tokenizer, scheduler)
        self.n_views = n_views

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        tokenizer: Any = "openai/clip-vit-large-patch14",
        dtype: torch.dtype = torch.float32,
        head_channels: int = 64,
        sample_size: int = 32,
    ) -> MVDream:
        """Build all parts from the authors' single file, "sd-v2.1-base-4view.pt".

        Args:
            path: the file, read with ``weights_only=True``, or as safetensors by its name.
            tokenizer: CLIP's, which the file does not hold: a hub id, a folder, or the object. All
                tokenizers of CLIP have the same vocabulary; padding becomes id 0, as of OpenCLIP.
            dtype: of the weights.
            head_channels: channels of an attention head, in UNet and text encoder.
            sample_size: side of the latents.

        Raises:
            FileNotFoundError: there is no such file.
            KeyError: the file is not in that layout.
            OSError: the tokenizer cannot be loaded.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no file {path}; expected MVDream's sd-v2.1-base-4view.pt, or use "
                "from_pretrained for a diffusers folder"
            )
        state = {
            key: value.to(dtype) if value.is_floating_point() else value
            for key, value in _read(path).items()
        }
        if isinstance(tokenizer, (str, Path)):
            try:
                tokenizer = CLIPTokenizer.from_pretrained(str(tokenizer))
            except (OSError, ValueError) as error:
                raise OSError(
                    f"cannot load the tokenizer {str(tokenizer)!r}; expected a hub id or folder of "
                    "any CLIP tokenizer: pass tokenizer="
                ) from error
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
        text = part(state, "cond_stage_model.model.")
        return cls(
            convert_mvdream_unet(
                part(state, "model.diffusion_model."),
                head_channels=head_channels,
                sample_size=sample_size,
            ),
            convert_vae(part(state, "first_stage_model.")),
            convert_open_clip_text(text, head_channels=head_channels),
            tokenizer,
            DDPMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                prediction_type="epsilon",
                clip_sample=False,
            ),
        )

    def _camera(self, cameras: Tensor) -> dict[str, Tensor]:
        return {"class_labels": cameras}


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    # mapped, not read: half of the five gigabytes is not needed at a time
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return state.get("state_dict", state)
