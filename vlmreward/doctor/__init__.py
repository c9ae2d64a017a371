"""Checks that a vision-language model works as a differentiable reward, with advice."""

from vlmreward.doctor.checks import CHECKS, checks, iter_checks, run_checks
from vlmreward.doctor.meta import MetaReport, describe, report_lines
from vlmreward.doctor.report import line, summary
from vlmreward.doctor.result import CheckResult

__all__ = [
    "CHECKS",
    "CheckResult",
    "MetaReport",
    "checks",
    "describe",
    "iter_checks",
    "line",
    "report_lines",
    "run_checks",
    "summary",
]
