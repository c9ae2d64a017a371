"""Settings of the colors of ray-sampled fields in training: random shading, or latents."""

from __future__ import annotations

from dataclasses import dataclass

from vlmreward_3d.config._checks import SHARE, Rule, are, check, is_number, is_share, or_none

__all__ = ["LatentRenderingConfig", "ShadingConfig"]


@dataclass(frozen=True, kw_only=True)
class ShadingConfig:
    """Settings of random shading in training.

    Attributes:
        probabilities: Probabilities of albedo, textureless and diffuse shading.
        start: Progress in [0, 1] before which the field's own colors are rendered.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    probabilities: tuple[float, float, float]
    start: float = 0.0

    def __post_init__(self) -> None:
        probabilities = Rule(
            lambda x: are(x, is_share, 3) and abs(sum(x) - 1) < 1e-6,
            "three probabilities that add up to 1",
        )
        check(self, probabilities=probabilities, start=SHARE)


@dataclass(frozen=True, kw_only=True)
class LatentRenderingConfig:
    """Settings of rendering latents in place of RGB (Latent-NeRF; Metzer et al., 2023).

    The field has four features at each point, of any size, which are composited along rays. Score
    distillation acts on the rendered latents without an encoder; all other guidances are given
    the linear decoding of `vlmreward_3d.rendering.latents`. `camera.resolution` should be the side
    of the denoiser's latents, 64 for Stable Diffusion; other sides are resized.

    Attributes:
        refine_at: Progress in (0, 1) from which on the features are decoded to RGB at each point,
            by a linear map whose matrix is then trained too, and score distillation acts through
            the encoder. The optimizer's state is reset there. None renders latents to the end.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    refine_at: float | None = None

    def __post_init__(self) -> None:
        inside = Rule(lambda x: is_number(x) and 0 < x < 1, "a number between 0 and 1")
        check(self, refine_at=or_none(inside))
