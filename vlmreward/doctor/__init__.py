"""Does a vision-language model work as a differentiable reward? Checks, with what to do."""

from vlmreward.doctor.examine import CHECKS, checks, examine, findings
from vlmreward.doctor.finding import Finding
from vlmreward.doctor.report import line, summary

__all__ = ["CHECKS", "Finding", "checks", "examine", "findings", "line", "summary"]
