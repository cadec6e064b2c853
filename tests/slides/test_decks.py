"""Every deck is whole; and each rule, each directive and each error on decks made up here."""

import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

from course_utils.errors import CourseError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import build_slides  # noqa: E402 - it lives in tools/, which is no package
import notebook_cells  # noqa: E402
from deck import read_deck  # noqa: E402
from deck_markdown import expand, source_of  # noqa: E402
from deck_rules import FRONT, ROLES, problems  # noqa: E402

NOTEBOOKS = ROOT / "notebooks"
STEMS = sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.ipynb"))
DECKS = ROOT / "slides"


@pytest.mark.parametrize("stem", STEMS)
def test_every_notebook_has_a_deck_that_is_as_it_should_be(stem):
    deck = read_deck(DECKS / f"{stem}.md")
    print(f"{deck.title}: {len(deck.slides)} slides, {build_slides.in_words(deck)}")
    assert problems(deck, NOTEBOOKS) == []


def test_every_deck_belongs_to_a_notebook():
    assert [path.stem for path in build_slides.select([], DECKS)] == STEMS


PNG = "iVBORw0KGgo="


def picture(alt):
    return nbformat.v4.new_output(
        "display_data",
        {"image/png": PNG + "\n", "text/plain": alt},
        metadata={"image/png": {"alt": alt}},
    )


def print_of(text):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def value(text):
    return nbformat.v4.new_output("execute_result", {"text/plain": text}, execution_count=1)


@pytest.fixture
def notebooks(tmp_path):
    """A folder with the notebooks 03 and 02, each with some tagged cells."""

    def cell(source, tag, *outputs):
        return nbformat.v4.new_code_cell(source, metadata={"tags": [tag]}, outputs=list(outputs))

    first = [
        nbformat.v4.new_markdown_cell("# words", metadata={"tags": ["slide-words"]}),
        cell("draw()\n", "slide-two", picture("the first"), picture('On the left: [a], "b" & <c>')),
        cell("print(1)", "slide-prints", print_of("\x1b[31mone\x1b[0m\n"), value("42")),
        cell("x = 1", "slide-silent"),
        cell("mute()", "slide-mute", picture(" ")),
        cell("a", "slide-twice"),
        cell("b", "slide-twice"),
        cell("c", "nbval-ignore-output"),
    ]
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for stem, cells in {
        "03_small": first,
        "02_other": [cell("o()", "slide-far", picture("far"))],
    }.items():
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{stem}.ipynb")
    return folder


class TestCells:
    def test_the_last_figure_and_its_words(self, notebooks):
        found = notebook_cells.figure(notebooks / "03_small.ipynb", "two")
        assert (found.png, found.alt) == (PNG, 'On the left: [a], "b" & <c>')

    def test_what_was_printed_and_the_value(self, notebooks):
        assert notebook_cells.printed(notebooks / "03_small.ipynb", "prints") == "one\n42"

    def test_the_code(self, notebooks):
        assert notebook_cells.code(notebooks / "03_small.ipynb", "two") == "draw()"

    @pytest.mark.parametrize(
        ("take", "name", "words"),
        [
            ("figure", "nothing", "No code cell has the tag slide-nothing; there are: two, prints"),
            ("figure", "words", "No code cell has the tag slide-words"),
            ("figure", "twice", "2 cells have the tag slide-twice"),
            ("figure", "silent", "The cell slide-silent shows no figure"),
            ("figure", "mute", "slide-mute has no alternative text"),
            ("printed", "silent", "The cell slide-silent printed nothing"),
            ("printed", "mute", "The cell slide-mute printed nothing"),
        ],
    )
    def test_what_is_not_there(self, notebooks, take, name, words):
        with pytest.raises(CourseError, match=re.escape(words)) as caught:
            getattr(notebook_cells, take)(notebooks / "03_small.ipynb", name)
        assert caught.value.where == "03_small.ipynb"
        assert caught.value.do

    def test_a_notebook_that_is_not_there(self, notebooks):
        with pytest.raises(CourseError, match="no notebook 07") as caught:
            notebook_cells.find_notebook("07", notebooks)
        assert "02, 03" in caught.value.do

    def test_one_that_cannot_be_read(self, notebooks):
        (notebooks / "03_small.ipynb").write_text("torn", encoding="utf-8")
        with pytest.raises(CourseError, match="cannot be read"):
            notebook_cells.code(notebooks / "03_small.ipynb", "two")


FRONT_MATTER = "\n".join(f"{key}: {value}" for key, value in FRONT.items())


def deck_of(tmp_path, *slides, front=FRONT_MATTER + '\ntitle: "03 · Small"', name="03_small"):
    path = tmp_path / f"{name}.md"
    path.write_text(f"---\n{front}\n---\n\n" + "\n\n---\n\n".join(slides), encoding="utf-8")
    return read_deck(path)


class TestReading:
    def test_role_minutes_notes_title(self, tmp_path):
        deck = deck_of(
            tmp_path,
            "<!-- _class: demo -->\n\n## What?\n\n```python\n# no title\n```\n\n"
            "<!--\nMinutes: 1.5\nSay this.\n-->",
            "Words <!-- Minutes: two -->",
        )
        first, second = deck.slides
        assert (first.role, first.minutes, first.title) == ("demo", 1.5, "What?")
        assert first.notes == ["Minutes: 1.5\nSay this."]
        assert (second.role, second.minutes, second.title) == (None, None, "")
        assert (deck.number, deck.title) == ("03", "03 · Small")

    def test_minutes_are_counted_apart_from_those_of_exercises(self, tmp_path):
        deck = deck_of(
            tmp_path,
            "# A\n\n<!-- Minutes: 1.5 -->",
            "<!-- _class: exercise -->\n\n# B\n\n<!-- Minutes: 10 -->",
            "# C\n\n<!-- Minutes: 2 -->",
        )
        assert build_slides.in_words(deck) == "3.5 minutes and 10 for exercises"

    def test_no_front_matter(self, tmp_path):
        (tmp_path / "03_x.md").write_text("# A title", encoding="utf-8")
        with pytest.raises(CourseError, match="no front matter"):
            read_deck(tmp_path / "03_x.md")

    def test_a_rule_that_markdown_takes_for_a_heading(self, tmp_path):
        with pytest.raises(CourseError, match="follows “Words”"):
            deck_of(tmp_path, "# A\n\nWords\n---\n# B")


class TestExpansion:
    def expanded(self, tmp_path, notebooks, slide):
        return expand(deck_of(tmp_path, "# First", slide), notebooks)

    def test_a_figure_with_the_notebooks_words(self, tmp_path, notebooks):
        text = self.expanded(tmp_path, notebooks, "# A\n\n![](cell:two)\n")
        assert 'alt="On the left: [a], &quot;b&quot; &amp; &lt;c&gt;"' in text
        assert f'src="data:image/png;base64,{PNG}"' in text

    def test_a_figure_of_another_notebook(self, tmp_path, notebooks):
        assert '<img alt="far"' in self.expanded(tmp_path, notebooks, "![](cell:02/far)")

    def test_what_a_cell_printed(self, tmp_path, notebooks):
        text = self.expanded(tmp_path, notebooks, "# A\n\n```output prints\n```\n")
        assert "```text\none\n42\n```" in text

    def test_the_code_of_a_cell_and_of_the_library(self, tmp_path, notebooks):
        text = self.expanded(tmp_path, notebooks, "```cell two\n```\n")
        assert "```python\ndraw()\n```" in text
        text = self.expanded(
            tmp_path, notebooks, "```source course_utils.classroom.hand.near\n```\n"
        )
        assert "```python\ndef near(" in text
        assert '"""' not in text

    def test_code_that_is_written_out_stays(self, tmp_path, notebooks):
        code = "```python\nprint('![](cell:none)')\n```"
        assert code in self.expanded(tmp_path, notebooks, code)

    def test_long_printed_lines_are_broken(self, tmp_path, notebooks):
        path = notebooks / "03_small.ipynb"
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[2].outputs = [print_of("  " + "word " * 40)]
        nbformat.write(notebook, path)
        text = self.expanded(tmp_path, notebooks, "```output prints\n```\n")
        lines = re.search(r"```text\n(.*?)\n```", text, flags=re.DOTALL)[1].splitlines()
        assert len(lines) == 3
        assert all(line.startswith("  ") and len(line) <= 96 for line in lines)

    def test_code_is_as_large_as_fits(self, tmp_path, notebooks):
        def size(lines, columns):
            code = "\n".join(["x" * columns] * lines)
            text = self.expanded(tmp_path, notebooks, f"# A\n\n```python\n{code}\n```\n")
            return int(re.search(r"pre \{ font-size: (\d+)px", text)[1])

        assert size(3, 20) == 34
        assert size(1, 0) == 34
        assert 14 <= size(20, 40) < 34
        assert 14 <= size(3, 110) < 34
        for lines, columns in ((50, 20), (3, 200)):
            with pytest.raises(CourseError, match="too large for"):
                size(lines, columns)

    @pytest.mark.parametrize(
        ("slide", "words"),
        [
            ("![](cell:gone)", "No code cell has the tag slide-gone"),
            ("![](cell:07/two)", "There is no notebook 07"),
            ("![](picture.png)", "is not a figure of a notebook"),
            ("![bg right](cell:two)", "is not a figure of a notebook"),
            ("```outputs prints\n```\n", "```outputs prints is not known"),
            ("```output\n```\n", "```output is not known"),
            ("```output prints\n42\n```\n", "is not empty"),
            ("```output prints\n", "is not closed"),
            ("- a list\n\n  ```output prints\n  ```\n", "does not begin at the left margin"),
            ("```source course_utils.nowhere\n```\n", "no Python source of course_utils.nowhere"),
            ("```source nowhere.at.all\n```\n", "no Python source of nowhere.at.all"),
            ("```source ..\n```\n", "no Python source of .."),
            ("```source math.pi\n```\n", "no Python source of math.pi"),
        ],
    )
    def test_an_error_names_deck_and_slide(self, tmp_path, notebooks, slide, words):
        with pytest.raises(CourseError, match=re.escape(words)) as caught:
            self.expanded(tmp_path, notebooks, slide)
        assert caught.value.where.startswith("03_small.md, slide 2")
        assert caught.value.do

    def test_a_method_and_a_class(self):
        assert source_of("course_utils.classroom.checks.Exercise.judge").startswith("def judge(")
        code = source_of("course_utils.classroom.checks.Mistake")
        assert code.startswith("@dataclass")
        assert '"""' not in code


class TestRules:
    def slide(self, role, body="", minutes=2):
        notes = f"<!--\nMinutes: {minutes}\nSay what they see, and ask the room.\n-->"
        level = "#" if role == "title" else "##"
        return f"<!-- _class: {role} -->\n\n{level} Why is it so?\n\n{body}\n\n{notes}"

    @pytest.fixture
    def slides(self):
        bodies = {"exercise": "Write it: `check.soften(soften)`", "picture": "![](cell:two)"}
        return [self.slide(role, bodies.get(role, "")) for role in (*ROLES, *ROLES)]

    @pytest.fixture
    def found(self, tmp_path, notebooks):
        return lambda slides, **more: problems(deck_of(tmp_path, *slides, **more), notebooks)

    def test_a_good_one_has_none(self, found, slides):
        assert found(slides) == []

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda s: s[:7] + s[:4], "it has 11 slides"),
            (lambda s: s[:7] * 3, "it has 21 slides"),
            (lambda s: [x.replace("Minutes: 2", "Minutes: 1") for x in s], "it takes 12 minutes"),
            (lambda s: [x.replace("formula", "demo") for x in s], "no slide is a formula"),
            (lambda s: [s[0].replace("title", "tilte"), *s[1:]], "slide 1: there is no role tilte"),
            (lambda s: [s[0].replace("# Why", "Why"), *s[1:]], "slide 1: it has no title"),
            (lambda s: [s[0].replace("# Why", "### Why"), *s[1:]], "slide 1: its title is not a"),
            (lambda s: [s[0], s[1].replace("## Why", "# Why"), *s[2:]], "slide 2: its title is"),
            (lambda s: [s[0].replace("Minutes", "Time"), *s[1:]], "slide 1: its notes do not"),
            (lambda s: [s[0].replace("Say what they see, and", ""), *s[1:]], "nothing but the min"),
            (lambda s: [s[0] + "\n<!-- more -->", *s[1:]], "slide 1: it has more than one comment"),
            (lambda s: [s[0] + "\n<b>bold</b>", *s[1:]], "slide 1: it holds HTML: <b>"),
            (lambda s: [s[0] + "\nword" * 60, *s[1:]], "slide 1: it has 64 words"),
            (lambda s: [s[0] + "\n![](cell:gone)", *s[1:]], "slide-gone"),
            (lambda s: [x.replace("check.soften", "it") for x in s], "slide 6: an exercise names"),
            (lambda s: [x.replace("check.soften", "check.agreement") for x in s], "check.soften"),
        ],
    )  # fmt: skip
    def test_each_rule_finds_its_fault(self, found, slides, change, words):
        assert any(words in problem for problem in found(change(slides)))

    @pytest.mark.parametrize("key", [*FRONT, "title"])
    def test_front_matter(self, found, slides, key):
        front = FRONT_MATTER + '\ntitle: "03 · Small"'
        broken = re.sub(rf"^{key}: .*$", f"{key}: other", front, flags=re.MULTILINE)
        assert [p for p in found(slides, front=broken) if f"`{key}: " in p]

    def test_a_deck_without_its_notebook(self, found, slides):
        assert "there is no notebook of the same name" in found(slides, name="03_other")


class TestCommand:
    """Without Marp: node is hidden, or the deck is wrong before it would be asked."""

    @pytest.fixture
    def root(self, tmp_path, notebooks):
        (tmp_path / "slides").mkdir()
        for name in build_slides.PINNED:
            shutil.copy(DECKS / name, tmp_path / "slides")
        deck_of(tmp_path / "slides", "# One\n\n<!-- Minutes: 2 -->")
        return tmp_path

    def test_an_unknown_deck_lists_those_there_are(self, root, capsys):
        assert build_slides.main(["07"], root) == 1
        assert "Use one of: 03_small." in capsys.readouterr().err

    def test_without_node_it_says_what_to_install(self, root, capsys, monkeypatch):
        monkeypatch.setenv("PATH", "")
        assert build_slides.main(["03", "--no-pdf"], root) == 1
        said = capsys.readouterr().err
        assert "node is missing" in said
        assert "npm" in said
        assert not list(root.rglob("*.html"))

    def test_a_failing_npm_leaves_nothing_half_installed(self, root, capsys, monkeypatch):
        (root / "bin").mkdir()
        for name in ("node", "npm"):
            program = root / "bin" / name
            program.write_text("#!/bin/sh\necho no network >&2\nexit 1\n", encoding="utf-8")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(root / "bin"))
        assert build_slides.main(["03"], root) == 1
        said = capsys.readouterr().err
        assert "npm could not install Marp" in said
        assert "no network" in said
        assert not (root / "build" / "marp").exists()

    def test_the_lock_names_no_registry(self):
        lock = (DECKS / "package-lock.json").read_text(encoding="utf-8")
        assert '"resolved"' not in lock
        assert lock.count('"integrity"') > 100
