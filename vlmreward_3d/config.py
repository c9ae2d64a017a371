"""Everything that decides the outcome of a run, in one flat record."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from vlmreward_3d.cameras import ELEVATIONS
from vlmreward_3d.schedule import Schedule

__all__ = ["PRECISIONS", "VLM3DConfig", "WeightingConfig"]

PRECISIONS = ("float32", "autocast", "bfloat16", "float16")
"""How denoisers of latents compute; see `vlmreward_3d.guidance.loading.load_denoiser`."""

Holds: TypeAlias = Callable[[Any], bool]
"""Whether a value will do."""

_OFF, _ONE = Schedule.constant(0), Schedule.constant(1)
_BACKGROUNDS = ("color", "gray", "white")
_FIELDS = ("pyramid", "hash", "splats")
_PIXELS = ("float", "clamp", "uint8")


def _is_text(value: Any) -> bool:
    """Whether it is a text that is not blank, and that UTF-8 can write."""
    try:
        return isinstance(value, str) and value.strip() != "" and value.encode() != b""
    except UnicodeEncodeError:  # half of a surrogate pair, as of file names that are not UTF-8
        return False


def _is_whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _are(value: Any, holds: Holds, count: int | None = None) -> bool:
    """Whether it is a tuple or list of so many values of a kind."""
    return (
        isinstance(value, (tuple, list))
        and (len(value) == count if count else len(value) > 0)
        and all(map(holds, value))
    )


def _is_range(low: float, high: float, *, open: bool = False) -> Holds:
    """Whether a value is a pair of ascending numbers within bounds, or strictly within."""

    def holds(value: Any) -> bool:
        if not _are(value, _is_number, 2):
            return False
        first, last = value
        return first <= last and (
            low < first and last < high if open else low <= first <= last <= high
        )

    return holds


def _are_steps(value: Any) -> bool:
    """Whether they are (progress, whole number >= 1) pairs in order; none will do."""
    if not isinstance(value, (tuple, list)):
        return False
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in value):
        return False
    at = [progress for progress, _ in value]
    return all(map(_is_share, at)) and at == sorted(at) and all(_is_whole(v) for _, v in value)


def _is_schedule(value: Any, high: float = math.inf) -> bool:
    return isinstance(value, Schedule) and all(0 <= level <= high for _, level in value.points)


def _or_none(holds: Holds) -> Holds:
    return lambda value: value is None or holds(value)


_EXPECTED: tuple[tuple[tuple[str, ...], Holds, str], ...] = (
    (("prompt",), _is_text, "some text"),
    (("negative_prompt",), lambda x: x == "" or _is_text(x), 'a text, "" for none'),
    (("seed",), lambda x: _is_whole(x, 0) and x < 2**63, "a whole number in [0, 2^63)"),
    (("denoiser",), _is_text, "the name of a denoiser"),
    (("vlm",), _or_none(_is_text), "None or the name of a VLM"),
    (
        ("vlm_prompt",),
        lambda x: _is_text(x) or (isinstance(x, tuple) and _are(x, _is_text)),
        "a prompt or several in a tuple",
    ),
    (("vlm_pixels",), lambda x: x in _PIXELS, f"one of {_PIXELS}"),
    (
        ("vlm_resolution",),
        _or_none(lambda x: _is_whole(x, 8) and x <= 4096),
        "None or a whole number of pixels in [8, 4096]",
    ),
    (
        (
            *("steps", "rings", "views_per_ring", "resolution", "samples_per_ray"),
            *("vlm_every", "occupancy_every", "occupancy_resolution"),
        ),
        _is_whole,
        "a whole number >= 1",
    ),
    (
        ("rays_per_chunk", "vlm_views", "patience"),
        _or_none(_is_whole),
        "None or a whole number >= 1",
    ),
    (("retries",), lambda x: _is_whole(x, 0), "a whole number >= 0"),
    (("splat_count",), lambda x: _is_whole(x, 4), "a whole number >= 4"),
    (("hash_levels",), lambda x: _is_whole(x, 2), "a whole number >= 2"),
    (
        ("hash_size",),
        lambda x: _is_whole(x, 2) and x & (x - 1) == 0,
        "a power of two >= 2",
    ),
    (
        ("hash_resolution",),
        lambda x: _are(x, lambda side: _is_whole(side, 2), 2) and x[0] < x[1],
        "two whole numbers, 2 <= first < last",
    ),
    (
        ("field_resolutions",),
        lambda x: _are(x, lambda side: _is_whole(side, 2)) and list(x) == sorted(set(x)),
        "ascending whole numbers >= 2",
    ),
    (
        ("rings_later", "resolution_later"),
        _are_steps,
        "(progress, whole number >= 1) pairs with progress ascending within [0, 1]",
    ),
    (
        ("shading",),
        _or_none(lambda x: _are(x, _is_share, 3) and abs(sum(x) - 1) < 1e-6),
        "None or three probabilities that add up to 1",
    ),
    (
        ("shading_from", "vlm_until", "guidance_rescale", "occupancy_decay", "occupancy_threshold"),
        _is_share,
        "a number in [0, 1]",
    ),
    (("fov_deg",), _is_range(0, 180, open=True), "0 < lowest <= highest < 180"),
    (("elevation_deg",), _is_range(-90, 90), "-90 <= lowest <= highest <= 90"),
    (("scale",), _is_range(0, math.inf, open=True), "0 < lowest <= highest"),
    (("elevations",), lambda x: x in ELEVATIONS, f"one of {ELEVATIONS}"),
    (("background",), lambda x: x in _BACKGROUNDS, f"one of {_BACKGROUNDS}"),
    (("field",), lambda x: x in _FIELDS, '"pyramid", "hash" or "splats"'),
    (("distillation",), _is_text, "the name of a distillation rule"),
    (("bound", "blob_radius", "density_scale"), _is_positive, "a finite number > 0"),
    (("blob_density",), _is_number, "a finite number"),
    (("weight_decay",), lambda x: _is_share(x) and x < 1, "a number in [0, 1)"),
    (
        ("denoiser_precision",),
        lambda x: x in (None, *PRECISIONS),
        f"None or one of {PRECISIONS}",
    ),
    (
        ("guidance_scale", "adam_eps"),
        lambda x: _is_number(x) and x >= 0,
        "a finite number >= 0",
    ),
    (
        ("adam_betas",),
        lambda x: _are(x, lambda beta: _is_share(beta) and beta < 1, 2),
        "two numbers in [0, 1)",
    ),
    (("vlm_limit", "vlm_balance"), _or_none(_is_positive), "None or a finite number > 0"),
    (
        ("view_prompts", "vlm_reuse", "shared_timestep"),
        lambda x: isinstance(x, bool),
        "True or False",
    ),
    (("t_min", "t_max"), lambda x: _is_schedule(x, 1), "a Schedule of numbers in [0, 1]"),
    (
        (
            *("learning_rate", "vlm_weight", "orientation_weight", "entropy_weight"),
            *("sparsity_weight", "variation_weight"),
        ),
        _is_schedule,
        "a Schedule of numbers >= 0",
    ),
)
"""Settings, whether a value will do, and what is expected of it, in words."""


_EXPECTED_OF_WEIGHTING: tuple[tuple[tuple[str, ...], Holds, str], ...] = (
    (("weight",), _is_schedule, "a Schedule of numbers >= 0"),
    (("interval",), _is_whole, "a whole number >= 1"),
    (("stop_at",), _is_share, "a number in [0, 1]"),
    (("n_views",), _or_none(_is_whole), "None or a whole number >= 1"),
    (("max_grad_ratio", "grad_ratio"), _or_none(_is_positive), "None or a finite number > 0"),
    (("cache_gradient",), lambda x: isinstance(x, bool), "True or False"),
)


def _require(holds: bool, name: str, value: Any, expected: str) -> None:
    if not holds:
        raise ValueError(f"received {name}={value!r}; expected {expected}; change {name}")


@dataclass(frozen=True, kw_only=True)
class WeightingConfig:
    """When a guidance is evaluated, on which views, and how much it weighs.

    Attributes:
        weight: Factor of the gradient at the pixels.
        interval: Evaluate at every so many steps.
        stop_at: Progress from which on the guidance is not evaluated any more.
        n_views: Number of views that it is shown, drawn anew at each evaluation; None for all.
        cache_gradient: Keep the gradient that the last evaluation gave the field's parameters, and
            follow it at the steps in between too.
        max_grad_ratio: A number b keeps the weighted gradient within b times the norm of the first
            guidance's gradient at the pixels (norms averaged over the last steps).
        grad_ratio: A number b chooses the weight at every step so that the weighted gradient has b
            times that norm, in place of `weight`.

    Raises:
        ValueError: A setting is of another kind, or both ratios are set.
    """

    weight: Schedule = _ONE
    interval: int = 1
    stop_at: float = 1.0
    n_views: int | None = None
    cache_gradient: bool = False
    max_grad_ratio: float | None = None
    grad_ratio: float | None = None

    def __post_init__(self) -> None:
        for names, holds, expected in _EXPECTED_OF_WEIGHTING:
            for name in names:
                value = getattr(self, name)
                _require(holds(value), name, value, expected)
        one = self.max_grad_ratio is None or self.grad_ratio is None
        _require(one, "grad_ratio", self.grad_ratio, "None beside a max_grad_ratio")


@dataclass(frozen=True, kw_only=True)
class VLM3DConfig:
    """The settings of one run. `vlmreward_3d.presets` holds functions that return one.

    Attributes:
        prompt: What to make.
        negative_prompt: What the denoiser is guided away from.
        seed: Of everything random.
        steps: Length of the run; every `Schedule` is relative to it.

        denoiser: Where the score-distillation teacher comes from; see
            `vlmreward_3d.guidance.loading`.
        denoiser_precision: How it computes: one of `PRECISIONS`; None is "autocast" on a GPU and
            "float32" elsewhere.
        view_prompts: Tell the denoiser in words which side a view shows, for one that does not look
            at the cameras.
        vlm: Where the reward comes from; None for score distillation alone.
        vlm_prompt: The question put to the VLM: one of `vlmreward`'s named prompts, or a text with
            the placeholder {prompt}. Several are asked separately, and the mean of the
            rewards is taken.
        vlm_pixels: How far the reward's image processor follows the 8-bit path.
        vlm_resolution: Side in pixels of the images that the VLM is shown, resized bilinearly
            whatever the rendered size; None shows them as they are rendered.

        rings: Independent groups of views per step.
        rings_later: (progress, rings) pairs, ascending: from there on it is another number.
        views_per_ring: Views in each, the denoiser's group size.
        resolution: Side of the rendered images in pixels.
        resolution_later: (progress, resolution) pairs, as for `rings`.
        rays_per_chunk: None renders a step's rays at once and keeps their graph. A number renders
            so many at a time, twice, for memory that does not grow with the number of rays.
        shading: Probabilities of albedo, textureless and diffuse shading; None for albedo alone.
        shading_from: Progress before which albedo is rendered.
        fov_deg: Range of the field of view, degrees.
        elevation_deg: Range of the elevation, degrees.
        elevations: Distribution of the elevation, one of `vlmreward_3d.cameras.ELEVATIONS`.
        scale: Range of s in the distance s / tan(fov / 2).
        background: Behind the object, one for all views of a ring: "color" (any), "gray" (a level
            of at least 0.1) or "white".

        field: "pyramid" (dense grids that are added up), "hash" (Instant-NGP's tables and network,
            for detail) or "splats" (Gaussians that are drawn). Splats begin as a ball of radius
            `blob_radius`, without shading, orientation loss and `rays_per_chunk`; settings of
            blob, density, occupancy and samples mean nothing to them.
        field_resolutions: Nodes per side of the pyramid's levels.
        hash_levels: Number of levels of the hash field.
        hash_resolution: Nodes per side of its first and last level.
        hash_size: Rows of each of its tables at most, a power of two.
        splat_count: Number of Gaussians, at least 4; it stays the same.
        bound: Half the side of the field's box.
        blob_density: Height of the initial blob in logits.
        blob_radius: Where the initial blob is zero.
        density_scale: Multiplies the density.
        occupancy_resolution: Cells per side of the occupancy grid.
        occupancy_threshold: Share of light an occupied cell takes away at least.
        occupancy_decay: What an update keeps of a cell's former peak density.
        occupancy_every: Steps between updates.
        samples_per_ray: Samples on a ray through occupied space.

        learning_rate: Of Adam, for every parameter.
        adam_betas: Adam's decay rates.
        adam_eps: Adam's epsilon.
        weight_decay: Of AdamW (Loshchilov and Hutter, 2019): each step multiplies every parameter
            by 1 - learning rate * weight_decay before it moves it; 0 is Adam.
        patience: After how many steps in a row of empty views, full views or fog a run has failed;
            None does not look at them, for clouds and the like.
        retries: How often a run that fails (numbers that are not finite, empty views, fog) goes
            back to where all was well, to try again with other random numbers and half the
            learning rate.

        distillation: Rule of score distillation, a key of `vlmreward_3d.guidance.rules.RULES`:
            "x0" (reconstruction, MVDream) or "sds" (DreamFusion).
        guidance_scale: Classifier-free guidance.
        guidance_rescale: Share of the conditional spread given back ("x0" only).
        t_min: Lower end of the noise level, as a share of the denoiser's timesteps.
        t_max: Upper end.
        shared_timestep: Draw one timestep for all views of a step, in place of one for each group.

        vlm_weight: lambda_VLM of the paper's Eq. 6.
        vlm_every: The VLM is asked at every so many steps.
        vlm_reuse: Hold the gradient that its last answer gave the field's parameters, and follow it
            at the steps in between too, so that asking rarely does not weaken the reward.
        vlm_until: Progress from which on it is not asked any more.
        vlm_views: Number of views that it is shown, drawn anew at every step; None for all.
        vlm_limit: None multiplies the reward's pixel gradient by lambda whatever its size, as the
            paper does. A number b keeps it within b times the norm of the score-distillation
            gradient (norms averaged over the last steps).
        vlm_balance: A number b chooses lambda at every step so that the reward's gradient has b
            times the norm of the score-distillation gradient (norms as for `vlm_limit`), in place
            of `vlm_weight`.

        orientation_weight: Of the orientation loss.
        entropy_weight: Of the opacities' binary entropy.
        sparsity_weight: Of the sparsity loss.
        variation_weight: Of the pyramid's total variation.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    steps: int

    denoiser: str
    denoiser_precision: str | None = None
    view_prompts: bool = False
    vlm: str | None
    vlm_prompt: str | tuple[str, ...]
    vlm_pixels: str = "clamp"
    vlm_resolution: int | None = None

    rings: int = 1
    rings_later: tuple[tuple[float, int], ...] = ()
    views_per_ring: int = 4
    resolution: int = 64
    resolution_later: tuple[tuple[float, int], ...] = ()
    rays_per_chunk: int | None = None
    shading: tuple[float, float, float] | None = None
    shading_from: float = 0.0
    fov_deg: tuple[float, float]
    elevation_deg: tuple[float, float]
    elevations: str = "uniform"
    scale: tuple[float, float]
    background: str = "color"

    field: str = "pyramid"
    field_resolutions: tuple[int, ...]
    hash_levels: int = 16
    hash_resolution: tuple[int, int] = (16, 1024)
    hash_size: int = 2**19
    splat_count: int = 2000
    bound: float = 1.0
    blob_density: float
    blob_radius: float
    density_scale: float
    occupancy_resolution: int = 32
    occupancy_threshold: float = 0.01
    occupancy_decay: float = 0.8
    occupancy_every: int = 8
    samples_per_ray: int

    learning_rate: Schedule
    adam_betas: tuple[float, float] = (0.9, 0.99)
    adam_eps: float = 1e-15
    weight_decay: float = 0.0
    patience: int | None = 50
    retries: int = 3

    distillation: str = "x0"
    guidance_scale: float
    guidance_rescale: float = 0.5
    t_min: Schedule
    t_max: Schedule
    shared_timestep: bool = False

    vlm_weight: Schedule
    vlm_every: int = 1
    vlm_reuse: bool = False
    vlm_until: float = 1.0
    vlm_views: int | None = None
    vlm_limit: float | None = None
    vlm_balance: float | None = None

    orientation_weight: Schedule = _OFF
    entropy_weight: Schedule = _OFF
    sparsity_weight: Schedule = _OFF
    variation_weight: Schedule = _OFF

    def __post_init__(self) -> None:
        for names, holds, expected in _EXPECTED:
            for name in names:
                self._require(holds(getattr(self, name)), name, expected)
        self._require(
            self.vlm_limit is None or self.vlm_balance is None,
            "vlm_balance",
            "None beside a vlm_limit",
        )
        turns = sorted({at for at, _ in (*self.t_min.points, *self.t_max.points)})
        self._require(
            all(self.t_min(at) <= self.t_max(at) for at in turns), "t_max", "at least t_min"
        )
        self._require(
            self.field == "pyramid" or self.variation_weight == _OFF,
            "variation_weight",
            'Schedule.constant(0) for a field that is not "pyramid"',
        )
        if self.field == "splats":
            self._require_drawable()

    def _require_drawable(self) -> None:
        """Splats have no surface to be lit or oriented, and no rays to be taken in parts."""
        for name in ("shading", "rays_per_chunk"):
            self._require(getattr(self, name) is None, name, 'None for field="splats"')
        self._require(
            self.orientation_weight == _OFF,
            "orientation_weight",
            'Schedule.constant(0) for field="splats"',
        )

    def _require(self, holds: bool, name: str, expected: str) -> None:
        _require(holds, name, getattr(self, name), expected)

    @property
    def vlm_weighting(self) -> WeightingConfig:
        """How the VLM's reward takes part beside score distillation."""
        return WeightingConfig(
            weight=self.vlm_weight,
            interval=self.vlm_every,
            stop_at=self.vlm_until,
            n_views=self.vlm_views,
            cache_gradient=self.vlm_reuse,
            max_grad_ratio=self.vlm_limit,
            grad_ratio=self.vlm_balance,
        )

    def rings_at(self, progress: float) -> int:
        """Groups of views at a progress in [0, 1]."""
        return _latest(progress, self.rings, self.rings_later)

    def resolution_at(self, progress: float) -> int:
        """Side of the rendered images at a progress in [0, 1]."""
        return _latest(progress, self.resolution, self.resolution_later)

    def to_json(self) -> str:
        """One JSON object, one field a line; schedules as {"points": [[progress, value], ...]}."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def differences(self, other_json: str) -> list[str]:
        """What differs from a configuration written by `to_json`, as "field: theirs -> ours"."""
        ours, theirs = json.loads(self.to_json()), json.loads(other_json)
        names = [*ours, *(name for name in theirs if name not in ours)]
        return [
            f"{name}: {theirs.get(name)!r} -> {ours.get(name)!r}"
            for name in names
            if ours.get(name) != theirs.get(name)
        ]


def _latest(progress: float, first: int, later: tuple[tuple[float, int], ...]) -> int:
    """The value of the last pair that is reached."""
    return [first, *(value for at, value in later if at <= progress)][-1]
