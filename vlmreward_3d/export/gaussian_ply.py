"""Export of Gaussians in the file format of Kerbl et al. (2023), which splat viewers open."""

from __future__ import annotations

from pathlib import Path

import torch

from vlmreward_3d.atomic_io import write_atomically
from vlmreward_3d.fields.gaussians import GaussianField

__all__ = ["save_gaussians"]

_COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_CONSTANT = 0.28209479177387814
"""The spherical harmonic of degree 0, 1 / (2 sqrt(pi))."""


@torch.no_grad()
def save_gaussians(path: Path, field: GaussianField) -> None:
    """Save Gaussians as binary PLY in the layout of the original 3D Gaussian splatting.

    The axes are those of the world: z up, the front to +x. Float32, little endian: center, an
    empty normal, color as the coefficient of the constant spherical harmonic, opacity as a logit,
    scales as logarithms, and the rotation as a unit quaternion w, x, y, z.

    Args:
        path: The .ply file.
        field: The Gaussians.

    Raises:
        OSError: The file cannot be written.
    """
    gaussians = field.gaussians()
    columns = [
        gaussians.means,
        torch.zeros_like(gaussians.means),
        (gaussians.rgb - 0.5) / _CONSTANT,
        gaussians.opacity.logit()[:, None],
        field.log_scales,
        gaussians.quaternions,
    ]
    rows = torch.cat(columns, dim=-1).cpu().numpy().astype("<f4")
    properties = "".join(f"property float {name}\n" for name in _COLUMNS)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}"
    write_atomically(path, f"{header}end_header\n".encode("ascii") + rows.tobytes())
