"""Every slide of every deck, opened in Chromium: it fits, can be read, and needs no network."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from course_utils.errors import CourseError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import build_slides  # noqa: E402 - it lives in tools/, which is no package

pytestmark = pytest.mark.browser

DECKS = build_slides.select([], ROOT / "slides")
FAULTS = Path(__file__).with_name("slide_faults.js").read_text(encoding="utf-8")
QUIET = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--no-first-run"]


@pytest.fixture(scope="module")
def marp() -> Path:
    try:
        return build_slides.install_marp(ROOT / "slides", ROOT / "build")
    except CourseError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def browser():
    # Not for the whole session: its event loop would stand in the way of the notebooks' kernels.
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    binary = build_slides.find_chromium()
    if binary is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=binary, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def built(marp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all decks as HTML."""
    out = tmp_path_factory.mktemp("slides")
    build_slides.build(DECKS, out, pdf=False)
    return out


def faults(browser, path: Path) -> Iterator[str]:
    """Everything that is wrong with a deck, with the number of the slide."""
    page, said = browser.new_page(viewport={"width": 1280, "height": 720}), []
    page.on("console", lambda m: said.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: said.append(f"script: {error}"))
    page.on("request", lambda r: said.append(r.url) if r.url.partition("#")[0] != url else None)
    url = path.as_uri()
    page.goto(url)
    for number in range(1, page.locator("svg[data-marpit-svg]").count() + 1):
        page.evaluate(f"location.hash = '#{number}'")
        page.wait_for_function(
            f"[...document.querySelectorAll('svg[data-marpit-svg]')]"
            f".findIndex(s => s.classList.contains('bespoke-marp-active')) === {number - 1}"
        )
        yield from (f"slide {number}: {fault}" for fault in page.evaluate(FAULTS))
    if page.locator("html").get_attribute("lang") != "en" or not page.title().strip():
        yield "the page has no language or no title"
    yield from (line for line in said if not line.startswith("data:"))
    page.close()


@pytest.mark.parametrize("stem", [path.stem for path in DECKS])
def test_every_slide_fits_and_can_be_read(stem, built, browser):
    assert list(faults(browser, built / f"{stem}.html")) == []


@pytest.mark.parametrize("stem", [path.stem for path in DECKS])
def test_every_figure_and_formula_is_in_the_file(stem, built):
    page = (built / f"{stem}.html").read_text(encoding="utf-8")
    written = (ROOT / "slides" / f"{stem}.md").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == written.count("](cell:")
    formulas = re.findall(r"<mjx-container[^>]*><svg([^>]*)>", page)
    assert formulas
    assert all(re.search(r'aria-label="[^"]+"', formula) for formula in formulas)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
GOOD = f'## A title\n\nWords, `code` and $T^2$\n\n<img alt="a dot" src="{PIXEL}">'
HOSTILE = {
    "overflow": ("## T\n\n" + "- words\n" * 20, "the slide overflows"),
    "wide": ("## T\n\n```python\n" + "x" * 90 + "\n```", "reaches over the margin (right)"),
    "low": ("## T\n\n" + "- words\n" * 11, "reaches over the margin (bottom)"),
    "grey": ("## T\n\nhardly\n\n<style scoped>p { color: #999 }</style>", "“hardly” has a contr"),
    "pale": ("## T\n\nhardly\n\n<style scoped>p { opacity: 0.4 }</style>", "“hardly” has a contr"),
    "shade": ("## T\n\n`hardly`\n\n<style scoped>code { background: #666 }</style>", "“hardly”"),
    "tiny": ("## T\n\nhardly\n\n<style scoped>p { font-size: 9px }</style>", "letters of 9 px"),
    "number": ("## T\n\n<style scoped>section::after { color: #bbb }</style>", "the small print"),
    "silent": (f'## T\n\n<img src="{PIXEL}">', "an image without alternative text"),
    "missing": ('## T\n\n<img alt="it" src="nowhere.png">', "the image “it” is missing"),
    "squeezed": ("## T\n\n" + "- words\n" * 7 + GOOD.split("\n\n")[-1], "px high"),
    "formula": ("## T\n\n$$\\frac{1$$", "a formula is not understood"),
}  # fmt: skip


@pytest.fixture(scope="module")
def convert(marp: Path, tmp_path_factory: pytest.TempPathFactory):
    """A function: the file that Marp makes of some slides that are not checked beforehand."""

    def convert(*slides: str, front: str = 'lang: en\ntitle: "A"', pdf: bool = False) -> Path:
        folder = tmp_path_factory.mktemp("deck")
        (folder / "in").mkdir()
        settings = "marp: true\ntheme: shrinking-bert\npaginate: true\nmath: mathjax"
        text = f"---\n{settings}\n{front}\n---\n\n"
        (folder / "in" / "99_small.md").write_text(text + "\n\n---\n\n".join(slides), "utf-8")
        build_slides.convert(marp, folder / "in", folder, slides=ROOT / "slides", pdf=pdf)
        return folder / f"99_small.{'pdf' if pdf else 'html'}"

    return convert


def test_a_good_slide_has_no_fault(convert, browser):
    assert list(faults(browser, convert(GOOD))) == []


def test_each_fault_is_seen_on_its_slide(convert, browser):
    found = list(faults(browser, convert(*(slide for slide, _ in HOSTILE.values()))))
    for number, (name, (_, words)) in enumerate(HOSTILE.items(), 1):
        assert any(f.startswith(f"slide {number}: ") and words in f for f in found), (name, found)


@pytest.mark.parametrize(
    ("slide", "front", "words"),
    [
        (GOOD, 'title: "A"', "no language or no title"),
        ('<img alt="it" src="http://127.0.0.1:9/it.png">', 'lang: en\ntitle: "A"', ":9/it.png"),
    ],
)
def test_faults_of_the_whole_page(convert, browser, slide, front, words):
    assert any(words in fault for fault in faults(browser, convert(slide, front=front)))


def test_without_a_browser_the_html_is_written_and_the_line_says_why(
    marp, tmp_path, capsys, monkeypatch
):
    (tmp_path / "notebooks").mkdir()
    shutil.copytree(ROOT / "slides", tmp_path / "slides", ignore=shutil.ignore_patterns("*_*.md"))
    for number in ("01", "02"):
        deck = (
            f'---\nmarp: true\nlang: en\ntitle: "{number} · A"\n---\n\n# A\n\n<!-- Minutes: 2 -->'
        )
        (tmp_path / "slides" / f"{number}_a.md").write_text(deck, encoding="utf-8")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "marp").symlink_to(ROOT / "build" / "marp")
    monkeypatch.setattr(build_slides, "find_chromium", lambda: None)
    out = tmp_path / "build" / "slides"
    out.mkdir()
    (out / "02_a.pdf").write_bytes(b"of an older deck")
    assert build_slides.main(["02"], tmp_path) == 0
    assert "no PDF: there is no Chromium here" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["02_a.html", "index.html"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert 'href="02_a.html"' in page
    assert "01 · A" not in page


def test_the_pdf_is_written_by_the_same_browser(convert, browser):
    assert convert(GOOD, pdf=True).read_bytes().startswith(b"%PDF-")
