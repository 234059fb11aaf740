"""The report of one run or of several: one HTML file that opens offline; `penstock report`."""

from penstock_server.report.reading import ReportError, Run, read_run
from penstock_server.report.writing import write_report

__all__ = ["ReportError", "Run", "read_run", "write_report"]
