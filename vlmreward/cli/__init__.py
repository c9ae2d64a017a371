"""The command line; torch and transformers are imported only when a command runs."""

from vlmreward.cli.main import main

__all__ = ["main"]
