"""Adaptive density control (Kerbl et al., 2023, Sec. 5.2): Gaussians are added and removed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmreward_3d.config import DensificationConfig
from vlmreward_3d.fields.gaussian_rows import NEW, EditedRows, Rows, grow, opacity_of
from vlmreward_3d.rendering.gaussians.footprints import Footprints

__all__ = ["FEWEST", "RESET_OPACITY", "Densification", "Densifier"]

FEWEST = 4
"""Least number of Gaussians: the most opaque ones are never removed."""
RESET_OPACITY = 0.01
"""Largest opacity after a reset, in the code of Kerbl et al. (2023)."""


@dataclass(frozen=True)
class Densification:
    """Result of one change of the number of Gaussians.

    Attributes:
        edited: Gaussians after the change.
        before: Number of Gaussians before the change.
        n_cloned: Number of cloned Gaussians.
        n_split: Number of split Gaussians.
        n_pruned: Number of removed Gaussians, new copies and halves included.
    """

    edited: EditedRows
    before: int
    n_cloned: int
    n_split: int
    n_pruned: int

    def __str__(self) -> str:
        """The change in words."""
        return (
            f"{self.before} -> {len(self.edited.origins)} Gaussians: {self.n_cloned} cloned, "
            f"{self.n_split} split, {self.n_pruned} removed"
        )


class Densifier(nn.Module):
    """Statistics of Gaussians over the pictures that show them, and the changes they lead to.

    The statistics are buffers, so that a run can be continued exactly within an interval.

    Args:
        config: Settings of the changes.
        count: Number of Gaussians.
    """

    gradient_sums: Tensor
    """(N,) sums of the gradients' norms over pictures; see `DensificationConfig` for the units."""
    view_counts: Tensor
    """(N,) numbers of pictures that each Gaussian was visible in."""
    max_radii: Tensor
    """(N,) largest radii in a picture, pixels."""

    def __init__(self, config: DensificationConfig, count: int) -> None:
        super().__init__()
        self.config = config
        self._pending: list[Footprints] = []
        self.register_buffer("gradient_sums", torch.zeros(count))
        self.register_buffer("view_counts", torch.zeros(count, dtype=torch.long))
        self.register_buffer("max_radii", torch.zeros(count))

    def resize(self, count: int) -> None:
        """Start new statistics, of `count` Gaussians."""
        self._pending.clear()
        for name, value in list(self.named_buffers()):
            setattr(self, name, value.new_zeros(count))

    def observe(self, footprints: Footprints) -> None:
        """Record the footprints of views that have received a gradient, each object once."""
        if not any(noted is footprints for noted in self._pending):
            self._pending.append(footprints)

    def begin_step(self) -> None:
        """Discard the views of a step that was not completed."""
        self._pending.clear()

    @torch.no_grad()
    def end_step(self) -> None:
        """Add the views that were recorded since the last step to the statistics."""
        pending, self._pending = self._pending, []
        n_views = sum(len(footprints.visible) for footprints in pending)
        for footprints in pending:
            gradient = footprints.gradient
            if gradient is None:
                continue
            visible = footprints.visible
            norms = torch.where(visible, n_views * gradient.norm(dim=-1), 0.0)
            self.gradient_sums += norms.sum(dim=0)
            self.view_counts += visible.sum(dim=0)
            self.max_radii = torch.maximum(self.max_radii, footprints.radii.amax(dim=0))

    @property
    def gradients(self) -> Tensor:
        """(N,) mean norms over the pictures that each Gaussian was visible in; 0 without any."""
        return self.gradient_sums / self.view_counts.clamp_min(1)

    def is_due(self, steps_done: int, progress: float) -> bool:
        """True if the number of Gaussians is to change now.

        Args:
            steps_done: Steps done, this one included.
            progress: Share of the run that is done with them.
        """
        config = self.config
        return config.start < progress <= config.stop and steps_done % config.interval == 0

    def is_reset_due(self, steps_done: int, progress: float) -> bool:
        """True if opacities are to be reset now; see `is_due`."""
        interval = self.config.reset_interval
        return interval is not None and progress <= self.config.stop and steps_done % interval == 0

    @torch.no_grad()
    def densify(self, rows: Rows, progress: float, generator: torch.Generator) -> Densification:
        """Clone, split and remove Gaussians, and begin new statistics.

        Args:
            rows: The N Gaussians of the statistics.
            progress: Share of the run that is done.
            generator: CPU source of the centers of halves.
        """
        chosen = self._chosen()
        large = self._sizes(rows) > self.config.split_size
        grown = grow(rows, chosen & ~large, chosen & large, generator)
        stays = self._stays(grown, progress)
        edited = grown.keep(stays)
        self.resize(len(edited.origins))
        return Densification(
            edited,
            before=len(chosen),
            n_cloned=int((chosen & ~large).sum()),
            n_split=int((chosen & large).sum()),
            n_pruned=int((~stays).sum()),
        )

    def _chosen(self) -> Tensor:
        """(N,) bool, True for Gaussians to clone or split; each of them adds one."""
        gradients = self.gradients
        chosen = gradients >= self.config.grad_threshold
        room = max(0, self.config.max_gaussians - len(gradients))
        if int(chosen.sum()) > room:
            first = gradients.argsort(descending=True, stable=True)[:room]
            chosen = torch.zeros_like(chosen)
            chosen[first] = True
        return chosen

    def _sizes(self, rows: Rows) -> Tensor:
        scales = rows["log_scales"].exp()
        largest = self.config.size_measure == "largest"
        return scales.amax(dim=-1) if largest else scales.norm(dim=-1)

    def _stays(self, grown: EditedRows, progress: float) -> Tensor:
        """(M,) bool, False for Gaussians to remove."""
        config = self.config
        opacity = opacity_of(grown.rows["opacity_logits"])
        stays = opacity >= config.min_opacity
        if progress > config.limits_start:
            if config.max_size is not None:
                stays &= grown.rows["log_scales"].exp().amax(dim=-1) <= config.max_size
            if config.max_screen_radius is not None:
                # those of copies and halves are not known yet
                radii = self.max_radii[grown.origins.clamp_min(0)]
                stays &= (radii <= config.max_screen_radius) | (grown.origins == NEW)
        if int(stays.sum()) < FEWEST:
            stays[opacity.topk(min(FEWEST, len(opacity))).indices] = True
        return stays
