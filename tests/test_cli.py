"""The commands as a person types them, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMANDS = ("doctor", "run", "distill", "predict", "bench", "fetch", "bundle")


def course(*words, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "course_utils.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"COURSE_PROFILE": "smoke", "HF_HUB_OFFLINE": "1"} | environment,
        check=False,
    )


def test_help_names_every_command():
    done = course("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


def test_progress_says_what_is_next_and_survives_a_broken_file(tmp_path):
    file = tmp_path / "progress.json"
    file.write_text('{"agreement": "ri')
    done = course("progress", COURSE_PROGRESS=str(file), COURSE_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Next: notebook 00, exercise agreement" in done.stdout
    assert done.stdout.startswith("(Your saved progress could not be used. It is damaged.)")
    assert file.read_text() == '{"agreement": "ri'


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["run", "--data", "missing.csv"], {}, "There is no such file"),
        (["run", "--data", "no_such_set"], {}, "No data set 'no_such_set'"),
        (["run", "--data", "reviews", "--text", "words"], {}, "There is no column 'words'"),
        (["run", "--data", "reviews"], {"COURSE_MIRROR": "nowhere"}, "COURSE_MIRROR"),
        (["run", "--data", "reviews"], {"COURSE_PROFILE": "huge"}, "There is no profile 'huge'"),
        (["run", "--data", "reviews", "--seed", "-1"], {}, "Invalid value"),
        (["run", "--data", "reviews", "--pipeline", "int8"], {}, "Add --lab"),
        (["run", "--data", "reviews", "--lab", "--layers", "3"], {}, 'Write --pipeline "layers 3'),
        (["run", "--data", "reviews", "--lab", "--pipeline", "cut"], {}, "no operation 'cut'"),
        (["bundle", "--platforms", "amiga"], {}, "No bundle can be made for 'amiga'"),
        (["bundle", "--check", "nowhere"], {}, "This is not a whole bundle"),
        (["bench", "sleep"], {}, "There is no benchmark 'sleep'"),
        (["distill", "--data", "missing.csv"], {}, "There is no such file"),
        (["distill", "--data", "reviews", "--budget-mb", "0"], {}, "--budget-mb is 0"),
        (["distill"], {}, "Missing option '--data'"),
        (["predict", "no_such_folder", "a text"], {}, "There is no such folder"),
    ],
)
def test_a_mistake_ends_in_words(words, environment, said, tmp_path):
    if words[0] in ("run", "distill", "bundle"):
        words = [*words, "--out", tmp_path / "out"]
    done = course(*words, **environment)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    done = course("run", "--data", "reviews", "--out", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "OutputError" in done.stderr
    assert "what to do" in done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (None, "These settings cannot be read: No such file"),
        ("corpus = pydocs", "These settings are not TOML"),
        ("corpora = 1", "There is no setting `corpora`"),
        ("[recipe]\nsteps = 'many'", "`recipe.steps` is 'many'"),
    ],
)
def test_a_mistake_in_settings_ends_in_words(settings, said, tmp_path):
    file = tmp_path / "run.toml"
    if settings:
        file.write_text(settings)
    done = course("distill-mlm", "--config", file)
    assert done.returncode == 2
    assert "DataError" in done.stderr
    assert said in done.stderr
    assert str(file) in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


def test_the_package_itself_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "course_utils", "distill-mlm", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "--config" in done.stdout


def test_predict_loads_nothing_that_trains():
    """What `course predict` imports, up to the first look at the folder."""
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "course_utils",
            "predict",
            "no_such_folder",
            "x",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"course_utils.ship.predict", "typer"} <= loaded
    heavy = {"torch", "transformers", "datasets", "pandas", "pyarrow", "sklearn", "matplotlib"}
    assert not loaded & heavy
