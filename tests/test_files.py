"""Writing that loses nothing, and errors that say what, where and what to do."""

import errno
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file

from course_utils import files
from course_utils.errors import CourseError, DataError, ModelError, OutputError
from course_utils.files import check_writable, new_folder, sha256, write_bytes, write_text
from course_utils.steps import Steps

EVERYTHING = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "quota",
    errno.EACCES: "Choose a folder you may write to",
    errno.EPERM: "Choose a folder you may write to",
    errno.EROFS: "read-only",
    errno.EFBIG: "choose another folder",
}


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, with its content."""
    paths = sorted(folder.rglob("*"))
    return {p.relative_to(folder).as_posix(): p.read_text() for p in paths if p.is_file()}


def failing(number: int):
    def fail(*_args, **_options):
        raise OSError(number, os.strerror(number))

    return fail


def fill_half_and_raise(folder: Path, error: BaseException | type[BaseException]) -> None:
    write_text(folder / "new", "half")
    raise error


# --- errors ---


def test_an_error_says_what_where_and_what_to_do():
    error = DataError("It broke.", where=Path("a.tsv"), do="Mend it.")
    assert str(error) == "It broke.\n  where: a.tsv\n  what to do: Mend it."
    assert str(DataError("It broke.")) == "It broke."
    assert (error.what, error.where, error.do) == ("It broke.", Path("a.tsv"), "Mend it.")


@pytest.mark.parametrize("kind", [DataError, ModelError, OutputError])
def test_every_kind_is_a_course_error(kind):
    assert issubclass(kind, CourseError)
    with pytest.raises(CourseError, match="words"):
        raise kind("words")


def test_an_error_survives_the_way_from_another_process():
    error = pickle.loads(pickle.dumps(ModelError("It broke.", where="here", do="Mend it.")))
    assert (type(error), str(error)) == (
        ModelError,
        "It broke.\n  where: here\n  what to do: Mend it.",
    )
    assert error.do == "Mend it."


def test_a_notebook_shows_the_words_and_no_traceback():
    from IPython.core.interactiveshell import InteractiveShell

    shown = []
    shell = InteractiveShell()
    shell._showtraceback = lambda kind, value, lines: shown.extend(lines)
    shell.run_cell(
        "from course_utils.errors import DataError\nraise DataError('It broke.', do='Mend it.')"
    )
    assert shown == ["DataError: It broke.", "  what to do: Mend it."]


def test_errors_and_files_load_nothing_heavy():
    code = "import course_utils.files, sys; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- one file in one step ---


def test_a_file_is_written_with_its_folders(tmp_path):
    file = write_text(tmp_path / "a" / "b" / "ü.txt", "你好 ½\n")
    assert file.read_bytes() == "你好 ½\n".encode()
    assert os.listdir(file.parent) == ["ü.txt"]
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_file_is_replaced_as_a_whole(tmp_path):
    write_bytes(tmp_path / "a", b"long and old")
    assert write_bytes(tmp_path / "a", b"new").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("moment", ["fdopen", "chmod", "replace"])
@pytest.mark.parametrize("number", EVERYTHING)
def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, moment, number):
    file = write_text(tmp_path / "a", "old")
    monkeypatch.setattr(files.os, moment, failing(number))
    with pytest.raises(OutputError, match=EVERYTHING[number]) as error:
        write_text(file, "new")
    assert error.value.where == file
    assert os.strerror(number) in str(error.value)
    assert tree(tmp_path) == {"a": "old"}


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = write_text(tmp_path / "a", "old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(file, "new")
    assert tree(tmp_path) == {"a": "old"}


def test_other_errors_are_not_dressed_up(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "replace", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        write_text(tmp_path / "a", "new")
    assert tree(tmp_path) == {}


# --- a place that cannot be written to ---


def below_a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file" / "sub"


def at_a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file"


def too_long(tmp_path: Path) -> Path:
    return tmp_path / ("long" * 100)


def at_a_loose_link(tmp_path: Path) -> Path:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    return tmp_path / "link"


@pytest.mark.parametrize("place", [below_a_file, at_a_file, too_long, at_a_loose_link])
def test_a_folder_that_cannot_be(tmp_path, place):
    folder = place(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=r"what to do: .*[Cc]hoose") as error:
        check_writable(folder)
    assert error.value.where == folder
    assert tree(tmp_path) == before


@pytest.mark.parametrize("place", [below_a_file, too_long])
def test_nothing_is_written_where_nothing_can_be(tmp_path, place):
    folder = place(tmp_path)
    with pytest.raises(OutputError):
        write_text(folder / "a", "new")
    with pytest.raises(OutputError), new_folder(folder / "a"):
        pytest.fail("the block must not be entered")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_must_not_be_written_to(tmp_path, monkeypatch, number):
    monkeypatch.setattr(files.tempfile, "TemporaryFile", failing(number))
    with pytest.raises(OutputError, match=EVERYTHING[number]):
        check_writable(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="may write to"):
        check_writable(tmp_path / "locked")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux has a folder that takes none")
def test_a_place_that_takes_no_folders():
    with pytest.raises(OutputError, match="Could not write here"):
        check_writable("/proc/no-such-folder")


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    folder = check_writable(str(tmp_path / "a" / "b"))
    assert (folder, os.listdir(folder)) == (tmp_path / "a" / "b", [])
    write_text(folder / "mine", "mine")
    assert check_writable(folder) == folder
    assert tree(folder) == {"mine": "mine"}


# --- a folder in one step ---


def test_a_new_folder_takes_its_name_at_the_end(tmp_path):
    with new_folder(tmp_path / "runs" / "a") as work:
        write_text(work / "sub" / "file", "new")
        assert not (tmp_path / "runs" / "a").exists()
    assert tree(tmp_path) == {"runs/a/sub/file": "new"}
    assert os.listdir(tmp_path / "runs") == ["a"]
    assert (tmp_path / "runs" / "a").stat().st_mode & 0o777 == 0o755


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    write_text(tmp_path / "a" / "old", "old")
    with new_folder(tmp_path / "a") as work:
        write_text(work / "new", "new")
        assert tree(tmp_path / "a") == {"old": "old"}
    assert tree(tmp_path) == {"a/new": "new"}
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_an_error_leaves_the_old_folder_alone(tmp_path, error):
    write_text(tmp_path / "a" / "old", "old")
    with pytest.raises(error), new_folder(tmp_path / "a") as work:
        fill_half_and_raise(work, error)
    assert tree(tmp_path) == {"a/old": "old"}
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("number", EVERYTHING)
def test_a_system_error_in_the_block_is_explained(tmp_path, number):
    write_text(tmp_path / "a" / "old", "old")
    with pytest.raises(OutputError, match=EVERYTHING[number]), new_folder(tmp_path / "a") as work:
        fill_half_and_raise(work, OSError(number, os.strerror(number)))
    assert tree(tmp_path) == {"a/old": "old"}


def test_a_file_that_was_not_found_is_no_trouble_with_writing(tmp_path):
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "a"):
        (tmp_path / "nothing").read_text()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("renames", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
def test_trouble_while_changing_places_brings_the_old_folder_back(
    tmp_path, monkeypatch, renames, error
):
    write_text(tmp_path / "a" / "old", "old")
    done = []
    rename = os.rename

    def fail_once(source, target):
        done.append(source)
        if len(done) == renames:
            raise error
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", fail_once)
    with pytest.raises((KeyboardInterrupt, OutputError)), new_folder(tmp_path / "a") as work:
        write_text(work / "new", "new")
    assert tree(tmp_path) == {"a/old": "old"}
    assert os.listdir(tmp_path) == ["a"]


# --- a disk that is full ---


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not mount or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def weights(folder: Path) -> None:
    save_file({"w": torch.ones(1_000_000)}, folder / "model.safetensors")


def rows(folder: Path) -> None:
    Dataset.from_dict({"n": list(range(300_000))}).save_to_disk(folder)


def one_file(folder: Path) -> None:
    write_bytes(folder / "big", bytes(4_000_000))


@pytest.mark.parametrize("save", [weights, rows, one_file])
def test_a_full_disk_loses_nothing(tiny_disk, save):
    write_text(tiny_disk / "a" / "old", "old")
    told = pytest.raises(OutputError, match=r"No space left(.|\n)*Free some space")
    with told, new_folder(tiny_disk / "a") as work:
        save(work)
    assert tree(tiny_disk) == {"a/old": "old"}
    assert os.listdir(tiny_disk) == ["a"]


def test_a_full_disk_costs_a_run_only_the_step_it_hits(tiny_disk):
    steps, calls = Steps(tiny_disk, {"seed": 0}, say=str), []

    def small(folder: Path) -> None:
        calls.append(folder)
        write_text(folder / "result", "small")

    steps.do("first", small)
    steps.do("second", small, seed=0)
    before = tree(tiny_disk)
    with pytest.raises(OutputError, match="No space left on device") as error:
        steps.do("second", weights, seed=1)
    assert error.value.where == tiny_disk / "second"
    assert tree(tiny_disk) == before

    steps = Steps(tiny_disk, {"seed": 0}, say=str)
    steps.do("first", small)
    steps.do("second", small, seed=0)
    assert len(calls) == 2


def test_a_full_disk_in_the_words_of_a_library(tmp_path):
    """Safetensors is written in Rust: its error is no OSError and has no number."""
    with pytest.raises(OutputError, match="Free some space"), new_folder(tmp_path / "a"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a"):
        raise RuntimeError("I/O error: no such file (os error 2)")


def test_sha256(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
