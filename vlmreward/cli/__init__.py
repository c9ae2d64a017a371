"""The command line; torch and transformers are imported once a command really runs."""

from vlmreward.cli.main import main

__all__ = ["main"]
