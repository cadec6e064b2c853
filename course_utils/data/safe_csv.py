"""Cells that no spreadsheet takes for a formula when it opens the table."""

from __future__ import annotations

import re

# What makes a spreadsheet compute (OWASP, "CSV Injection"); full-width signs count there, too.
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def safe_cell(text: str) -> str:
    """The text, after a `'` if a spreadsheet would compute it; numbers such as -5 stay as they are.

    A formula starts with = + - or @, a tab or a carriage return.
    """
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return "'" + text
    return text
