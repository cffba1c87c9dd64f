"""Pages, pictures and tables for a person to look at.

`run_report`, the report of training runs, is imported by itself: it needs the rooms of models.
"""

from vidadapt.apps.report.browse import browse_list
from vidadapt.apps.report.check_picture import class_counts, write_check_picture
from vidadapt.apps.report.end_of_run import write_report_after
from vidadapt.apps.report.explanation_page import write_explanation_page
from vidadapt.apps.report.looking import choose
from vidadapt.apps.report.markdown import figure, markdown_table
from vidadapt.apps.report.page import filled
from vidadapt.apps.report.prediction_sheet import write_prediction_sheets
from vidadapt.apps.report.timeline_page import write_timeline_page

__all__ = [
    "browse_list",
    "choose",
    "class_counts",
    "figure",
    "filled",
    "markdown_table",
    "write_check_picture",
    "write_explanation_page",
    "write_prediction_sheets",
    "write_report_after",
    "write_timeline_page",
]
