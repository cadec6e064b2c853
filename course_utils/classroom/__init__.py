"""What a notebook says to its reader: checks, claims, source code, figures, progress."""

from course_utils.classroom.checks import check
from course_utils.classroom.claims import claim
from course_utils.classroom.source import show_source

__all__ = ["check", "claim", "show_source"]
