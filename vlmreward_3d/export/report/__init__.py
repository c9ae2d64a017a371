"""The report page of a run."""

from vlmreward_3d.export.report.page import save_report

__all__ = [
    "save_report",
]
