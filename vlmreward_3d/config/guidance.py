"""Settings of score distillation, and of the weights of all guidances."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from vlmreward_3d.config._checks import (
    BOOLEAN,
    COUNT,
    COUNT_OR_NONE,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_OR_NONE,
    SHARE,
    WEIGHT,
    Rule,
    are,
    check,
    instance_of,
    is_schedule,
    is_text,
    one_of,
    or_none,
    require,
    whole,
)
from vlmreward_3d.config.regions import RegionConfig
from vlmreward_3d.schedule import Schedule

__all__ = [
    "PRECISIONS",
    "RANKINGS",
    "GuidanceConfig",
    "NoiseSelectionConfig",
    "ScoreDistillationConfig",
    "StudentConfig",
    "WeightingConfig",
]

PRECISIONS = ("float32", "autocast", "bfloat16", "float16")
"""Precisions of latent denoisers; see `vlmreward_3d.guidance.loading.load_denoiser`."""

RANKINGS = ("best", "softmax", "min-max", "preference")
"""Rankings of noises; see `vlmreward_3d.guidance.noise_selection.ranking_weights`."""

_ONE = Schedule.constant(1)


@dataclass(frozen=True, kw_only=True)
class WeightingConfig:
    """Schedule of a guidance: the steps and views of its evaluation, and its weight.

    Attributes:
        weight: Factor of the gradient at the pixels.
        interval: Steps from one evaluation to the next.
        start_at: Progress from which on the guidance is evaluated.
        stop_at: Progress from which on the guidance is not evaluated any more.
        n_views: Number of views of an evaluation, drawn anew each time; None for all.
        cache_gradient: Add the last evaluation's gradient at the field's parameters also at the
            steps in between, so that a long interval does not weaken the guidance.
        max_grad_ratio: Upper bound b of the norm of the weighted gradient at the pixels, in norms
            of the first guidance's gradient (averaged over the last steps); None for no bound.
        grad_ratio: Norm b of the weighted gradient in the same unit, reached by choosing the
            weight at every step in place of `weight`; None uses `weight`.

    Raises:
        ValueError: A setting has the wrong type or is out of range, or both ratios are set.
    """

    weight: Schedule = _ONE
    interval: int = 1
    start_at: float = 0.0
    stop_at: float = 1.0
    n_views: int | None = None
    cache_gradient: bool = False
    max_grad_ratio: float | None = None
    grad_ratio: float | None = None

    def __post_init__(self) -> None:
        check(
            self,
            weight=WEIGHT,
            interval=COUNT,
            start_at=SHARE,
            stop_at=SHARE,
            n_views=COUNT_OR_NONE,
            cache_gradient=BOOLEAN,
            max_grad_ratio=POSITIVE_OR_NONE,
            grad_ratio=POSITIVE_OR_NONE,
        )
        one = self.max_grad_ratio is None or self.grad_ratio is None
        require(one, self, "grad_ratio", "None beside a max_grad_ratio")


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """Settings of a guidance; each kind of guidance has a record of its own.

    A new kind of guidance has a subclass of this record and a loader that is registered with
    `vlmreward_3d.guidance.loading.load_guidance`; `VLM3DConfig.further_guidances` adds it to a
    run.

    Attributes:
        kind: Name of the kind in `config.json`.
        weighting: When the guidance is evaluated and how much it weighs.
    """

    kind: ClassVar[str] = ""

    weighting: WeightingConfig = dataclasses.field(default_factory=WeightingConfig)

    def __post_init__(self) -> None:
        check(self, weighting=instance_of(WeightingConfig))


@dataclass(frozen=True, kw_only=True)
class NoiseSelectionConfig:
    """Several noises at a step, ranked by the VLM's reward, without its gradient.

    Attributes:
        n_candidates: Number of noises at each step; each costs a pass of the denoiser.
        stop_at: Progress from which on one noise is drawn, without a choice.
        question: Question to the VLM about the predicted originals; see `VLMConfig.question`.
        ranking: Weighting of their gradients by the rewards, one of `RANKINGS`; see
            `vlmreward_3d.guidance.noise_selection.ranking_weights`.
        margin: Least difference of two rewards that counts as a preference.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    n_candidates: int = 4
    stop_at: float = 0.9
    question: str = "yes-no"
    ranking: str = "best"
    margin: float = 0.0

    def __post_init__(self) -> None:
        check(
            self,
            n_candidates=whole(2),
            stop_at=SHARE,
            question=Rule(is_text, "a question"),
            ranking=one_of(RANKINGS),
            margin=NOT_NEGATIVE,
        )
        pair = self.ranking != "preference" or self.n_candidates == 2
        require(pair, self, "n_candidates", '2 with ranking="preference"')


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Settings of the student of rules such as "vsd", a denoiser that learns from the renders.

    Attributes:
        rank: Rank of the student's trainable weights (LoRA).
        learning_rate: Learning rate of AdamW.
        camera_dropout: Share of the student's steps without cameras, in [0, 1].

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    rank: int = 4
    learning_rate: float = 1e-4
    camera_dropout: float = 0.1

    def __post_init__(self) -> None:
        check(self, rank=COUNT, learning_rate=POSITIVE, camera_dropout=SHARE)


@dataclass(frozen=True, kw_only=True)
class ScoreDistillationConfig(GuidanceConfig):
    """Score distillation from a denoiser, the first guidance of a run: "sds".

    Attributes:
        denoiser: Name of the denoiser; see `vlmreward_3d.guidance.loading.load_denoiser`.
        adapter: File of MV-Adapter that makes the denoiser, Stable Diffusion 2.1 or XL, see six
            views at once; None for the denoiser alone. See the preset `mvadapter`.
        precision: Precision of the denoiser, one of `PRECISIONS`; None is "autocast" on a GPU and
            "float32" elsewhere.
        negative_prompt: Negative prompt of classifier-free guidance; "" for none.
        view_prompts: Add words for the side that a view shows to the prompt, for denoisers without
            a camera input.
        perp_neg: With `view_prompts`, also use negative prompts of the sides that a view does not
            show (Perp-Neg); two more passes for each view.
        rule: Distillation rule, a key of `vlmreward_3d.guidance.rules.RULES`, such as "x0"
            (reconstruction, MVDream) or "sds" (DreamFusion).
        guidance_scale: Scale of classifier-free guidance.
        guidance_rescale: Share of the conditional spread given back, in [0, 1] ("x0" only).
        t_min: Lower end of the noise level, as a share of the denoiser's timesteps.
        t_max: Upper end of the noise level.
        shared_timestep: Draw one timestep for all views of a step, in place of one for each group.
        selection: Choice among several noises by the VLM, which the run then needs; None draws one.
        student: Settings of the student, for rules that have one.
        regions: Boxes with prompts of their own, for the rule "semantic-sds"; a pass for each.
        weighting: Steps of evaluation, and weight; without ratios, which are relative to this
            guidance.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    kind: ClassVar[str] = "sds"

    denoiser: str
    adapter: str | None = None
    precision: str | None = None
    negative_prompt: str = ""
    view_prompts: bool = False
    perp_neg: bool = False
    rule: str = "x0"
    guidance_scale: float
    guidance_rescale: float = 0.5
    t_min: Schedule
    t_max: Schedule
    shared_timestep: bool = False
    selection: NoiseSelectionConfig | None = None
    student: StudentConfig = dataclasses.field(default_factory=StudentConfig)
    regions: tuple[RegionConfig, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        level = Rule(lambda x: is_schedule(x, 1), "a Schedule of numbers in [0, 1]")
        check(
            self,
            denoiser=Rule(is_text, "the name of a denoiser"),
            adapter=or_none(Rule(is_text, "the name of an adapter's file")),
            precision=Rule(lambda x: x in (None, *PRECISIONS), f"None or one of {PRECISIONS}"),
            negative_prompt=Rule(lambda x: x == "" or is_text(x), 'a text, "" for none'),
            view_prompts=BOOLEAN,
            perp_neg=BOOLEAN,
            rule=Rule(is_text, "the name of a distillation rule"),
            guidance_scale=NOT_NEGATIVE,
            guidance_rescale=SHARE,
            t_min=level,
            t_max=level,
            shared_timestep=BOOLEAN,
            selection=or_none(instance_of(NoiseSelectionConfig)),
            student=instance_of(StudentConfig),
            regions=Rule(
                lambda x: x == () or (isinstance(x, tuple) and are(x, _is_region)),
                "a tuple of records of regions",
            ),
        )
        require(not (self.regions and self.perp_neg), self, "perp_neg", "False beside regions")
        require(
            self.view_prompts or not self.perp_neg, self, "perp_neg", "False without view_prompts"
        )
        turns = {at for at, _ in (*self.t_min.points, *self.t_max.points)}
        ordered = all(self.t_min(at) <= self.t_max(at) for at in turns)
        require(ordered, self, "t_max", "at least t_min")
        ratios = (self.weighting.max_grad_ratio, self.weighting.grad_ratio)
        require(
            ratios == (None, None), self, "weighting", "no ratio to itself in the first guidance"
        )


def _is_region(value: object) -> bool:
    return isinstance(value, RegionConfig)
