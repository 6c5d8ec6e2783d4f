"""A report as the command prints it, as a text."""

from __future__ import annotations

from windowshift.core.report.blocks import report_blocks
from windowshift.core.report.report import Report
from windowshift.core.report.text import NARROWEST, draw


def report_text(report: Report, width: int = 100, *, color: bool = False, ascii_only: bool = False) -> str:
    return draw(report_blocks(report, max(width, NARROWEST)), width, color=color, ascii_only=ascii_only)
