"""Results of checks, and the decorator that makes a check."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from vlmreward.utils.errors import first_line

if TYPE_CHECKING:
    from vlmreward.doctor.probe import Probe

__all__ = [
    "FAIL",
    "OK",
    "SKIP",
    "WARN",
    "Check",
    "CheckResult",
    "check",
    "failed",
    "pass_or_fail",
    "skipped",
]

OK, WARN, FAIL, SKIP = "OK", "WARN", "FAIL", "SKIP"


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: name of the check.
        status: ``"OK"``; ``"FAIL"``, wrong; ``"WARN"``, right but worth a closer look; or
            ``"SKIP"``, not measured, for the reason in ``message``.
        message: the finding, in words.
        expected: the expectation, in words; empty if there is none.
        advice: the remedy; empty if there is none.
        details: further lines, for example a table.
        metrics: the numbers behind ``message``, for programs.
    """

    name: str
    status: str
    message: str
    expected: str = ""
    advice: str = ""
    details: tuple[str, ...] = ()
    metrics: dict[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """The result as plain data for JSON."""
        return asdict(self)


Check = Callable[["Probe"], CheckResult]


def check(name: str) -> Callable[[Check], Check]:
    """Decorator that names a check and turns an error inside it into a failed result."""

    def named(function: Check) -> Check:
        @functools.wraps(function)
        def run(subject: Probe) -> CheckResult:
            try:
                return replace(function(subject), name=name)
            except (torch.OutOfMemoryError, MemoryError):
                return CheckResult(name, SKIP, "not enough memory", advice="use a larger machine")
            except Exception as error:  # of foreign code: whatever it is, it belongs in the report
                return CheckResult(
                    name,
                    FAIL,
                    f"{type(error).__name__}: {first_line(error)}",
                    "no error",
                    "the check itself broke off: the message above says where to look",
                )

        run.__dict__["check_name"] = name
        return run

    return named


def pass_or_fail(
    good: bool,
    message: str,
    expected: str,
    advice: str,
    *,
    otherwise: str = FAIL,
    **metrics: object,
) -> CheckResult:
    """A result of status OK if ``good``, otherwise of status ``otherwise`` with the advice."""
    status = OK if good else otherwise
    return CheckResult("", status, message, expected, "" if good else advice, metrics=metrics)


def failed(message: str, expected: str, advice: str) -> CheckResult:
    """A result of status FAIL, with the advice."""
    return CheckResult("", FAIL, message, expected, advice)


def skipped(reason: str, advice: str = "") -> CheckResult:
    """A result of status SKIP: the check could not be made, for the reason given."""
    return CheckResult("", SKIP, reason, advice=advice)
