"""Finds links and names in the course's pages that lead nowhere.

    python tools/check_links.py             what is wrong; exit code 1 if something is
    python tools/check_links.py --external  the addresses outside, which nobody has fetched

Pages are README and the other documents, data cards, slides, and the notebooks' text. A link has
to lead to a file of the repository and to a heading in it; a file or a name of the library that
stands in a `code span` has to exist. Nothing is asked of the network.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pages import Link, anchors, links, pages, texts

ROOT = Path(__file__).resolve().parents[1]

WEB = ("http", "https")
# cell: a figure that the slides take out of a notebook; attachment: a picture that lies in the cell
OTHER = ("mailto", "cell", "attachment")
NO_PLACE = re.compile(r"127\..*|0\.0\.0\.0|(.+\.)?example(\.\w+)?|[^.]*", re.IGNORECASE)
FILE = re.compile(
    r"(?:configs|constraints|course_utils|data|docs|notebooks|slides|tests|tools)/[\w./*-]*"
)
NO_FILE_YET = re.compile(r"NN|NAME|YYYY|(?<!\d)99")  # NN_name.ipynb; 99 is a chapter to try
NOT_COMMITTED = ("build", "dist", ".venv")
ONLY_IN_THE_WHEEL = "course_utils/_data"
NAME = re.compile(r"(course_utils(?:\.\w+)+)(?:\(.*\))?")


def problems(root: Path) -> list[str]:
    """What is wrong in the pages below `root`, one line each: page, place, what."""
    root, found = root.resolve(), []
    for page in pages(root):
        name = page.relative_to(root)
        try:
            found += [f"{name}, {place}: {what}" for place, what in _problems(page, root)]
        except (ValueError, KeyError) as error:  # no UTF-8, no JSON, or no notebook
            found.append(f"{name}: it cannot be read, {error!r}")
    return found


def external(root: Path) -> dict[str, list[str]]:
    """The addresses on the web that pages below `root` link to, with the pages, sorted."""
    found: dict[str, list[str]] = {}
    for page in pages(root):
        for link in links(page):
            if urlsplit(link.target).scheme in WEB:
                named = found.setdefault(link.target, [])
                named.append(str(page.relative_to(root)))
    return {target: sorted(set(found[target])) for target in sorted(found)}


def _problems(page: Path, root: Path) -> Iterator[tuple[str, str]]:
    for link in links(page):
        if what := _leads_nowhere(link, page, root):
            yield link.place, f"{link.target or 'an empty link'} {what}"
    for place, text in texts(page, "text"):
        if "](" in text:
            yield place, f"{text.strip()[:60]!r} looks like a link and is none"
    for place, code in texts(page, "code_inline"):
        if FILE.fullmatch(code) and not _is_there(code, root):
            yield place, f"`{code}` does not exist"
        elif (name := NAME.fullmatch(code)) and not is_defined(name[1], root):
            yield place, f"`{name[1]}` is not in the library"


def _leads_nowhere(link: Link, page: Path, root: Path) -> str | None:
    """What is wrong with a link, or None."""
    try:
        url = urlsplit(link.target)
    except ValueError:
        return "is no address"
    if url.scheme in WEB:
        return "is no place on the web" if NO_PLACE.fullmatch(url.hostname or "") else None
    if url.scheme in OTHER:
        return None
    if url.scheme or url.netloc or url.path.startswith("/"):
        return "is neither relative nor on the web"
    target = (page.parent / unquote(url.path)).resolve() if url.path else page
    if not target.is_relative_to(root):
        return "leads out of the repository"
    if not target.exists():
        return "does not exist"
    if target.relative_to(root).parts[:1] in [(folder,) for folder in NOT_COMMITTED]:
        return "is not part of the repository"
    if url.fragment and unquote(url.fragment) not in _anchors(target):
        return "names a heading that is not there"
    return None if link.target else "leads nowhere"


@cache
def _anchors(target: Path) -> set[str]:
    return anchors(target) if target.suffix in (".md", ".ipynb") else set()


def _is_there(name: str, root: Path) -> bool:
    """Whether a file or folder that is spoken of is in the repository."""
    if name.rstrip("/") == ONLY_IN_THE_WHEEL or NO_FILE_YET.search(name):
        return True
    return any(root.glob(name)) if "*" in name else (root / name).exists()


def is_defined(name: str, root: Path) -> bool:
    """Whether a dotted name is a module below `root`, or defined in one; nothing is imported."""
    path, *rest = name.split(".")
    module = root / path
    while rest and (module / rest[0]).is_dir():
        module /= rest.pop(0)
    if rest and (module / f"{rest[0]}.py").exists():
        module = module / f"{rest.pop(0)}.py"
    else:
        module = module / "__init__.py"
    if not module.exists():
        return False
    body: Sequence[ast.stmt] = ast.parse(module.read_text(encoding="utf-8")).body
    while rest:
        wanted = rest.pop(0)
        found = next((node for node in body if wanted in _names(node)), None)
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def _names(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """The exit code: 0, or 1 when something leads nowhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--external", action="store_true", help="list the addresses on the web")
    if parser.parse_args(arguments).external:
        for target, named in external(root).items():
            print(f"{target}  ({', '.join(named)})")
        return 0
    found = problems(root)
    print("\n".join(found) or f"Every link and name in {len(pages(root))} pages leads somewhere.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
