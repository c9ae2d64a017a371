"""`vlm3d-compare RUN RUN ...`: several runs on one page."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vlmreward.cli import process
from vlmreward.cli.arguments import path, text
from vlmreward_3d.cli.requirements import require_extra

__all__ = ["main", "parse"]

_BAD_USAGE = 2


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, with a name for each run."""
    parser = argparse.ArgumentParser(
        prog="vlm3d-compare", description="Put runs of vlm3d side by side on one page."
    )
    parser.add_argument("runs", nargs="+", type=path, metavar="RUN", help="folders of runs")
    parser.add_argument(
        "--out",
        type=path,
        default=Path("compare.html"),
        metavar="FILE",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--name",
        dest="names",
        type=text,
        action="append",
        metavar="TEXT",
        help="heading of a run, once for each in their order; default: its folder",
    )
    options = parser.parse_args(arguments)
    if len(options.runs) < 2:
        parser.error("received one run; expected two or more")
    options.names = options.names or _names(options.runs)
    if len(options.names) != len(options.runs):
        parser.error(f"received {len(options.names)} --name; expected one for each run, or none")
    return options


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' names, with their whole paths where two are the same."""
    count = Counter(run.name for run in runs)
    return [run.name if run.name and count[run.name] == 1 else str(run) for run in runs]


@process.speaking()
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; print its path.

    Args:
        arguments: Words of the command line, without the program's name; `sys.argv` by default.

    Returns:
        The exit code: 0 for success, 2 for runs that cannot be compared.
    """
    options = parse(arguments)
    try:
        require_extra()
        with process.loading():
            from vlmreward_3d.cli.run_record import read_run
            from vlmreward_3d.export.report.comparison import save_comparison
        runs = [read_run(run, name) for run, name in zip(options.runs, options.names)]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        save_comparison(options.out, runs)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return _BAD_USAGE
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
