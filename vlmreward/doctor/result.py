"""What a check found, and how checks are written."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from vlmreward.doctor.probe import Probe

__all__ = ["FAIL", "OK", "SKIP", "WARN", "Check", "CheckResult", "check", "judged", "skipped"]

OK, WARN, FAIL, SKIP = "OK", "WARN", "FAIL", "SKIP"


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: of the check.
        status: ``"OK"``; ``"FAIL"``, wrong; ``"WARN"``, right but to be looked at; or ``"SKIP"``,
            could not be measured, and ``measured`` says why.
        measured: what was found, in words.
        limit: what was expected, in words; empty where nothing is.
        advice: what to do; empty if nothing.
        details: further lines, for example a table.
        figures: the numbers behind ``measured``, for programs.
    """

    name: str
    status: str
    measured: str
    limit: str = ""
    advice: str = ""
    details: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


Check = Callable[["Probe"], CheckResult]


def check(name: str) -> Callable[[Check], Check]:
    """Name a check; an error inside it is a finding too, and the others go on."""

    def named(function: Check) -> Check:
        @functools.wraps(function)
        def run(subject: Probe) -> CheckResult:
            try:
                return replace(function(subject), name=name)
            except (torch.OutOfMemoryError, MemoryError):
                return CheckResult(name, SKIP, "not enough memory", advice="use a larger machine")
            except Exception as error:  # of foreign code: whatever it is, it belongs in the report
                first = (str(error).splitlines() or [""])[0]
                return CheckResult(
                    name,
                    FAIL,
                    f"{type(error).__name__}: {first}",
                    "no error",
                    "the check itself broke off: the message above says where to look",
                )

        run.__dict__["check_name"] = name
        return run

    return named


def judged(
    good: bool,
    measured: str,
    limit: str,
    advice: str,
    *,
    otherwise: str = FAIL,
    **figures: Any,
) -> CheckResult:
    """OK if ``good``; if not, ``otherwise`` with the advice."""
    status = OK if good else otherwise
    return CheckResult("", status, measured, limit, "" if good else advice, figures=figures)


def skipped(reason: str, advice: str = "") -> CheckResult:
    """Could not be measured."""
    return CheckResult("", SKIP, reason, advice=advice)
