"""Elementary functions of score distillation.

Everything here is in the denoiser's own space (latents, or pixels in [-1, 1]) with a
variance-preserving process: z_t = sqrt(abar) z + sqrt(1 - abar) eps. Arguments of shape
(N, C, H, W) are N images; `alpha_bar` is (N,), or a scalar for all.
"""

from __future__ import annotations

from torch import Tensor

__all__ = [
    "add_noise",
    "classifier_free_guidance",
    "per_image",
    "predicted_original",
    "rescale_guidance",
]


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Values (N,), or a scalar for all, in a shape and dtype that multiply `like` (N, ...)."""
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_t = sqrt(abar) z + sqrt(1 - abar) eps, (N, C, H, W)."""
    alpha_bar = per_image(alpha_bar, latents)
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


def predicted_original(noisy: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The z that `add_noise` would have turned into `noisy` by `noise`, (N, C, H, W)."""
    alpha_bar = per_image(alpha_bar, noisy)
    return noisy / alpha_bar.sqrt() - (1 / alpha_bar - 1).sqrt() * noise


def classifier_free_guidance(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """eps_u + s (eps_c - eps_u) (Ho and Salimans, 2022, with s = 1 + w of their Eq. 6)."""
    return unconditional + scale * (conditional - unconditional)


def rescale_guidance(
    guided: Tensor, conditional: Tensor, factor: float, group_size: int = 1
) -> Tensor:
    """Bring a guided prediction back to the conditional one's spread (Lin et al., 2024, Eq. 15-16).

    Args:
        guided: (N, C, H, W) predicted originals with guidance.
        conditional: (N, C, H, W) predicted originals without guidance.
        factor: Share of the rescaling, in [0, 1]; 0 returns `guided`, 1 gives it exactly the
            conditional spread.
        group_size: Views that share one standard deviation; N is a multiple of it.

    Returns:
        factor * guided * std(conditional) / std(guided) + (1 - factor) * guided.

    Raises:
        ValueError: N is not a multiple of the group's size.
    """
    if len(guided) % group_size:
        raise ValueError(
            f"received {len(guided)} predictions in groups of {group_size}; expected a multiple of "
            f"{group_size}"
        )
    if factor == 0:
        return guided  # also where the spread is 0
    grouped = guided.reshape(-1, group_size * guided[0].numel())
    reference = conditional.reshape(grouped.shape)
    ratio = reference.std(dim=1) / grouped.std(dim=1)
    ratio = per_image(ratio.repeat_interleave(group_size), guided)
    return factor * ratio * guided + (1 - factor) * guided
