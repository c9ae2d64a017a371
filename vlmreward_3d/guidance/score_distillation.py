"""Gradients of score distillation, as pure functions of what a denoiser said.

Everything here is in the denoiser's own space (latents, or pixels in [-1, 1]) with a
variance-preserving process: z_t = sqrt(abar) z + sqrt(1 - abar) eps. Arguments of shape
(N, C, H, W) are N images; `alpha_bar` is (N,), or a scalar for all.
"""

from __future__ import annotations

from torch import Tensor

__all__ = [
    "add_noise",
    "classifier_free_guidance",
    "predicted_original",
    "rescale_guidance",
    "sds_gradient",
    "x0_reconstruction_gradient",
]


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_t = sqrt(abar) z + sqrt(1 - abar) eps, (N, C, H, W)."""
    alpha_bar = _per_image(alpha_bar, latents)
    return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise


def predicted_original(noisy: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The z that `add_noise` would have turned into `noisy` by `noise`, (N, C, H, W)."""
    alpha_bar = _per_image(alpha_bar, noisy)
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
        conditional: (N, C, H, W) predicted originals without.
        factor: 0 leaves `guided` as it is, 1 gives it exactly the conditional spread.
        group_size: Views that share one standard deviation; N is a multiple of it.

    Returns:
        factor * guided * std(conditional) / std(guided) + (1 - factor) * guided.

    Raises:
        ValueError: N is no multiple of the group's size.
    """
    if len(guided) % group_size:
        raise ValueError(
            f"received {len(guided)} predictions in groups of {group_size}; expected a multiple of "
            f"{group_size}"
        )
    grouped = guided.reshape(-1, group_size * guided[0].numel())
    reference = conditional.reshape(grouped.shape)
    ratio = reference.std(dim=1) / grouped.std(dim=1)
    ratio = _per_image(ratio.repeat_interleave(group_size), guided)
    return factor * ratio * guided + (1 - factor) * guided


def sds_gradient(predicted_noise: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """w(t) (eps_hat - eps) / N: the SDS gradient at the latents (DreamFusion, Eq. 3).

    It is the gradient of 0.5 ||z - sg(z - w(t) (eps_hat - eps))||^2 / N to z: like that of the
    reconstruction loss it is divided by the number of images, so that the weights of other losses
    mean the same in both and for any number of views.

    VLM3D writes it with the score, w(t) (s_phi + eps / sigma(t)); with s_phi = -eps_hat / sigma(t)
    and the sign that descends, it is the same up to the 1 / sigma(t) that w(t) absorbs.

    Args:
        predicted_noise: (N, C, H, W) eps_hat, guided.
        noise: (N, C, H, W) eps that was added.
        weight: (N,) or scalar w(t).

    Returns:
        (N, C, H, W); the derivative of the denoiser is left out, as in the source.
    """
    return _per_image(weight, noise) * (predicted_noise - noise) / len(noise)


def x0_reconstruction_gradient(latents: Tensor, original: Tensor) -> Tensor:
    """Gradient (N, C, H, W) of 0.5 ||z - sg(x0)||^2 / N to z (MVDream's loss)."""
    return (latents - original.detach()) / len(latents)
