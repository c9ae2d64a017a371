"""The adapter: attention across views, and an encoder of the cameras."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from diffusers import T2IAdapter, UNet2DConditionModel
from torch import Tensor, nn

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.diffusion.mv_adapter.attention import DecoupledAttention, RowAttention
from vlmreward_3d.guidance.diffusion.mv_adapter.weights import check_state, read_state

__all__ = ["AZIMUTHS", "MVAdapter"]

AZIMUTHS = (0.0, 45.0, 90.0, 180.0, 270.0, 315.0)
"""Azimuths of the views in degrees, 0 in front."""

_SHIFT = 8.0
_SIDE, _SIDE_XL = 64, 96
_PIXELS = 8
"""Side in pixels of the camera condition for one latent."""
_TOLERANCE_DEG = 1.0


class MVAdapter(nn.Module):
    """Text-to-multi-view MV-Adapter (Huang et al., 2024) for Stable Diffusion 2.1 or XL.

    Each self-attention of the frozen UNet gets a parallel `RowAttention`, and an encoder of the
    cameras adds features to the down blocks. The views are orthographic, at the six `AZIMUTHS` and
    at elevation 0. `UNetDiffusion.attach` freezes the weights.

    Args:
        unet: The UNet that the adapter is made for; `install` changes it.
        state: Tensors by name, as in "mvadapter_t2mv_sd21.safetensors" or
            "mvadapter_t2mv_sdxl.safetensors"; they take the UNet's dtype.

    Attributes:
        n_views: Number of views in a group: 6.
        resolution: Side of the latents in training: 64, or 96 with Stable Diffusion XL.

    Raises:
        ValueError: Tensors are missing, unknown or of another shape.
    """

    n_views = len(AZIMUTHS)

    def __init__(self, unet: UNet2DConditionModel, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        large = unet.config.addition_embed_type == "text_time"
        self.resolution = _SIDE_XL if large else _SIDE
        self.places = [name for name in unet.attn_processors if ".attn1." in name]
        with torch.device("meta"):
            self.rows = nn.ModuleList(_row_attention(unet, name) for name in self.places)
            self.camera_encoder = _camera_encoder(unet, large=large)
        parts = {f"{place}.": rows for place, rows in zip(self.places, self.rows)}
        parts[""] = self.camera_encoder
        expected = {
            f"{before}{name}": tensor.shape
            for before, part in parts.items()
            for name, tensor in part.state_dict().items()
        }
        check_state(state, expected)
        for before, part in parts.items():
            own = {name: state[f"{before}{name}"].to(unet.dtype) for name in part.state_dict()}
            part.load_state_dict(own, strict=True, assign=True)

    @classmethod
    def from_pretrained(cls, source: str | Path, unet: UNet2DConditionModel) -> MVAdapter:
        """Load the adapter of a UNet.

        Args:
            source: A file in safetensors; or hub id and name of the file, such as
                "huanngzh/mv-adapter/mvadapter_t2mv_sd21.safetensors".
            unet: The UNet.

        Raises:
            OSError: The file is missing or damaged, or cannot be reached.
            ValueError: The file is an adapter for another UNet, or no adapter of texts.
        """
        return cls(unet, read_state(source))

    def install(self, unet: UNet2DConditionModel) -> None:
        """Put the attention across views beside each self-attention of the UNet, in place."""
        beside = {
            place: DecoupledAttention(cast(RowAttention, rows), self.n_views)
            for place, rows in zip(self.places, self.rows)
        }
        unet.set_attn_processor({**unet.attn_processors, **beside})

    def forward(self, cameras: Tensor, side: int) -> list[Tensor]:
        """Features of the cameras for the blocks of the UNet on the way down.

        The condition of an orthographic camera is one for all pixels: the direction of view and
        that of the position, from [-1, 1] to [0, 1].

        Args:
            cameras: (N, 16) camera conditions; see `Cameras.condition`.
            side: Side of the latents.

        Returns:
            (N, C, h, w) for each block; of Stable Diffusion XL also for the middle. Differentiable.
        """
        condition = ((_pose(cameras) + 1) / 2).clamp(0, 1)
        pixels = _PIXELS * side
        return self.camera_encoder(condition[:, :, None, None].expand(-1, -1, pixels, pixels))

    @staticmethod
    def alphas_cumprod(of_base: Tensor) -> Tensor:
        """(T,) abar of each timestep in the noise schedule of the adapter's training, decreasing.

        The signal-to-noise ratio of timestep t of T is that of the base, divided by
        8^(t / (T - 1)).

        Args:
            of_base: (T,) abar of each timestep of the base.

        Returns:
            (T,), in the dtype of the base's.
        """
        share = torch.linspace(0, 1, len(of_base), dtype=torch.float64, device=of_base.device)
        base = of_base.double()
        ratio = base / (1 - base) * _SHIFT**-share
        return (ratio / (1 + ratio)).to(of_base.dtype)

    @classmethod
    def check_cameras(cls, cameras: Cameras) -> None:
        """Refuse cameras unlike those of the training.

        Raises:
            ValueError: The cameras are not orthographic, not in groups of six, or more than a
                degree away from the six azimuths (in any order) or from elevation 0.
        """
        expected = (
            f"expected groups of {cls.n_views} orthographic views at azimuths "
            f"{', '.join(f'{angle:g}' for angle in AZIMUTHS)} and elevation 0, as MV-Adapter was "
            "trained on; see the cameras of the preset mvadapter"
        )
        if cameras.projection != "orthographic" or len(cameras) % cls.n_views:
            raise ValueError(f"received {len(cameras)} {cameras.projection} views; {expected}")
        azimuth, elevation = cameras.angles().double().cpu().view(-1, cls.n_views, 2).unbind(-1)
        # sorted from -180, and so that an azimuth just below 180 is not taken for the last one
        azimuth = ((azimuth + 202.5) % 360 - 202.5).sort(dim=1).values
        trained = torch.tensor([(a + 202.5) % 360 - 202.5 for a in AZIMUTHS]).double().sort().values
        off = torch.maximum((azimuth - trained).abs(), elevation.abs())
        if off.max() > _TOLERANCE_DEG:
            worst = int(off.amax(dim=1).argmax())
            found = ", ".join(f"{a % 360:.0f}" for a in azimuth[worst].tolist())
            raise ValueError(
                f"received views at azimuths {found} and elevations from "
                f"{elevation.min():.0f} to {elevation.max():.0f}; {expected}"
            )


def _row_attention(unet: UNet2DConditionModel, place: str) -> RowAttention:
    attention = unet.get_submodule(place.removesuffix(".processor"))
    query = attention.to_q
    return RowAttention(query.in_features, query.out_features)


def _camera_encoder(unet: UNet2DConditionModel, *, large: bool) -> T2IAdapter:
    channels = list(unet.config.block_out_channels)
    return T2IAdapter(
        in_channels=6,
        channels=[*channels, channels[-1]] if large else channels,
        num_res_blocks=unet.config.layers_per_block,
        downscale_factor=_PIXELS * (2 if large else 1),  # with XL for the level below the first
        adapter_type="full_adapter_xl" if large else "full_adapter",
    )


def _pose(cameras: Tensor) -> Tensor:
    """Directions (N, 6) of view and of the position, in the world of the training.

    There the front is at azimuth -90, here at azimuth 0.
    """
    matrix = cameras.unflatten(-1, (4, 4))
    local = torch.stack([-matrix[:, :3, 2], matrix[:, :3, 3]], dim=1)  # (N, 2, 3)
    x, y, z = local.unbind(-1)
    return torch.stack([y, -x, z], dim=-1).flatten(1)
