"""The Markdown for Marp that is made of a deck.

What a slide shows of the course is not written into the deck but named, and looked up here:

    ![](cell:NAME)           the figure under the notebook's cell tagged `slide-NAME`
    ![](cell:02/NAME)        the same of another notebook
    ```output NAME```        what that cell printed
    ```cell NAME```          its code
    ```source a.b.c```       the code of a function or class, without its docstring
"""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import notebook_cells
from deck import COMMENT, FENCE, IMAGE, Deck, Slide

from course_utils.classroom.source import fenced
from course_utils.errors import CourseError

LANGUAGES = ("", "python", "text", "bash")
LONGEST_LINE = 84  # of printed text; longer ones are broken, so that letters stay large


def expand(deck: Deck, notebooks: Path) -> str:
    """The Markdown for Marp: everything that the deck names, looked up and put in its place.

    Raises `CourseError` when something cannot be found, with the number of the slide.
    """
    slides = []
    for number, slide in enumerate(deck.slides, 1):
        try:
            slides.append(_expand_slide(slide, deck.number, notebooks))
        except CourseError as error:
            where = f"{deck.path.name}, slide {number}"
            where += f" ({error.where})" if error.where else ""
            raise CourseError(error.what, where=where, do=error.do) from error
    return f"---\n{deck.front}\n---\n\n" + "\n\n---\n\n".join(slides) + "\n"


def _expand_slide(slide: Slide, number: str, notebooks: Path) -> str:
    def cell(name: str, take: Callable) -> object:
        other, _, name = name.rpartition("/")
        return take(notebook_cells.find_notebook(other or number, notebooks), name)

    def block(match: re.Match) -> str:
        kind, _, name = match["info"].strip().partition(" ")
        if not name and kind in LANGUAGES:
            return match[0]
        if kind not in BLOCKS or not name:
            raise CourseError(
                f"A block ```{match['info']} is not known.",
                do=f"Write ```{', ```'.join(f'{k} NAME' for k in BLOCKS)} or a language: "
                f"{', '.join(filter(None, LANGUAGES))}.",
            )
        if match["body"].strip():
            raise CourseError(f"The block ```{kind} {name} is not empty.", do="Empty it.")
        return BLOCKS[kind](name, cell) + "\n"

    def image(match: re.Match) -> str:
        kind, _, name = match["target"].partition(":")
        if kind != "cell" or match["alt"]:
            raise CourseError(
                f"The image {match[0]} is not a figure of a notebook.",
                do="Write ![](cell:NAME) and nothing between the brackets: the notebook has the "
                "alternative text.",
            )
        found = cell(name, notebook_cells.figure)
        alt = html.escape(" ".join(found.alt.split()), quote=True)
        return f'<img alt="{alt}" src="data:image/png;base64,{found.png}">'

    if "```" in FENCE.sub("", slide.text):
        raise CourseError(
            "A block ``` is not closed, or does not begin at the left margin.",
            do="Give each ``` a line of its own, and no spaces before it.",
        )
    # Outside of code, an image is an image.
    pieces, last = [], 0
    for match in FENCE.finditer(slide.text):
        pieces += [IMAGE.sub(image, slide.text[last : match.start()]), block(match)]
        last = match.end()
    text = "".join([*pieces, IMAGE.sub(image, slide.text[last:])])
    return text + _size_of_code(text)


def _output(name: str, cell: Callable) -> str:
    lines = []
    for line in cell(name, notebook_cells.printed).splitlines():
        margin = line[: len(line) - len(line.lstrip())]
        broken = textwrap.wrap(
            line, LONGEST_LINE, subsequent_indent=f"{margin}    ", replace_whitespace=False
        )
        lines += [line] if len(line) <= LONGEST_LINE else broken
    return fenced("\n".join(lines), "text")


def _cell(name: str, cell: Callable) -> str:
    return fenced(cell(name, notebook_cells.code))


def _source(name: str, cell: Callable) -> str:
    return fenced(source_of(name))


BLOCKS: dict[str, Callable[[str, Callable], str]] = {
    "output": _output,
    "cell": _cell,
    "source": _source,
}


def source_of(name: str) -> str:
    """The source of a function, method or class of the library by its full name, no docstring.

    Raises `CourseError` when there is no such object.
    """
    module, parts = name, []
    found = None
    while found is None and "." in module:
        module, _, part = module.rpartition(".")
        parts.insert(0, part)
        try:
            found = importlib.import_module(module)
        except (ModuleNotFoundError, TypeError, ValueError):  # no module, or no name of one
            continue
    try:
        for part in parts:
            found = getattr(found, part)
        lines = textwrap.dedent(inspect.getsource(found)).rstrip()
    except (AttributeError, TypeError, OSError) as error:
        raise CourseError(
            f"There is no Python source of {name}.",
            do="Give the full name of a function or class: course_utils.distill.losses.soft_kl.",
        ) from error
    return _without_docstring(lines)


def _without_docstring(code: str) -> str:
    definition = ast.parse(code).body[0]
    body = getattr(definition, "body", [])
    if not body or ast.get_docstring(definition) is None:
        return code
    lines = code.splitlines()
    del lines[body[0].lineno - 1 : body[0].end_lineno]
    if lines[body[0].lineno - 1 : body[0].lineno] == [""]:
        del lines[body[0].lineno - 1]
    return "\n".join(lines)


# A slide of 1280 × 720 below its title, and what takes room there, in px; the rest is for code.
CODE_WIDTH, CODE_HEIGHT, GAP = 1090, 540, 22
HEIGHTS = {"formula": 120, "figure": 260, "line": 45}
LETTERS_OF_A_LINE = 60
LETTER_WIDTH, LETTER_HEIGHT = 0.605, 1.4
SMALLEST, LARGEST = 14, 34
FORMULA = re.compile(r"^\$\$.*?\$\$[ ]*$", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"^<img .*$", re.MULTILINE)


def _size_of_code(slide: str) -> str:
    """The style that fits the code of a slide into it, or nothing.

    Raises `CourseError` when the code would be too small to read.
    """
    shown = COMMENT.sub("", slide)
    blocks = [match["body"].splitlines() for match in FENCE.finditer(shown)]
    if not blocks:
        return ""
    words, formulas = FORMULA.subn("", FENCE.sub("", shown))
    words, figures = FIGURE.subn("", words)
    texts = [line for line in words.splitlines() if line and not line.startswith("#")]
    rows = sum(math.ceil(len(line) / LETTERS_OF_A_LINE) for line in texts)
    height = CODE_HEIGHT - GAP * (len(blocks) * 2 + len(texts) + formulas + figures)
    height -= sum(n * HEIGHTS[k] for k, n in zip(HEIGHTS, (formulas, figures, rows), strict=True))
    lines = max(1, sum(map(len, blocks)))
    columns = max(1, *(len(line) for block in blocks for line in ["", *block]))
    size = int(min(height / lines / LETTER_HEIGHT, CODE_WIDTH / columns / LETTER_WIDTH, LARGEST))
    if size < SMALLEST:
        raise CourseError(
            f"Code of {lines} lines and {columns} columns is too large for what else is here.",
            do="Show a shorter function, tag a shorter cell, or write fewer words.",
        )
    return f"\n\n<style scoped>pre {{ font-size: {size}px; }}</style>"
