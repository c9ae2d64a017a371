"""Check results as lines of text."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable

from vlmreward.doctor.result import FAIL, OK, SKIP, WARN, CheckResult

__all__ = ["line", "summary"]

_WIDTH = 100


def line(finding: CheckResult) -> str:
    """Status, name, measured value and limit in one line; advice and tables in lines below."""
    limit = f"  [{finding.expected}]" if finding.expected else ""
    lines = [f"{finding.status:<4}  {finding.name:<18}  {finding.message}{limit}"]
    if finding.advice:
        lines += textwrap.wrap(
            finding.advice, _WIDTH, initial_indent=f"{'':6}-> ", subsequent_indent=f"{'':9}"
        )
    return "\n".join([*lines, *(f"{'':26}{detail}" for detail in finding.details)])


def summary(found: Iterable[CheckResult]) -> str:
    """Number of checks of each status, in one sentence."""
    counts = Counter(finding.status for finding in found)
    parts = [
        f"{counts[OK]} of {sum(counts.values())} checks passed",
        f"{counts[FAIL]} failed",
        f"{counts[WARN]} to be looked at",
        f"{counts[SKIP]} skipped",
    ]
    return ", ".join(
        p for p, s in zip(parts, (OK, FAIL, WARN, SKIP)) if s in (OK, FAIL) or counts[s]
    )
