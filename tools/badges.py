"""What is made of the repository's address: the badges, and the cell that Colab runs first.

    python tools/badges.py     the README's badges; the setting follows the Git remote `origin`

The setting is `[tool.course] repository` in pyproject.toml, and nothing else holds the address.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course_utils.errors import CourseError
from course_utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"
PICTURE = "docs/open_in_colab.svg"
SETTING = re.compile(r'(?m)^(repository = ")[^"\n]*(")$')
GITHUB = re.compile(
    r"(?:https://(?:[^@/]+@)?github\.com/|git@github\.com:|ssh://git@github\.com(?::22)?/)"
    r"([\w.-]+)/([\w.-]+?)(?:\.git)?/?"
)
BADGE = re.compile(r" \[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)")
ROW = re.compile(r"(?m)^(\| \[\d\d\]\(notebooks/(\d\d_\w+)\.ipynb\))(.*)$")

FIRST_CELL = """\
# @title Google Colab: installs what is missing (elsewhere this cell does nothing)
keep_on_drive = False  # @param {type:"boolean"}
import sys

if "google.colab" in sys.modules:
    import importlib.util
    import subprocess

    if importlib.util.find_spec("course_utils") is None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        done = subprocess.run([*pip, "ARCHIVE"], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError("The course could not be installed.\\n" + done.stderr)
    from course_utils import colab

    colab.prepare(keep_on_drive=keep_on_drive)"""


def repository(root: Path = ROOT) -> str:
    """The address that the setting holds; raises `CourseError` when there is none on GitHub."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return on_github(project.get("tool", {}).get("course", {}).get("repository", ""))


def on_github(address: str) -> str:
    """https://github.com/OWNER/NAME of an address of Git; raises `CourseError` for any other."""
    if found := GITHUB.fullmatch(address.strip()):
        return f"https://github.com/{found[1]}/{found[2]}"
    raise CourseError(
        f"This is not the address of a repository on GitHub: {address!r}. "
        "Colab opens notebooks from there.",
        where="pyproject.toml, [tool.course] repository, or the Git remote origin",
        do='Write repository = "https://github.com/OWNER/NAME".',
    )


def badge(stem: str, address: str, picture: str) -> str:
    """Markdown: a picture with words that opens this notebook on Colab."""
    page = address.replace("https://github.com/", "https://colab.research.google.com/github/")
    return f"[![Open in Colab]({picture})]({page}/blob/{BRANCH}/notebooks/{stem}.ipynb)"


def with_badge(cell: NotebookNode, stem: str, address: str) -> None:
    """Nothing; the notebook's title has the badge under it.

    The picture travels in the cell: a relative path is not found by JupyterLab started elsewhere,
    nor in an exported page, and a picture from the network is none without one.
    """
    name = Path(PICTURE).name
    title, _, rest = cell.source.partition("\n")
    cell.source = f"{title}\n\n{badge(stem, address, f'attachment:{name}')}\n{rest}"
    picture = base64.b64encode((ROOT / PICTURE).read_bytes()).decode()
    cell.attachments = {name: {"image/svg+xml": picture}}


def first_cell(address: str) -> NotebookNode:
    """The hidden cell above all code: on Colab it installs the course, elsewhere it does nothing.

    `cellView` hides its code on Colab, `source_hidden` in JupyterLab.
    """
    source = FIRST_CELL.replace("ARCHIVE", f"{address}/archive/refs/heads/{BRANCH}.zip")
    metadata = {"tags": ["colab"], "cellView": "form", "jupyter": {"source_hidden": True}}
    return nbformat.v4.new_code_cell(source, metadata=metadata, id="google-colab")


def readme(text: str, address: str) -> str:
    """The README with one badge in each row of the syllabus, beside the notebook's number."""
    return ROW.sub(
        lambda row: f"{row[1]} {badge(row[2], address, PICTURE)}{BADGE.sub('', row[3])}", text
    )


def remote(root: Path) -> str | None:
    """The address of the Git remote `origin`; None where there is none, or no Git."""
    command = ["git", "-C", str(root), "config", "--get", "remote.origin.url"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def main(root: Path = ROOT) -> int:
    """The exit code: 1 when neither the remote nor the setting is an address on GitHub."""
    try:
        try:
            address = on_github(remote(root) or "")
        except CourseError:
            address = repository(root)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    write_text(root / "pyproject.toml", SETTING.sub(rf"\g<1>{address}\g<2>", project))
    page = (root / "README.md").read_text(encoding="utf-8")
    write_text(root / "README.md", readme(page, address))
    print(f"Badges open {address}. `make notebooks` puts it into the notebooks.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
