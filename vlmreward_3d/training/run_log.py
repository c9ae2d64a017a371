"""The log of a run: one JSON object a step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vlmreward_3d.atomic_io import write_atomically
from vlmreward_3d.errors import RunError
from vlmreward_3d.vlm3d import StepReport

__all__ = ["RunLog"]


class RunLog:
    """The log file, with a line for each step; after a kill it may end in the middle of a line.

    Args:
        path: The file, `metrics.jsonl`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, report: StepReport) -> None:
        """Add a step.

        Raises:
            OSError: The file cannot be written.
        """
        line = report.to_json() + "\n"
        with open(self.path, "a", encoding="utf-8") as log:
            log.write(line)

    def sync(self) -> None:
        """Flush the file to the disk."""
        if self.path.exists():
            with open(self.path, "rb") as log:
                os.fsync(log.fileno())

    def rewrite(self, lines: list[str]) -> None:
        """Replace the file by some of its lines, atomically.

        Raises:
            OSError: The file cannot be written.
        """
        write_atomically(self.path, "".join(lines))

    def read(self, known: int) -> Iterator[tuple[str, StepReport]]:
        """The lines and their steps.

        Args:
            known: Steps that the checkpoint knows of. Reading ends at damage behind them, for the
                steps there are done again.

        Raises:
            RunError: A line of a known step is damaged.
        """
        if not self.path.exists():
            return
        last = -1
        for number, line in enumerate(self._lines(), 1):
            try:
                report = StepReport.from_json(line)
                if report.step <= last:
                    raise ValueError(f"step {report.step} after step {last}")
            except (ValueError, TypeError, RecursionError) as error:
                if last + 1 >= known:
                    return
                raise RunError(
                    f"received {self.path}, whose line {number} is damaged ({error}); "
                    "expected the numbers of a step; mend it, or move the file away: the run goes "
                    "on without it"
                ) from None
            last = report.step
            yield line, report

    def _lines(self) -> list[str]:
        data = self.path.read_bytes()
        lines = data.decode("utf-8", errors="replace").splitlines(keepends=True)
        # without its end it may be half of a line, or of a number
        return lines[:-1] if lines and not lines[-1].endswith("\n") else lines
