"""Builds build/slides/NN_name.html and .pdf from slides/NN_name.md and the stored notebooks.

    python tools/build_slides.py               all decks
    python tools/build_slides.py 03            one of them
    python tools/build_slides.py --no-pdf      without the PDFs, which need a browser

It needs node and npm; Marp is installed under build/ the first time.
"""

from __future__ import annotations

import argparse
import html
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from choosing import choose
from deck import Deck, read_deck
from deck_markdown import expand

from course_utils.errors import CourseError
from course_utils.files import check_writable, new_folder, write_text

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Without a network it shall say so in seconds: npm itself would try for minutes.
NPM = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
NPM += ["--fetch-retries=2", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000"]
PINNED = ("package.json", "package-lock.json")


def select(names: Sequence[str], folder: Path) -> list[Path]:
    """The decks of these numbers or names in `folder`; see `choose`."""
    return choose(names, sorted(folder.glob("[0-9][0-9]_*.md")), kind="deck")


def find_chromium() -> str | None:
    """The browser that prints the PDFs and runs the tests: CHROME_PATH, or the first on PATH."""
    named = os.environ.get("CHROME_PATH")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


def install_marp(slides: Path, build: Path) -> Path:
    """The path of the program `marp`, in the version that slides/package-lock.json pins.

    It is installed into build/marp when it is not there yet. Raises `CourseError` when node or npm
    is missing, or when npm fails.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise CourseError(
                f"{program} is missing; slides are made by Marp, a program for node.",
                do="Install node 18 or newer with npm: https://nodejs.org, or `apt install npm`.",
            )
    marp = build / "marp" / "node_modules" / ".bin" / "marp"
    pins = {name: (slides / name).read_bytes() for name in PINNED}
    there = {name: build / "marp" / name for name in PINNED}
    if marp.exists() and all(there[name].read_bytes() == pins[name] for name in PINNED):
        return marp
    print("installing Marp into build/marp, once …", flush=True)
    with new_folder(build / "marp") as work:
        for name in PINNED:
            (work / name).write_bytes(pins[name])
        done = subprocess.run(NPM, cwd=work, capture_output=True, text=True)
        if done.returncode:
            raise CourseError(
                f"npm could not install Marp.\n\n{done.stderr.strip()}\n",
                do="It needs the network once; after that, slides are built without it.",
            )
    return marp


def convert(marp: Path, source: Path, out: Path, *, slides: Path, pdf: bool) -> None:
    """Nothing; every deck in the folder `source` is written to `out` as HTML, or as PDF.

    Raises `CourseError` with Marp's own words when it fails.
    """
    command = [str(marp), "--no-stdin", "--input-dir", str(source), "--output", str(out)]
    command += ["--config-file", str(slides / "marp.config.mjs"), "--theme-set", str(slides)]
    command += ["--pdf", "--pdf-outlines", "--pdf-outlines.pages=false"] if pdf else []
    environment = dict(os.environ)
    if pdf:
        environment["CHROME_PATH"] = find_chromium() or ""
        if os.geteuid() == 0:  # Chromium's sandbox refuses to run as root
            environment["CHROME_NO_SANDBOX"] = "1"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise CourseError(f"Marp failed.\n\n{done.stdout}{done.stderr}".rstrip() + "\n")


def build(decks: Sequence[Path], out: Path, *, pdf: bool, root: Path = ROOT) -> list[Deck]:
    """The decks that were written to `out`, each as one HTML file and, with `pdf`, one PDF.

    Nothing is written when a deck is wrong; the HTML stays when the browser fails at the PDF.
    Raises `CourseError`.
    """
    slides = root / "slides"
    read = [read_deck(path) for path in decks]
    expanded = [expand(deck, root / "notebooks") for deck in read]
    check_writable(out)
    marp = install_marp(slides, root / "build")
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "source", Path(folder) / "made"
        source.mkdir()
        for deck, text in zip(read, expanded, strict=True):
            (source / deck.path.name).write_text(text, encoding="utf-8")
            (out / deck.path.with_suffix(".pdf").name).unlink(missing_ok=True)  # of an older deck
        for as_pdf in (False, True) if pdf else (False,):
            convert(marp, source, made, slides=slides, pdf=as_pdf)
            for file in sorted(made.iterdir()):
                shutil.move(file, out / file.name)
    return read


def in_words(deck: Deck) -> str:
    """How long a deck takes: "32 minutes and 12 for exercises"."""
    talk, work = (f"{deck.minutes(exercises=exercises):g}" for exercises in (False, True))
    return f"{talk} minutes and {work} for exercises"


def index(decks: Sequence[Deck], out: Path) -> str:
    """A page in HTML that leads to the files of these decks in `out`."""
    rows = []
    for deck in decks:
        links = " · ".join(
            f'<a href="{deck.path.stem}.{kind}">{kind.upper()}</a>'
            for kind in ("html", "pdf")
            if (out / f"{deck.path.stem}.{kind}").exists()
        )
        rows.append(
            f"<tr><td>{html.escape(deck.title)}</td><td>{len(deck.slides)}</td>"
            f"<td>{in_words(deck)}</td><td>{links}</td></tr>"
        )
    return PAGE.replace("ROWS", "\n".join(rows))


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Shrinking BERT: slides</title>
<style>
body { font: 18px/1.5 "DejaVu Sans", "Liberation Sans", Arial, sans-serif; color: #1a1a1a;
  max-width: 50em; margin: 2em auto; padding: 0 1em; }
td, th { text-align: left; padding: 0.3em 1.5em 0.3em 0; }
a { color: #00588a; }
</style>
</head>
<body>
<h1>Shrinking BERT: slides</h1>
<p>Open a deck and press <kbd>f</kbd> for the full screen, <kbd>p</kbd> for the speaker's view with
the notes. The arrow keys turn the pages.</p>
<table>
<thead><tr><th>Deck</th><th>Slides</th><th>Takes</th><th></th></tr></thead>
<tbody>
ROWS
</tbody>
</table>
</body>
</html>
"""


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """The exit code: 0, or 1 when a deck could not be built."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="number or name of a deck (default: all)")
    parser.add_argument("--out", type=Path, help="folder to write to (default: build/slides/)")
    parser.add_argument("--no-pdf", action="store_true", help="HTML only; no browser is needed")
    options = parser.parse_args(arguments)
    out = options.out or root / "build" / "slides"
    pdf = not options.no_pdf and find_chromium() is not None
    try:
        decks = select(options.names, root / "slides")
        for deck in build(decks, out, pdf=pdf, root=root):
            print(f"{deck.title}: {len(deck.slides)} slides, {in_words(deck)}")
        there = [p for p in select([], root / "slides") if (out / f"{p.stem}.html").exists()]
        write_text(out / "index.html", index([read_deck(path) for path in there], out))
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"written to {out}")
    if not pdf and not options.no_pdf:
        print("no PDF: there is no Chromium here (`apt install chromium`, or set CHROME_PATH)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
