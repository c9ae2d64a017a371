"""Settings of adaptive density control, the growth of a field of Gaussians, and known values."""

from __future__ import annotations

from dataclasses import dataclass

from vlmreward_3d.config._checks import (
    COUNT,
    COUNT_OR_NONE,
    POSITIVE,
    POSITIVE_OR_NONE,
    SHARE,
    Rule,
    check,
    is_share,
    one_of,
    require,
    whole,
)

__all__ = ["DENSIFICATIONS", "SIZE_MEASURES", "DensificationConfig"]

SIZE_MEASURES = ("largest", "norm")
"""Measures of the size of a Gaussian: its largest scale, or the norm of its three scales."""


@dataclass(frozen=True, kw_only=True)
class DensificationConfig:
    """Adaptive density control (Kerbl et al., 2023, Sec. 5.2): Gaussians are added and removed.

    The gradient of a Gaussian is the norm of dL/d(center in the picture), in units of half the
    picture's width and height (normalized device coordinates), on average over the pictures since
    the last change that it was in. L is the loss of a picture: the step's loss, a mean over V
    views, times V.

    Attributes:
        start: Progress in [0, 1] up to which nothing is changed.
        stop: Progress in [0, 1] after which nothing is changed.
        interval: Steps between changes.
        grad_threshold: Gradient from which on a Gaussian is cloned or split.
        split_size: Size over which a Gaussian is split and not cloned, world units.
        size_measure: Measure of a Gaussian's size, one of `SIZE_MEASURES`.
        min_opacity: Opacity in [0, 1) under which a Gaussian is removed.
        max_size: Largest scale over which one is removed, world units; None removes none for it.
        max_screen_radius: Radius in a picture, three standard deviations, over which one is
            removed, pixels; None removes none for it.
        limits_start: Progress in [0, 1] up to which `max_size` and `max_screen_radius` wait.
        reset_interval: Steps between resets of opacities to 0.01 at most; None for no resets.
        max_gaussians: Largest number of Gaussians; where there is no room for all, those of the
            largest gradients grow.

    Raises:
        ValueError: A setting has the wrong type or is out of range.
    """

    start: float = 0.0
    stop: float = 1.0
    interval: int
    grad_threshold: float
    split_size: float
    size_measure: str = "largest"
    min_opacity: float
    max_size: float | None = None
    max_screen_radius: float | None = None
    limits_start: float = 0.0
    reset_interval: int | None = None
    max_gaussians: int = 100_000

    def __post_init__(self) -> None:
        check(
            self,
            start=SHARE,
            stop=SHARE,
            interval=COUNT,
            grad_threshold=POSITIVE,
            split_size=POSITIVE,
            size_measure=one_of(SIZE_MEASURES),
            min_opacity=Rule(lambda x: is_share(x) and x < 1, "a number in [0, 1)"),
            max_size=POSITIVE_OR_NONE,
            max_screen_radius=POSITIVE_OR_NONE,
            limits_start=SHARE,
            reset_interval=COUNT_OR_NONE,
            max_gaussians=whole(4),
        )
        require(self.start <= self.stop, self, "stop", f"a progress from start={self.start} on")


_EXTENT_3DGS = 3.0
"""1.1 times the distance of the cameras, which is 1.9 to 3.7 world units in `blocks`."""
_EXTENT_DREAMGAUSSIAN = 4.0

DENSIFICATIONS = {
    "blocks": DensificationConfig(
        start=0.05,
        stop=0.7,
        interval=20,
        grad_threshold=1.0,
        split_size=0.05,
        min_opacity=0.01,
        max_size=0.4,
        max_gaussians=10_000,
    ),
    "3dgs": DensificationConfig(
        start=500 / 30_000,
        stop=0.5,
        interval=100,
        grad_threshold=2e-4,
        split_size=0.01 * _EXTENT_3DGS,
        min_opacity=0.005,
        max_size=0.1 * _EXTENT_3DGS,
        max_screen_radius=20.0,
        limits_start=3_000 / 30_000,
        reset_interval=3_000,
    ),
    "dreamgaussian": DensificationConfig(
        interval=50,
        grad_threshold=0.01,
        split_size=0.01 * _EXTENT_DREAMGAUSSIAN,
        min_opacity=0.01,
        max_size=0.1 * _EXTENT_DREAMGAUSSIAN,
        reset_interval=700,
    ),
    "threestudio": DensificationConfig(
        start=500 / 5_000,
        interval=300,
        grad_threshold=0.01,
        split_size=0.02,
        size_measure="norm",
        min_opacity=0.005,
        max_gaussians=500_000,
    ),
}
"""Settings by name, our own and those of published code; progress is steps over its runs' length.

"blocks": for the preset of that name on a CPU. A tenth of the Gaussians are above its threshold at
the beginning of a run; a Gaussian of its `split_size` is about two pixels wide.

"3dgs": Kerbl et al. (2023), `arguments/__init__.py` and `scene/gaussian_model.py` of their code,
runs of 30,000 steps on photographs. Its losses are means over pixels: a threshold that is right
there is low for score distillation, whose losses are sums.

"dreamgaussian": Tang et al. (2024), `configs/text.yaml` and `main.py` of their code, runs of 500
steps. Its limit of 1 pixel in the picture, which would leave no Gaussian that can be seen, is left
out.

"threestudio": threestudio-3dgs, `configs` and `geometry/gaussian_base.py`, runs of 5,000 steps. At
its limit of 500,000 it removes random ones; here those of small gradients do not grow.
"""
