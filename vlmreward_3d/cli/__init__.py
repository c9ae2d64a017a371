"""The command `vlm3d`; torch and models' libraries are imported once it really runs."""

from vlmreward_3d.cli.main import main
from vlmreward_3d.cli.options import parse

__all__ = ["main", "parse"]
