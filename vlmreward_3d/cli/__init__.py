"""The command `vlm3d`; torch and the libraries of models are imported only when it runs."""

from vlmreward_3d.cli.main import main
from vlmreward_3d.cli.options import parse

__all__ = ["main", "parse"]
