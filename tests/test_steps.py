"""Steps: done once, done again when something changed, and nothing lost in between."""

import errno
import json
import os
from pathlib import Path

import pytest

from course_utils import files
from course_utils.errors import DataError, OutputError
from course_utils.steps import Steps, is_complete

SETTINGS = {"data": "pydocs", "layers": None, "seed": 0}


class Work:
    """A step's work that counts its calls and can be told to fail half-way."""

    def __init__(self, content: str = "result"):
        self.content, self.calls, self.trouble = content, 0, None

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        assert list(folder.iterdir()) == []
        (folder / "sub").mkdir()
        (folder / "sub" / "first").write_text(self.content)
        if self.trouble:
            raise self.trouble
        (folder / "last").write_text(self.content)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def steps_in(out: Path, **settings) -> Steps:
    return Steps(out, SETTINGS | settings, say=str)


def tree(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.rglob("*"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths if p.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# --- done once ---


def test_a_step_is_done_once(out):
    work, lines = Work(), []
    for _ in range(3):
        folder, key = Steps(out, SETTINGS, say=lines.append).do("teacher", work, task="1", lr=0.1)
    assert work.calls == 1
    assert folder == out / "teacher"
    assert len(key) == 16
    assert (folder / "sub" / "first").read_text() == "result"
    assert lines == ["teacher: working", *["teacher: kept from an earlier run"] * 2]
    assert names(out) == ["run.json", "teacher"]


def test_the_key_depends_on_name_and_inputs_and_not_on_their_order(out):
    steps = steps_in(out)
    keys = [
        steps.do(name, Work(), **inputs)[1]
        for name, inputs in [
            ("a", {"x": 1, "y": 2}),
            ("a", {"y": 2, "x": 1}),
            ("b", {"x": 1, "y": 2}),
            ("a", {"x": 1}),
            ("a", {"x": 1, "y": "2"}),
            ("a", {"x": 1, "y": None}),
        ]
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 5


def test_a_step_is_redone_when_an_input_changes(out):
    steps, old, new = steps_in(out), Work("old"), Work("new")
    steps.do("a", old, seed=0)
    steps.do("b", Work(), seed=0)
    folder, _ = steps.do("a", new, seed=1)
    assert (old.calls, new.calls) == (1, 1)
    assert (folder / "last").read_text() == "new"
    assert names(out) == ["a", "b", "run.json"]
    steps.do("a", new, seed=1)
    assert new.calls == 1


def test_a_step_is_redone_when_the_one_before_it_was(out):
    def run(seed):
        steps = steps_in(out)
        _, teacher_key = steps.do("teacher", teacher, seed=seed)
        steps.do("student", student, teacher=teacher_key)

    teacher, student = Work(), Work()
    run(0)
    run(0)
    run(1)
    assert (teacher.calls, student.calls) == (2, 2)


def cut(folder: Path) -> None:
    (folder / "last").write_text("resul")


def change_a_byte(folder: Path) -> None:
    (folder / "sub" / "first").write_text("rEsult")


def remove(folder: Path) -> None:
    (folder / "last").unlink()


def tear_the_record(folder: Path) -> None:
    record = folder / "step.json"
    record.write_bytes(record.read_bytes()[:20])


def empty_the_record(folder: Path) -> None:
    (folder / "step.json").write_bytes(b"")


def fill_the_record_with_zeros(folder: Path) -> None:
    (folder / "step.json").write_bytes(bytes(100))


def make_the_record_a_list(folder: Path) -> None:
    (folder / "step.json").write_text("[]")


def put_a_folder_for_a_file(folder: Path) -> None:
    (folder / "last").unlink()
    (folder / "last").mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        change_a_byte,
        remove,
        tear_the_record,
        empty_the_record,
        fill_the_record_with_zeros,
        make_the_record_a_list,
        put_a_folder_for_a_file,
    ],
)
def test_a_damaged_step_is_redone(out, damage):
    work = Work()
    folder, key = steps_in(out).do("a", work)
    assert is_complete(folder, key)
    before = tree(out)
    damage(folder)
    assert not is_complete(folder, key)
    assert steps_in(out).do("a", work) == (folder, key)
    assert work.calls == 2
    assert tree(out) == before


def test_the_record_names_every_file(out):
    folder, key = steps_in(out).do("a", Work())
    record = json.loads((folder / "step.json").read_text())
    assert record["key"] == key
    assert sorted(record["files"]) == ["last", "sub/first"]


def test_a_file_in_the_steps_place_is_no_step(out):
    steps_in(out)
    (out / "a").write_text("not a folder")
    folder, _ = steps_in(out).do("a", Work())
    assert (folder / "last").read_text() == "result"


# --- interrupted ---


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), DataError("bad"), MemoryError()])
def test_an_interrupted_step_leaves_nothing_and_the_next_run_goes_on(out, trouble):
    first, second = Work(), Work()
    steps = steps_in(out)
    steps.do("first", first)
    second.trouble = trouble
    with pytest.raises(type(trouble)):
        steps.do("second", second)
    assert names(out) == ["first", "run.json"]

    second.trouble = None
    steps = steps_in(out)
    steps.do("first", first)
    steps.do("second", second)
    assert (first.calls, second.calls) == (1, 2)
    assert names(out) == ["first", "run.json", "second"]


def test_an_earlier_folder_survives_a_failed_redo(out):
    old, new = Work("old"), Work("new")
    folder, old_key = steps_in(out).do("a", old, seed=0)
    before = tree(out)
    new.trouble = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        steps_in(out).do("a", new, seed=1)
    assert tree(out) == before
    assert is_complete(folder, old_key)
    steps_in(out).do("a", old, seed=0)
    assert old.calls == 1


def test_an_interruption_while_hashing_costs_only_this_step(out, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    work = Work()
    with monkeypatch.context() as patch:
        patch.setattr("course_utils.steps.sha256", interrupt)
        with pytest.raises(KeyboardInterrupt):
            steps_in(out).do("a", work)
    assert names(out) == ["run.json"]
    steps_in(out).do("a", work)
    assert work.calls == 2


def test_what_a_killed_run_leaves_is_no_obstacle(out):
    """A process that is killed cannot clean up: temporary names are left, and no run.json."""
    out.mkdir()
    (out / ".run.json-x1y2").write_text("{")
    (out / ".teacher-a1b2").mkdir()
    (out / ".teacher-a1b2" / "model.safetensors").write_text("half")
    work = Work()
    folder, key = steps_in(out).do("teacher", work)
    assert is_complete(folder, key)


# --- whose folder this is ---


def test_other_settings_are_named_and_nothing_is_touched(out):
    steps_in(out).do("a", Work())
    before = tree(out)
    with pytest.raises(OutputError) as error:
        steps_in(out, seed=1, layers=2)
    text = str(error.value)
    assert "layers None there, 2 now" in text
    assert "seed 0 there, 1 now" in text
    assert "data" not in text.splitlines()[0]
    assert "--out" in error.value.do
    assert error.value.where == out
    assert tree(out) == before


def test_settings_of_another_version_are_named(out):
    Steps(out, SETTINGS | {"gone": 1}, say=str)
    with pytest.raises(OutputError, match="gone 1 there, None now"):
        steps_in(out)
    with pytest.raises(OutputError, match="added None there, 'x' now"):
        Steps(out, SETTINGS | {"gone": 1, "added": "x"}, say=str)


def test_the_same_settings_are_the_same_after_json(out):
    for _ in range(2):
        Steps(out, {"shares": (1, 2), "nested": {"a": (3,)}}, say=str)
    with pytest.raises(OutputError, match="shares"):
        Steps(out, {"shares": (1, 3), "nested": {"a": (3,)}}, say=str)


@pytest.mark.parametrize("settings", [None, "", "not JSON", "[1]", "\0\0\0"])
def test_a_foreign_folder_is_left_alone(out, settings):
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    if settings is not None:
        (out / "run.json").write_text(settings)
    before = tree(out)
    with pytest.raises(OutputError, match=r"holds no run(.|\n)*--out"):
        steps_in(out)
    assert tree(out) == before


def test_an_empty_folder_will_do(out):
    out.mkdir()
    (out / ".DS_Store").write_text("")
    steps_in(out)
    assert json.loads((out / "run.json").read_text()) == SETTINGS


# --- places and disks ---


def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match="choose another folder"):
            steps_in(place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.EACCES, "may write to"), (errno.EROFS, "read-only")]
)
def test_a_disk_that_takes_nothing_is_refused_before_any_work(out, monkeypatch, number, advice):
    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match=advice):
        steps_in(out)


def test_a_disk_that_fills_up_in_the_middle_loses_nothing(out):
    first, second = Work(), Work("new")
    steps = steps_in(out)
    steps.do("a", first, seed=0)
    before = tree(out)
    second.trouble = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OutputError, match="Free some space") as error:
        steps.do("a", second, seed=1)
    assert error.value.where == out / "a"
    assert tree(out) == before
    assert names(out) == ["a", "run.json"]

    second.trouble = None
    steps_in(out).do("a", second, seed=1)
    assert (out / "a" / "last").read_text() == "new"


def test_a_disk_that_fills_up_under_the_record_loses_nothing(out, monkeypatch):
    work = Work()
    steps = steps_in(out)
    steps.do("a", work, seed=0)
    before = tree(out)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fdopen", full)
        with pytest.raises(OutputError, match="Free some space"):
            steps.do("a", work, seed=1)
    assert tree(out) == before
