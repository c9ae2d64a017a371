"""Score distillation from a multi-view denoiser."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward.utils.arguments import interval, number
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.base import Denoiser, GuidanceOutput
from vlmreward_3d.guidance.score_distillation import (
    add_noise,
    classifier_free_guidance,
    predicted_original,
    rescale_guidance,
    sds_gradient,
    x0_reconstruction_gradient,
)
from vlmreward_3d.guidance.view_prompts import view_index
from vlmreward_3d.guidance.view_prompts import view_prompts as prompts_of_views

__all__ = ["ScoreDistillation"]


class ScoreDistillation:
    """Score distillation from a multi-view denoiser.

    Args:
        denoiser: The frozen model.
        prompt: What the images should show.
        negative_prompt: What the guidance leads away from.
        method: "x0" is the gradient of 0.5 ||z - x0||^2 / N with the rescaled guided x0 of MVDream;
            "sds" is (1 - abar) (eps_hat - eps) / N (DreamFusion). N is the number of images.
        guidance_scale: Classifier-free guidance.
        guidance_rescale: See `rescale_guidance`; only for "x0".
        view_prompts: Say in the prompt which side a view shows
            (`vlmreward_3d.guidance.view_prompts`), for
            denoisers that do not look at the cameras.
        shared_timestep: Draw one timestep for all images, in place of one for each group of views.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        prompt: str,
        *,
        negative_prompt: str = "",
        method: str = "x0",
        guidance_scale: float,
        guidance_rescale: float = 0.0,
        view_prompts: bool = False,
        shared_timestep: bool = False,
    ) -> None:
        if method not in ("x0", "sds"):
            raise ValueError(
                f'received method {method!r}; expected "x0" or "sds"; pass one of them'
            )
        if not hasattr(denoiser, "predict_noise"):
            raise TypeError(
                f"denoiser is a {type(denoiser).__name__}; expected a Denoiser, such as "
                "load_denoiser returns"
            )
        for name, words in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            if not isinstance(words, str):
                raise TypeError(f"{name} is {words!r}; expected a text")
        number("guidance_scale", guidance_scale)
        number("guidance_rescale", guidance_rescale, least=0, most=1)
        self.denoiser = denoiser
        self.method = method
        self.guidance_scale = guidance_scale
        self.guidance_rescale = guidance_rescale
        self.view_prompts = view_prompts
        self.shared_timestep = shared_timestep
        prompts = prompts_of_views(prompt) if view_prompts else [prompt]
        with torch.no_grad():
            self.text = denoiser.encode_text([negative_prompt, *prompts]).detach()

    def __call__(
        self,
        images: Tensor,
        cameras: Cameras,
        level: tuple[float, float],
        generator: torch.Generator,
    ) -> GuidanceOutput:
        """One look at the images under fresh noise.

        Args:
            images: (G * n_views, 3, H, W) in [0, 1], group by group; no graph is kept to them.
            cameras: The cameras that made them.
            level: Range of the uniform timestep, as shares of the denoiser's timesteps; every group
                has one timestep, or all of them the same.
            generator: CPU source of timesteps and noise.

        Returns:
            The loss 0.5 ||z - target||^2 / N at N images' latents z and the gradient at the images.
            The target is x0, for "sds" z - (1 - abar) (eps_hat - eps): there the loss has no
            meaning beyond its size.
        """
        n_views = self.denoiser.n_views
        if len(images) % n_views or len(images) != len(cameras):
            raise ValueError(
                f"received {len(images)} images of {len(cameras)} cameras; expected one camera an "
                f"image and a multiple of {n_views} images; render whole rings of {n_views} views"
            )
        low, high = interval("level", level, least=0, most=1)
        alphas = self.denoiser.alphas_cumprod
        groups = len(images) // n_views
        share = torch.rand(1 if self.shared_timestep else groups, generator=generator)
        share = low + (high - low) * share
        t = (share * len(alphas)).long().clamp(0, len(alphas) - 1)
        t = t.expand(groups).repeat_interleave(n_views).to(images.device)
        alpha_bar = alphas.to(images)[t]
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            graph = self.denoiser.to_latents(images)
        latents = graph.detach()
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        with torch.no_grad():
            gradient = self._gradient(latents, noise, t, alpha_bar, cameras)
            # the gradient is (z - target) / N
            value = 0.5 * len(latents) * gradient.square().sum()
        with torch.autocast(images.device.type, enabled=False):
            (at_images,) = torch.autograd.grad(graph, images, gradient)
        return GuidanceOutput(value, at_images)

    def _gradient(
        self, latents: Tensor, noise: Tensor, t: Tensor, alpha_bar: Tensor, cameras: Cameras
    ) -> Tensor:
        noisy = add_noise(latents, noise, alpha_bar)
        condition = cameras.condition().to(latents)
        prediction = self.denoiser.predict_noise(
            noisy.repeat(2, 1, 1, 1),
            t.repeat(2),
            self._texts(cameras, latents),
            condition.repeat(2, 1),
        )
        unconditional, conditional = prediction.to(latents).chunk(2)
        guided = classifier_free_guidance(unconditional, conditional, self.guidance_scale)
        if self.method == "sds":
            return sds_gradient(guided, noise, 1 - alpha_bar)
        original = rescale_guidance(
            predicted_original(noisy, guided, alpha_bar),
            predicted_original(noisy, conditional, alpha_bar),
            self.guidance_rescale,
            self.denoiser.n_views,
        )
        return x0_reconstruction_gradient(latents, original)

    def _texts(self, cameras: Cameras, like: Tensor) -> Tensor:
        """(2 N, L, D): the negative prompt for each of N views, then what each is to show."""
        text = self.text.to(like)
        shown = torch.zeros(len(cameras), dtype=torch.long, device=text.device)
        if self.view_prompts:
            shown = view_index(cameras).to(text.device)
        return torch.cat([text[:1].expand(len(cameras), -1, -1), text[1:][shown]])
