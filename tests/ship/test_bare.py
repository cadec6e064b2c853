"""The bare environment: what pip would install, and not a package more, answers as here."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from course_utils.errors import ModelError, OutputError
from course_utils.ship.bare import bare_python, disk_mb, needed, run_bare
from course_utils.ship.runtime import OnnxClassifier

SHIPPED = ("onnxruntime", "tokenizers", "numpy")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that installs a made-up distribution: its name, requirements, and files."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def made(name, requires=(), files=None, record=True):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
        lines += [f"Requires-Dist: {one}" for one in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        for path, content in (files or {}).items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(content)
        if record:
            names = [*(files or {}), f"{info.name}/METADATA"]
            (info / "RECORD").write_text("".join(f"{path},,\n" for path in names))
        return sum(map(len, (files or {}).values())) + (info / "METADATA").stat().st_size

    return made


# What is needed


def test_requirements_are_followed_to_the_end_and_round_in_circles(install):
    install("made_up.one", ["Made-Up.Two>=1", "made-up-three; python_version >= '3'"])
    install("made_up_two", ["made_up_four[fast]<9"])
    install("made_up_three")
    install("made_up_four", ["made_up_one"])
    everything = ["made-up-four", "made-up-one", "made-up-three", "made-up-two"]
    assert needed(["made_up.one"]) == everything
    assert needed(["Made_Up_Three", "made-up-two"]) == everything
    assert needed(["made_up_three"]) == ["made-up-three"]


def test_what_is_for_other_systems_and_for_extras_is_left_out(install):
    install("made_up_one", ["nobody; sys_platform == 'nowhere'", "no-one; extra == 'tests'"])
    assert needed(["made_up_one"]) == ["made-up-one"]


def test_one_that_is_missing_is_named_with_what_to_do(install):
    install("made_up_one", ["made_up_absent>=2"])
    with pytest.raises(ModelError, match="made-up-absent is not installed") as error:
        needed(["made_up_one"])
    assert error.value.do == "pip install made-up-absent"


def test_what_is_shipped_needs_no_torch():
    small, large = needed(SHIPPED), needed(["torch", "transformers"])
    assert {*SHIPPED, "protobuf", "huggingface-hub"} <= set(small)
    assert not {"torch", "transformers", "safetensors"} & set(small)
    assert {"torch", "transformers", "safetensors", "sympy"} <= set(large)
    assert disk_mb(small) < 0.6 * disk_mb(large)


# How large it is


def test_every_file_counts_but_what_python_compiled(install):
    files = {
        "made_up/__init__.py": "1" * 1000,
        "made_up/data.bin": "2" * 50_000,
        "made_up/__pycache__/__init__.pyc": "3" * 7000,
        "../script": "4" * 300,
    }
    size = install("made_up", files=files)
    other = install("made_up_other", files={"other.py": "5" * 20})
    assert disk_mb(["made_up"]) == pytest.approx((size - 7000) / 1e6)
    assert disk_mb(["made_up", "made_up_other"]) == pytest.approx((size - 7000 + other) / 1e6)


@pytest.mark.parametrize("question", [disk_mb, lambda names: bare_python("nowhere", names)])
def test_one_that_does_not_say_what_is_its_own(question, install):
    install("made_up", record=False)
    with pytest.raises(ModelError, match="which files are its own"):
        question(["made_up"])
    with pytest.raises(ModelError, match="made-up-absent is not installed"):
        question(["made-up-absent"])


# The folder


def forbidden(*arguments, **options):
    raise OSError("no links here")


@pytest.mark.parametrize("links", [True, False])
def test_the_folder_holds_these_and_the_course_and_nothing_else(
    links, install, tmp_path, monkeypatch
):
    install("made_up_one", files={"one/__init__.py": "x = 1", "shared/part/__init__.py": "y = 2"})
    install("made_up_two", files={"two.py": "z = 3", "../script": ""})
    install("made_up_three", files={"shared/other.py": "w = 4", "three.py": ""})
    if not links:
        monkeypatch.setattr(os, "symlink", forbidden)
    folder = bare_python(tmp_path / "bare", ["made_up_one", "made_up_two"])
    infos = {"made_up_one-1.0.dist-info", "made_up_two-1.0.dist-info"}
    assert {path.name for path in folder.iterdir()} == infos | {
        "course_utils",
        "one",
        "shared",
        "two.py",
    }
    assert [path.name for path in (folder / "shared").iterdir()] == ["part"]
    assert (folder / "one").is_symlink() == (folder / "two.py").is_symlink() == links
    program = "import one, two, shared.part as part; print(one.x, part.y, two.z)"
    assert run_bare(folder, program) == "1 2 3\n"
    with pytest.raises(ModelError, match="No module named 'three'"):
        run_bare(folder, "import three")


def test_a_folder_is_made_anew(install, tmp_path):
    install("made_up_one", files={"one.py": ""})
    install("made_up_two", files={"two.py": ""})
    bare_python(tmp_path / "bare", ["made_up_one"])
    bare_python(tmp_path / "bare", ["made_up_two"])
    assert not (tmp_path / "bare" / "one.py").exists()
    assert (tmp_path / "bare" / "two.py").exists()


def test_nothing_else_is_replaced(install, tmp_path):
    install("made_up_one", files={"one.py": ""})
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match=r"thesis\.txt"):
        bare_python(other, ["made_up_one"])
    with pytest.raises(OutputError, match="made from"):
        bare_python(tmp_path / "site", ["made_up_one"])
    assert (other / "thesis.txt").exists()
    assert (tmp_path / "site" / "one.py").exists()


# What runs in it


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return bare_python(tmp_path_factory.mktemp("bare") / "python", needed(SHIPPED))


ANSWER = """
import json, sys
from course_utils.ship.runtime import OnnxClassifier
model = OnnxClassifier({folder!r}, threads=1)
logits = model.predict({texts!r}).tolist()
print(json.dumps([logits, sorted(set(sys.modules) & {{"torch", "transformers", "pandas"}})]))
"""


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_a_shipped_model_answers_as_here(kind, bare, tiny_onnx, some_texts):
    folder = tiny_onnx[kind][0]
    texts = [*some_texts[:8], "naïve “Größe” 汉字"]
    logits, heavy = json.loads(
        run_bare(bare, ANSWER.format(folder=str(folder), texts=texts)),
    )
    here = OnnxClassifier(folder, threads=1).predict(texts)
    assert heavy == []
    np.testing.assert_allclose(logits, here, atol=1e-6)


@pytest.mark.parametrize("module", ["torch", "transformers", "psutil", "pytest"])
def test_what_is_not_named_cannot_be_imported(module, bare, monkeypatch):
    place = os.path.dirname(os.path.dirname(pytest.__file__))
    monkeypatch.setenv("PYTHONPATH", place)
    monkeypatch.chdir(place)  # neither a variable nor the working directory helps
    with pytest.raises(ModelError, match=f"ModuleNotFoundError: No module named '{module}'"):
        run_bare(bare, f"import {module}")


def test_its_last_words_are_told_and_what_it_printed_is_not_mixed_in(bare):
    with pytest.raises(ModelError, match=r"it fails: ValueError: not today") as error:
        run_bare(bare, "print('before')\nraise ValueError('not today')")
    assert error.value.where == bare
    assert run_bare(bare, "import sys; print('é'); print('aside', file=sys.stderr)") == "é\n"
