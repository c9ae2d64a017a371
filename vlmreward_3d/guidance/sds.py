"""Score distillation from a multi-view denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from vlmreward.utils.arguments import interval, number
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import RegionConfig, StudentConfig
from vlmreward_3d.guidance.base import CameraBound, Denoiser, GuidanceOutput
from vlmreward_3d.guidance.noise_selection import NoiseSelection
from vlmreward_3d.guidance.rendered_latents import require_latents
from vlmreward_3d.guidance.rules import RULES, Prediction, Rule
from vlmreward_3d.guidance.student import Student
from vlmreward_3d.guidance.teacher import Prompts, Teacher
from vlmreward_3d.rendering.base import Surface
from vlmreward_3d.schedule import Schedule

__all__ = ["ScoreDistillation"]


_T_MIN, _T_MAX = Schedule.constant(0.02), Schedule.constant(0.98)


class ScoreDistillation:
    """Score distillation from a multi-view denoiser: a `Guidance` named "sds".

    Args:
        denoiser: The frozen model.
        prompt: Text prompt that the images are to match.
        negative_prompt: Negative prompt of classifier-free guidance; "" for none.
        rule: A key of `vlmreward_3d.guidance.rules.RULES`: "x0" is the gradient of
            0.5 ||z - x0||^2 / N with the rescaled guided x0 of MVDream; "sds" is
            (1 - abar) (eps_hat - eps) / N (DreamFusion), N the number of images; for the others see
            their files.
        guidance_scale: Scale of classifier-free guidance.
        guidance_rescale: Factor of `rescale_guidance`; only "x0" uses it.
        t_min: Lower end of the uniform timestep, as a share of the denoiser's timesteps.
        t_max: Upper end of the uniform timestep, as a share of the denoiser's timesteps.
        view_prompts: Add words for the side that a view shows to the prompt
            (`vlmreward_3d.guidance.view_prompts`), for denoisers without a camera input.
        perp_neg: Use negative prompts of the other sides; see `vlmreward_3d.guidance.perp_neg`.
        shared_timestep: Draw one timestep for all images instead of one for each group of views.
        selection: Choice among several noises; None draws one.
        student: Settings of the student, for rules that have one; None for the default ones.
        regions: Boxes with prompts of their own, for rules that compose them ("semantic-sds").
        seed: Seed of the student's first weights, and of noise of the whole run ("fsd", "cfd").

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There is no such rule, it does not suit the other arguments, or a number is out
            of range.
    """

    name = "sds"
    accepts_latents = True

    def __init__(
        self,
        denoiser: Denoiser,
        prompt: str,
        *,
        negative_prompt: str = "",
        rule: str = "x0",
        guidance_scale: float,
        guidance_rescale: float = 0.0,
        t_min: Schedule = _T_MIN,
        t_max: Schedule = _T_MAX,
        view_prompts: bool = False,
        perp_neg: bool = False,
        shared_timestep: bool = False,
        selection: NoiseSelection | None = None,
        student: StudentConfig | None = None,
        regions: Sequence[RegionConfig] = (),
        seed: int = 0,
    ) -> None:
        if not hasattr(denoiser, "predict_noise"):
            raise TypeError(
                f"denoiser is a {type(denoiser).__name__}; expected a Denoiser, such as "
                "load_denoiser returns"
            )
        for name, words in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            if not isinstance(words, str):
                raise TypeError(f"{name} is {words!r}; expected a text")
        self.rule = _rule(rule, selection, regions)
        number("guidance_scale", guidance_scale)
        number("guidance_rescale", guidance_rescale, least=0, most=1)
        self.denoiser = denoiser
        self.accepts_surface = self.rule.asks_surface
        self.guidance_scale = guidance_scale
        self.guidance_rescale = guidance_rescale
        self.t_min, self.t_max = t_min, t_max
        self.shared_timestep = shared_timestep
        self.selection = selection
        self.seed = seed
        self.student: Student | None = None
        if self.rule.lesson is not None:
            settings = student or StudentConfig()
            self.student = Student(denoiser, settings, self.rule.lesson, seed=seed)
        self.prompts = Prompts(
            denoiser,
            prompt,
            negative_prompt,
            of_views=view_prompts,
            perp_neg=perp_neg,
            regions=regions,
        )

    def __call__(
        self,
        images: Tensor,
        cameras: Cameras,
        progress: float,
        generator: torch.Generator,
        surface: Surface | None = None,
    ) -> GuidanceOutput:
        """Evaluate the images under fresh noise.

        Args:
            images: (G * n_views, 3, H, W) in [0, 1], group by group, or (G * n_views, 4, H, W)
                latents, which are not encoded; no graph is kept to them.
            cameras: The cameras that rendered them.
            progress: Share of the run that is done; it selects the range of timesteps.
            generator: CPU source of timesteps and noise.
            surface: Points at which the images meet the field, for rules that need them, or None.

        Returns:
            The loss 0.5 ||z - target||^2 / N at the latents z of N images and its gradient at the
            images. The target is z minus N times the rule's gradient: x0 for "x0"; for other
            rules the loss has no meaning beyond its size. The metric is "loss".

        Raises:
            ValueError: The images are no whole groups, or seen by cameras that the denoiser does
                not know, or latents of which the denoiser has none.
        """
        n_views = self.denoiser.n_views
        if len(images) % n_views or len(images) != len(cameras):
            raise ValueError(
                f"received {len(images)} images of {len(cameras)} cameras; expected one camera an "
                f"image and a multiple of {n_views} images; render whole groups of {n_views} views"
            )
        if images.shape[1] != 3:
            require_latents(self.denoiser)
        if isinstance(self.denoiser, CameraBound):
            self.denoiser.check_cameras(cameras)
        level = (self.t_min(progress), self.t_max(progress))
        low, high = interval("(t_min, t_max)", level, least=0, most=1)
        alphas = self.denoiser.alphas_cumprod
        groups = len(images) // n_views
        share = torch.rand(1 if self.shared_timestep else groups, generator=generator)
        share = low + (high - low) * share
        t = (share * len(alphas)).long().clamp(0, len(alphas) - 1)
        t = t.expand(groups).repeat_interleave(n_views).to(images.device)
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            graph = self.denoiser.to_latents(images)
        latents = graph.detach()
        with torch.no_grad():
            teacher = self.prompts.seen_from(cameras, latents, self.seed, surface)
            predict = partial(self._predict, teacher, latents, t, progress, generator)
            gradient, metrics = self._gradient(predict, progress)
            # the gradient is (z - target) / N
            value = 0.5 * len(latents) * gradient.square().sum()
        if self.student is not None:
            metrics["student_loss"] = self.student.learn(teacher, latents, generator)
        with torch.autocast(images.device.type, enabled=False):
            (at_images,) = torch.autograd.grad(graph, images, gradient)
        return GuidanceOutput(value, at_images, {"loss": value.item(), **metrics})

    def _gradient(
        self, predict: Callable[[], Prediction], progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        """The rule's gradient for one noise, or for several ranked ones, and metrics of those."""
        selection = self.selection
        if selection is None or progress >= selection.stop_at:
            return self.rule(predict()), {}
        candidates = [predict() for _ in range(selection.n_candidates)]
        gradient, rewards = selection.gradient(self.rule, candidates, self.denoiser.to_images)
        gain = (rewards.amax(dim=0) - rewards.mean(dim=0)).mean()
        return gradient, {"selection_gain": gain.item()}

    def _predict(
        self,
        teacher: Teacher,
        latents: Tensor,
        t: Tensor,
        progress: float,
        generator: torch.Generator,
    ) -> Prediction:
        noise, noisy = self.rule.noising(teacher, latents, t, generator)
        empty = ("empty",) if self.rule.asks_empty else ()
        unconditional, conditional, *rest = teacher.predict(
            noisy, t, ("negative", "prompt", *empty)
        )
        alphas = teacher.alphas_cumprod.to(latents)
        student, free = self.student, self.rule.asks_free
        return Prediction(
            latents=latents,
            noise=noise,
            noisy=noisy,
            alpha_bar=alphas[t],
            unconditional=unconditional,
            conditional=conditional,
            guidance_scale=self.guidance_scale,
            guidance_rescale=self.guidance_rescale,
            group_size=self.denoiser.n_views,
            level=t.to(latents) / len(alphas),
            progress=progress,
            empty=rest[0] if rest else None,
            **(student.predictions(teacher, noisy, t, free=free) if student else {}),
        )

    def state(self) -> dict[str, Tensor]:
        """The state of the student, if there is one."""
        return {} if self.student is None else self.student.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`."""
        if self.student is not None:
            self.student.load_state(state)


def _rule(name: str, selection: NoiseSelection | None, regions: Sequence[RegionConfig]) -> Rule:
    """The rule of a name, if it suits the other settings."""
    if name not in RULES:
        raise ValueError(
            f"received the distillation rule {name!r}; expected one of {', '.join(RULES)}; pass "
            "one of them"
        )
    rule = RULES[name]
    if selection is not None and not rule.draws:
        raise ValueError(
            f"received the distillation rule {name!r} with a selection of noises; expected a rule "
            "that draws noise, as this one does not"
        )
    if rule.asks_regions and not regions:
        raise ValueError(
            f"received the distillation rule {name!r} without regions; expected at least one: pass "
            "regions=(RegionConfig(prompt=..., low=..., high=...),), or choose another rule"
        )
    if regions and not rule.asks_regions:
        raise ValueError(
            f"received {len(regions)} regions for the distillation rule {name!r}; expected none: "
            "leave them out, or choose the rule 'semantic-sds', which composes them"
        )
    return rule
