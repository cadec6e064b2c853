"""Prose out of Python files: their docstrings by paragraph, read with `ast`, never imported.

Libraries are not named in the result: where a paragraph says "numpy", it reads "the library".
"""

from __future__ import annotations

import ast
import json
import re
import sys
import warnings
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

MIN_WORDS, MAX_WORDS = 8, 100
# A name inside a word gives its library away too: to_numpy, TorchScript, np_array.
_NAMES = re.compile(
    r"\b(?:(?:the|a|an) )?"
    r"(?:scikit-? ?learn|hugging[ -]face"
    r"|\w*(?:num_?py|scipy|scikit|sklearn|pandas|torch|matplotlib|pyplot|huggingface|transformers"
    r"|python|stdlib)\w*"
    r"|(?:\w*_)?(?:np|pd|plt|mpl)(?:_\w*)?)(?:(?<=\d)\.\d+)?\b(?=(\.\w)?)",
    re.IGNORECASE,
)
_ROLE = re.compile(r":[a-zA-Z:+-]+:`~?\.?([^`<]*?)(?:\s*<[^>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^>]+>`_+|\[([^\]]+)\]\([^)]+\)")
_URL = re.compile(r"https?://\S+|www\.\S+")
_MARKUP = re.compile(r"[`*|]+|\[\d+\]_|\\")
_NOT_PROSE = re.compile(r"^\s*(?:>>>|\.\.\s|\$|%|#|@|[-=~^+|]{3,}|In \[)", re.MULTILINE)
_LIST_MARK = re.compile(r"^\s*(?:[-*+•]|\d+[.)]|\(\d+\))\s+")
_SENTENCE = re.compile(r"[A-Za-z][^.!?]*[.!?]")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (*_DOCUMENTED[1:], ast.If, ast.Try, ast.ExceptHandler, ast.With)


def paragraphs_of(docstring: str) -> Iterator[str]:
    """The paragraphs of prose in a docstring, each on one line, without code and tables."""
    for block in re.split(r"\n\s*\n", cleandoc(docstring)):
        if _NOT_PROSE.search(block):
            continue
        text = _LIST_MARK.sub("", block)
        text = _ROLE.sub(r"\1", text)
        text = _LINK.sub(lambda found: found[1] or found[2], text)
        text = " ".join(_MARKUP.sub("", _URL.sub("", text)).split())
        text = _NAMES.sub(lambda found: "library" if found[1] else "the library", text)
        if is_prose(text):
            yield text


def is_prose(text: str) -> bool:
    """Whether a text reads as prose: enough words, mostly letters, one whole sentence or more."""
    words = text.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS:
        return False
    plain = sum(word.strip(".,;:()'\"?!").isalpha() for word in words)
    return plain >= 0.75 * len(words) and text.isascii() and bool(_SENTENCE.search(text))


def docstrings(source: str) -> Iterator[str]:
    """Every docstring of a module, its classes and functions; none if it is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nodes: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    while nodes:
        node = nodes.pop()
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node, clean=False)):
            yield text
        # Statements only: no docstring hides in an expression, and these are most of the tree.
        for branch in ("body", "orelse", "finalbody", "handlers"):
            nodes += (child for child in getattr(node, branch, ()) if isinstance(child, _BLOCKS))


def paragraphs_in(file: Path) -> list[str]:
    """All paragraphs of prose in a file's docstrings; none if the file cannot be read."""
    try:
        source = file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:  # a link to nowhere, a file of somebody else
        return []
    return [text for docstring in docstrings(source) for text in paragraphs_of(docstring)]


if __name__ == "__main__":  # names of files come in, their paragraphs go out, both as JSON
    json.dump([paragraphs_in(Path(name)) for name in json.load(sys.stdin)], sys.stdout)
