"""MVDream (Shi et al., 2023): Stable Diffusion 2.1 on four views at once, with cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from vlmreward.models.quiet_loading import loading
from vlmreward.models.wording import reason_of, some
from vlmreward_3d.guidance.diffusion.latent import LatentDiffusion
from vlmreward_3d.guidance.diffusion.ldm_conversion import (
    convert_mvdream_unet,
    convert_open_clip_text,
    convert_vae,
    sub_state_dict,
)
from vlmreward_3d.guidance.diffusion.multiview_attention import merge_views

__all__ = ["MVDream"]

_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."


class MVDream(LatentDiffusion):
    """MVDream as a score-distillation teacher.

    Args:
        unet: UNet that takes the 16-number camera as ``class_labels``; its self-attention is made
            to merge the views of a group, in place.
        vae: Autoencoder between images in [-1, 1] and latents.
        text_encoder: Text encoder, CLIP-like.
        tokenizer: The text encoder's tokenizer; texts are padded to its ``model_max_length``.
        scheduler: Holder of the noise schedule and ``prediction_type``.
        n_views: Number of views in a group.
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
            path: path of the file, read as safetensors by its suffix, else with
                ``weights_only=True``.
            tokenizer: CLIP's tokenizer, which the file does not hold: a hub id, a folder, or the
                object. All tokenizers of CLIP have the same vocabulary; the padding id is set to
                0, as in OpenCLIP.
            dtype: dtype of the weights.
            head_channels: number of channels of an attention head, in UNet and text encoder.
            sample_size: height and width of the latents.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the file is damaged, or the tokenizer cannot be loaded.
            ValueError: the file is of another model, by the names of its tensors.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no file {path}; expected MVDream's sd-v2.1-base-4view.pt, or use "
                "from_pretrained for a diffusers folder"
            )
        state = _read(path)
        if isinstance(tokenizer, (str, Path)):  # after the file, as the hub may be slow to answer
            try:
                with loading():
                    tokenizer = CLIPTokenizer.from_pretrained(str(tokenizer))
            except Exception as error:
                raise OSError(
                    f"cannot load the tokenizer {str(tokenizer)!r} ({reason_of(error)}); expected "
                    "a hub id or folder of any CLIP tokenizer: pass tokenizer="
                ) from error
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        try:
            unet = convert_mvdream_unet(
                sub_state_dict(state, _UNET), head_channels=head_channels, sample_size=sample_size
            )
            vae = convert_vae(sub_state_dict(state, _VAE))
            text = convert_open_clip_text(sub_state_dict(state, _TEXT), head_channels=head_channels)
        except Exception as error:  # tensors of another network are of any number and shape
            reason = error.args[0] if isinstance(error, KeyError) else reason_of(error)
            raise _other(path, str(reason)) from error
        return cls(
            unet,
            vae,
            text,
            tokenizer,
            DDPMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                prediction_type="epsilon",
                clip_sample=False,
            ),
        )

    def _camera(self, cameras: Tensor) -> dict[str, Any]:
        return {"class_labels": cameras}


def _other(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is not MVDream's ({reason}); expected the authors' single file, "
        "sd-v2.1-base-4view.pt, or the same tensors as safetensors: download it, or name a "
        "diffusers folder"
    )


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of the file by MVDream's names, memory-mapped."""
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise OSError(
            f"cannot read {path} ({path.stat().st_size} bytes; {reason_of(error)}); expected "
            "MVDream's sd-v2.1-base-4view.pt, tensors alone: download it again"
        ) from error
    if isinstance(state, dict):
        state = state.get("state_dict", state)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise _other(path, f"it holds a {type(state).__name__} of other things than tensors")
    for needed in (_UNET, _VAE, _TEXT):
        if not any(str(key).startswith(needed) for key in state):
            raise _other(path, f"nothing under {needed!r}, but {some(state) or 'nothing at all'}")
    if f"{_UNET}camera_embed.0.weight" not in state:
        raise _other(path, "its UNet takes no cameras, as of Stable Diffusion's own files")
    return state
