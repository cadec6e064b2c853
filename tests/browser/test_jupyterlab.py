"""The notebooks as a learner has them: JupyterLab in Chromium, moved by its menus and by keys.

Where a widget stands behind minutes of training, only the cells it needs are opened, and a line of
our own stands for the training.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "of-this-test"
PATIENCE = 280  # seconds until a cell must have run, on a machine with much else to do
START = "import warnings"
CELLS = {  # by a line of each; what is in no cell is a cell of our own
    "00_start_here": [
        START,
        "TASK_LABELS = 8",
        "N_TRAIN, N_TEST = ",
        "probes = load_task(",
        "teacher.config.id2label = ",
        "student = student_from_teacher(",
        "signals = teacher_signals(",
        "student_log = train(",
        "teacher_model = TorchClassifier.of(teacher, tokenizer, name='the teacher')\n"
        "student_model = TorchClassifier.of(student, tokenizer, name='the student')",
        "my_sentence = ",
        "type_and_compare([",
    ],
    "01_transformer_basics": [
        START,
        "= recall_puzzles(500",
        "after = Reader(len(TOKENS), 12)(input_ids, mask=library.causal_mask(12))[1]\n"
        "names, best = spelled(input_ids[0]), [0, 0]",
        "viewed = [layer[0]",
        "attention_viewer(viewed",
    ],
    "03_the_distillation_loss": [
        START,
        "teacher = TorchClassifier(",
        "fig = figures.temperature_figure(",
        "figures.temperature_slider(",
        "means = figures.softened(",
    ],
    "08_pruning": [
        START,
        "machine.use_all_cores()",
        "SIZES = {",
        "folder = prepared.pydocs_teacher",
        "at_first = right(teacher)",
        'rankings = {"magnitude": magnitude(teacher), "random": by_chance(teacher, 0)}\n'
        "share_right = lambda model: right(model).mean() / 100",
        "figures.prune_by_slider(",
    ],
}
CODE = "jupyterapp.shell.currentWidget.content.widgets.filter(w => w.model.type === 'code')"
HAS_RUN = f"""() => {CODE}.every(w => w.model.executionCount || !w.model.sharedModel.source)
    && jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"""
IS_READY = """() => window.jupyterapp
    && jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"""
PICTURE, TABLE = ".widget-html img", ".widget-html table"
pytestmark = pytest.mark.browser


def opened(stem: str) -> nbformat.NotebookNode:
    """The cells named above, as they are stored, without outputs, and a page with a link."""
    book = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)
    source, book.cells = book.cells, []
    code = [cell for cell in source if cell.cell_type == "code"]
    for line in CELLS[stem]:
        found = [cell for cell in code if line in cell.source]
        assert len(found) <= 1, f"{stem}: more than one cell has {line!r}"
        [cell] = found or [nbformat.v4.new_code_cell(line)]
        cell.outputs, cell.execution_count = [], None
        book.cells.append(cell)
    if pages := [c for c in source if c.cell_type == "markdown" and "(../docs/" in c.source]:
        book.cells.append(pages[0])
    return book


@pytest.fixture(scope="module")
def taken_port() -> Iterator[int]:
    """A port on which somebody else listens already."""
    with socket.create_server(("localhost", 0)) as other:
        yield other.getsockname()[1]


@pytest.fixture(scope="module")
def server(chromium, taken_port, tmp_path_factory) -> Iterator[str]:
    """The address of a JupyterLab that knows nothing of the person who runs this test."""
    root = tmp_path_factory.mktemp("lab")
    (root / "notebooks").mkdir()
    for stem in CELLS:
        nbformat.write(opened(stem), root / "notebooks" / f"{stem}.ipynb")
    shutil.copytree(ROOT / "docs", root / "docs")
    folders = {f"JUPYTER_{name}_DIR": name.lower() for name in ("CONFIG", "DATA", "RUNTIME")}
    folders |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    folders |= {"IPYTHONDIR": "ipython", "COURSE_PROGRESS": "progress.json"}
    environment = {name: str(root / folder) for name, folder in folders.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--port={taken_port}", f"--IdentityProvider.token={TOKEN}"]
    command += [f"--ServerApp.root_dir={root}", "--expose-app-in-browser"]
    with open(root / "log", "w") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | environment | {"COURSE_PROFILE": "smoke", "HF_HUB_OFFLINE": "1"},
            stdout=log,
            stderr=log,
        )
        try:
            yield address(process, root)
        finally:
            process.terminate()
            process.wait(60)


def address(process: subprocess.Popen, root: Path) -> str:
    """Where the server listens: it writes a file that says so."""
    for _ in range(5 * PATIENCE):
        for file in (root / "runtime").glob("jpserver-*.json"):
            if text := file.read_text(encoding="utf-8"):
                return json.loads(text)["url"]
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise AssertionError((root / "log").read_text(encoding="utf-8"))


class Lab:
    """JupyterLab as a person at the keyboard has it, and what its notebook holds."""

    def __init__(self, page, server: str):
        self.page, self.server = page, server

    def open(self, stem: str) -> None:
        """Nothing; the notebook has a workspace of its own, or the tabs of others would return."""
        place = f"lab/workspaces/{stem}/tree/notebooks/{stem}.ipynb"
        self.page.goto(f"{self.server}{place}?token={TOKEN}")
        self.page.wait_for_function(IS_READY)
        self.page.evaluate("() => jupyterapp.restored.then(() => null)")  # tabs of the last time

    def run_all_by_menu(self) -> None:
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def run_all_by_keys(self) -> None:
        self.page.locator(".jp-Notebook .jp-CodeCell").first.click()
        for _ in range(self.page.evaluate(f"{CODE}.length")):
            self.page.keyboard.press("Shift+Enter")

    def wait(self) -> None:
        """Nothing; every cell has run, and none of them with an error."""
        self.page.wait_for_function(HAS_RUN)
        outputs = self.page.evaluate(f"{CODE}.flatMap(w => w.model.outputs.toJSON())")
        assert [one for one in outputs if one["output_type"] == "error"] == []

    def wait_for_output(self, line: str) -> None:
        """Nothing; the cell with this line has an output, and may still be running."""
        self.page.wait_for_function(
            f"""line => {CODE}.find(w => w.model.sharedModel.source.includes(line))
                .model.outputs.length > 0""",
            arg=line,
        )

    def go_to(self, line: str) -> None:
        """Nothing; scrolls to the cell with this line, for what is far away is not in the page."""
        self.page.evaluate(
            """async line => {
                const book = jupyterapp.shell.currentWidget.content;
                const holds = w => w.model.sharedModel.source.includes(line);
                book.activeCellIndex = book.widgets.findIndex(holds);
                await book.scrollToItem(book.activeCellIndex);
            }""",
            line,
        )

    def type_and_run(self, code: str) -> None:
        """Nothing; a cell below the active one is written and run by keys alone."""
        self.page.locator(".jp-Cell.jp-mod-active .jp-InputPrompt").click()
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("b")
        self.page.keyboard.press("Enter")
        self.page.keyboard.type(code)
        self.page.keyboard.press("Control+Enter")
        self.wait()

    def moved(self, key: str, place: str) -> str:
        """What is at a place after a key has been pressed; waits until it is another than it was.

        A picture's bytes are in the page, so they count.
        """
        before = self.page.locator(place).evaluate("node => node.outerHTML")
        self.page.keyboard.press(key)
        self.page.wait_for_function(
            "([place, was]) => document.querySelector(place).outerHTML !== was",
            arg=[place, before],
        )
        return self.page.locator(place).evaluate("node => node.outerHTML")

    def alt_texts(self) -> list[str | None]:
        """The words of the pictures under cells; cells far out of view are not in the page."""
        pictures = self.page.locator(".jp-OutputArea-output img").all()
        return [one.get_attribute("alt") for one in pictures]


@pytest.fixture
def lab(chromium, server) -> Iterator[Lab]:
    """One window; in the end, nothing may have been complained about in its console."""
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(1000 * PATIENCE)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    yield Lab(page, server)
    page.close()
    assert complaints == []


def test_a_port_that_is_taken_is_passed_over(server, taken_port):
    assert f":{taken_port}/" not in server


def test_notebook_00_runs_shows_a_bar_and_answers_what_is_typed(lab):
    lab.open("00_start_here")
    lab.run_all_by_menu()
    lab.wait_for_output("student_log = train(")
    lab.go_to("student_log = train(")
    lab.page.locator(".jp-mod-active .widget-hprogress").wait_for()
    assert "training" in lab.page.locator(".jp-mod-active .jp-OutputArea").inner_text()
    lab.wait()
    lab.go_to("type_and_compare(")
    lab.page.get_by_role("textbox", name="text").focus()
    lab.page.keyboard.press("Control+A")
    lab.page.keyboard.type("Plot a line in red.")
    assert "What each model says: the teacher " in lab.moved("Enter", PICTURE)
    assert len(alt_texts := lab.alt_texts()) >= 2
    assert all(alt_texts)


def test_notebook_01_follows_layer_head_and_token_by_arrow_keys(lab):
    lab.open("01_transformer_basics")
    lab.run_all_by_keys()
    lab.wait()
    lab.go_to("attention_viewer(")
    for number, wanted in enumerate(("layer 0, head 0. Token 8", "head 1. ", "Token 9")):
        lab.page.get_by_role("slider").nth(number).focus()
        assert wanted in lab.moved("ArrowLeft" if number == 0 else "ArrowRight", PICTURE)
    lab.go_to("viewed = [")
    assert len(alt_texts := lab.alt_texts()) >= 2
    assert all(alt_texts)


def test_notebook_03_changes_its_temperature_and_shows_the_page_of_progress(lab):
    lab.open("03_the_distillation_loss")
    lab.run_all_by_keys()
    lab.wait()
    lab.go_to("figures.temperature_slider(")
    lab.page.get_by_role("slider").focus()
    assert "At T = 2.07, " in lab.moved("ArrowRight", PICTURE)
    assert "At T = 20, " in lab.moved("End", PICTURE)
    assert len(alt_texts := lab.alt_texts()) >= 2
    assert all(alt_texts)
    lab.go_to("means = ")
    page = lab.page.locator(".jp-mod-active .jp-OutputArea")
    lab.type_and_run('quiz.why_not_half("b")')
    assert "✓ b is right." in page.inner_text()
    lab.type_and_run("from course_utils.classroom.progress import progress; progress()")
    assert page.get_by_role("row", name="00 start here 0/1 1/3").is_visible()
    assert page.locator("pre").count() == 0  # the text twin stays out of sight
    page.get_by_role("link", name="Next: notebook 00, exercise agreement").click()
    lab.page.get_by_role("tab", name="00_start_here.ipynb").wait_for()


def test_a_link_out_of_the_notebooks_opens_its_page(lab):
    """The server's folder must be the course's, or what is beside the notebooks is out of reach."""
    lab.open("03_the_distillation_loss")
    lab.page.locator(".jp-RenderedMarkdown a").filter(visible=True).first.click()
    # On a busy machine the notebook may be brought to the front once more: a person takes the tab.
    lab.page.get_by_role("tab", name="glossary.md").click()
    lab.page.locator(".jp-MarkdownViewer h2").first.wait_for()  # as a page, not as its source
    assert "--ServerApp.root_dir=. notebooks/" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_notebook_08_prunes_by_arrow_keys(lab):
    lab.open("08_pruning")
    lab.run_all_by_keys()
    lab.wait()
    lab.go_to("figures.prune_by_slider(")
    heads, neurons = lab.page.get_by_role("slider").all()
    heads.focus()
    lab.moved("End", TABLE)
    neurons.focus()
    assert "parameters of the encoder" in lab.moved("End", TABLE)


def test_without_chromium_the_reason_is_given(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-k", "notebook_03", __file__],
        env=os.environ | {"PATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "there is no Chromium on the PATH" in done.stdout
