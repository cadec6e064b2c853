"""Text between two markers of a page, which a tool writes and nobody else."""

from __future__ import annotations

import re

from course_utils.errors import CourseError


def with_block(page: str, name: str, block: str, *, where: str) -> str:
    """`page` with this text between its markers `<!-- name -->` and `<!-- /name -->`.

    Raises `CourseError` naming the file `where` when it has lost them.
    """
    marked = re.compile(
        rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL
    )
    if not marked.search(page):
        raise CourseError(f"The page has lost its markers <!-- {name} -->.", where=where)
    return marked.sub(lambda found: found[1] + block + found[2], page)
