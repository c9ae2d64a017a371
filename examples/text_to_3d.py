"""Make a 3D asset from a text, on a laptop:

    python examples/text_to_3d.py "a red cube on top of a blue sphere"

This script is the command vlm3d of the installed package, whose code is in vlmreward_3d/cli. The
folder of the run gets report.html, which shows all of it, and config.json, metrics.jsonl,
views.png, turntable.mp4, mesh.glb, mesh_textured.glb, reward.png and the checkpoint; with --field
gaussians, splats.ply in place of the meshes. Ctrl-C stops it; the same command with --resume goes
on.
"""

import sys

from vlmreward_3d.cli import main, parse

__all__ = ["main", "parse"]

if __name__ == "__main__":
    sys.exit(main())
