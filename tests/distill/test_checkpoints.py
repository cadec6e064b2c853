"""Checkpoints: kills at any moment, full disks, torn files, other settings, several processes."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForMaskedLM, PrinterCallback, TrainingArguments

from course_utils import files
from course_utils.distill import checkpoints
from course_utils.distill.checkpoints import AtomicCheckpoints, Checkpoints, find_trouble
from course_utils.errors import OutputError

SETTINGS = {"model": {"layers": 1, "width": 16}, "data": "made up", "steps": 14}
SAVED = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
VOCABULARY = 60


# --- a run, small but with all that can go wrong: dropout, an epoch's last step with fewer batches,
# --- checkpoints inside epochs and at their ends, data that changes from epoch to epoch


class Words(Dataset):
    """22 texts whose words depend on their number and the epoch; it knows what was read."""

    def __init__(self):
        self.epoch, self.read = 0, []

    def __len__(self) -> int:
        return 22

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        self.read.append((self.epoch, i))
        generator = torch.Generator().manual_seed(1000 * self.epoch + i)
        ids = torch.randint(5, VOCABULARY, (12,), generator=generator)
        return {"input_ids": ids, "labels": ids}


def make_trainer(
    folder: Path, kind: type[AtomicCheckpoints] = AtomicCheckpoints, **options
) -> AtomicCheckpoints:
    """A trainer of 14 steps, 6 to an epoch, with a checkpoint every 4 and at the end."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    arguments = {
        "max_steps": 14,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "save_steps": 4,
        "logging_steps": 4,
    } | options
    trainer = kind(
        BertForMaskedLM(config),
        TrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=Words(),
        eval_dataset=Words(),
        checkpoints=Checkpoints(folder, SETTINGS),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def saved(folder: Path, step: int = 14) -> dict[str, str]:
    """The hashes of weights, optimizer, schedule and random state in a checkpoint that is whole."""
    checkpoint = folder / f"checkpoint-{step}"
    assert find_trouble(checkpoint) is None
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    return {name: manifest[name] for name in manifest if name.startswith(("rng", *SAVED))}


def newest(folder: Path) -> str:
    return Checkpoints(folder, SETTINGS).newest_valid().name


# --- the run in a process of its own, which may be killed


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_a_step(folder: Path) -> None:
    step = AtomicCheckpoints.training_step

    def dying(self, *args, **kwargs):
        if self.state.global_step == 9:
            die()
        return step(self, *args, **kwargs)

    AtomicCheckpoints.training_step = dying


def die_in_a_save(folder: Path) -> None:
    save = torch.save

    def dying(value, file, *args, **kwargs):
        save(value, file, *args, **kwargs)
        if "checkpoint-8" in str(file) and str(file).endswith("optimizer.pt"):
            os.truncate(file, os.path.getsize(file) // 2)
            die()

    torch.save = dying


def die_around_the_rename(folder: Path, *, before: bool) -> None:
    rename = os.rename

    def dying(source, target):
        last = Path(target) == folder / "checkpoint-8"
        if last and before:
            assert (Path(source) / "manifest.json").is_file()
            die()
        rename(source, target)
        if last:
            die()

    os.rename = dying


def die_while_an_old_one_goes(folder: Path) -> None:
    def dying(old, **kwargs):
        if Path(old) == folder / "checkpoint-4":
            (Path(old) / "model.safetensors").unlink()
            die()

    shutil.rmtree = dying


def die_at_call(folder: Path, *, call: int) -> None:
    """The process ends at one of the calls of functions that it makes, counted from here."""
    calls = count()
    sys.setprofile(lambda _frame, event, _: "call" in event and next(calls) == call and die())


def run(folder: Path, *, plant=None, rank: int | None = None, port: int = 0) -> None:
    """The training, from the start or from the last checkpoint; writes down which items it read."""
    torch.set_num_threads(1)
    if rank is not None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    trainer = make_trainer(folder)
    trainer.model.save_pretrained(folder / f".warm-{rank}")  # the first save compiles its patterns
    if plant:
        plant(folder)
    trainer.train(resume_from_checkpoint=True)
    (folder / f".read-{rank}").write_text(json.dumps(trainer.train_dataset.read))


def count_calls(folder: Path) -> None:
    """As `run`; writes down how many calls of functions the training made."""
    calls = count()

    def watch(_folder: Path) -> None:
        sys.setprofile(lambda _frame, event, _: "call" in event and next(calls))

    run(folder, plant=watch)
    sys.setprofile(None)
    (folder / ".calls").write_text(str(next(calls)))


# The server imports the libraries once; a process that it forks is there in a moment.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["transformers.trainer", "transformers.models.bert.modeling_bert"])


def start(target, *args, **kwargs) -> multiprocessing.Process:
    process = SERVER.Process(target=target, args=args, kwargs=kwargs)
    process.start()
    return process


def end(*processes: multiprocessing.Process) -> list[int]:
    for process in processes:
        process.join(240)
        assert process.exitcode is not None, "the process hangs"
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in another order are not bit-equal; the processes have one thread as well."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert end(start(count_calls, folder)) == [0]
    return folder


KILLED = -signal.SIGKILL


@pytest.mark.parametrize(
    ("plant", "goes_on"),
    [
        (die_in_a_step, 8),
        (die_in_a_save, 4),
        (partial(die_around_the_rename, before=True), 4),
        (partial(die_around_the_rename, before=False), 8),
        (die_while_an_old_one_goes, 12),
    ],
    ids=[
        "in a step",
        "in a save",
        "before the rename",
        "after the rename",
        "in removing an old one",
    ],
)
def test_a_kill_costs_no_more_than_the_steps_since_the_last_checkpoint(
    tmp_path, whole, plant, goes_on
):
    assert end(start(run, tmp_path, plant=plant)) == [KILLED]
    assert newest(tmp_path) == f"checkpoint-{goes_on}"
    assert end(start(run, tmp_path)) == [0]
    assert saved(tmp_path) == saved(whole)
    assert [p.name for p in tmp_path.glob(".checkpoint*")] == []
    assert Checkpoints(tmp_path, SETTINGS).steps() == [12, 14]


@pytest.mark.parametrize("seed", range(5))
def test_resumed_equals_uninterrupted_after_a_kill_at_a_random_moment(tmp_path, whole, seed):
    calls = int((whole / ".calls").read_text())
    call = random.Random(seed).randrange(calls)
    assert end(start(run, tmp_path, plant=partial(die_at_call, call=call))) == [KILLED]
    assert end(start(run, tmp_path)) == [0]
    assert saved(tmp_path) == saved(whole)


def test_resumed_equals_uninterrupted_after_many_kills(tmp_path, whole):
    half, chance, kills = int((whole / ".calls").read_text()) // 2, random.Random(0), 0
    code = KILLED
    while code == KILLED and kills < 40:
        plant = partial(die_at_call, call=chance.randrange(half))
        (code,) = end(start(run, tmp_path, plant=plant))
        kills += code == KILLED
    assert code == 0
    assert kills >= 2
    assert saved(tmp_path) == saved(whole)


def test_two_processes_resume_as_if_nobody_had_stopped_them(tmp_path):
    def pair(folder: Path, **options) -> list[int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return end(*[start(run, folder, rank=rank, port=port, **options) for rank in (0, 1)])

    assert pair(tmp_path / "whole") == [0, 0]
    assert pair(tmp_path / "killed", plant=die_in_a_step) == [KILLED, KILLED]
    assert newest(tmp_path / "killed") == "checkpoint-8"
    assert pair(tmp_path / "killed") == [0, 0]
    hashes = saved(tmp_path / "killed")
    assert hashes == saved(tmp_path / "whole")
    assert {"rng_state_0.pth", "rng_state_1.pth"} < set(hashes)
    # In each of the four epochs that were whole all texts were read, with that epoch's words.
    mine, theirs = (json.loads((tmp_path / "whole" / f".read-{k}").read_text()) for k in (0, 1))
    read = {(epoch, i) for epoch, i in mine + theirs if epoch < 4}
    assert read == {(epoch, i) for epoch in range(4) for i in range(22)}


# --- resuming, in this process


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was interrupted in step 10, with checkpoints of steps 4 and 8."""

    class Stopping(AtomicCheckpoints):
        def training_step(self, *args, **kwargs):
            if self.state.global_step == 9:
                raise KeyboardInterrupt
            return super().training_step(*args, **kwargs)

    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        make_trainer(folder, Stopping).train()
    return folder


@pytest.fixture
def again(stopped, tmp_path) -> Path:
    """A copy of the interrupted run that the test may go on with."""
    return shutil.copytree(stopped, tmp_path / "run")


def test_skipped_batches_are_not_read(again):
    trainer = make_trainer(again)
    trainer.train(resume_from_checkpoint=True)
    read = trainer.train_dataset.read
    # Step 8 is the second of epoch 1: of its 22 texts 8 are behind, and the third epoch's first 8
    # texts follow, with the one batch that is read ahead.
    assert [epoch for epoch, _ in read] == [1] * 14 + [2] * 10
    assert len(set(read)) == len(read)


def test_a_finished_run_is_not_trained_a_step_further(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    trainer = make_trainer(folder)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 14
    assert trainer.train_dataset.read == []
    trainer.model.save_pretrained(tmp_path / "model")
    assert files.sha256(tmp_path / "model" / "model.safetensors") == saved(whole)[SAVED[0]]


def test_a_torn_newest_checkpoint_is_named_and_the_one_before_taken(again, whole, capsys):
    os.truncate(again / "checkpoint-8" / "optimizer.pt", 100)
    trainer = make_trainer(again)
    trainer.train(resume_from_checkpoint=True)
    assert "checkpoint-8 is skipped: not as it was written: optimizer.pt" in capsys.readouterr().out
    assert trainer.train_dataset.read[0][0] == 0  # step 4 is in epoch 0, step 8 in epoch 1
    assert saved(again) == saved(whole)
    assert Checkpoints(again, SETTINGS).steps() == [12, 14]


class Trap:
    """What it says when it is unpickled: nothing, but a file is there afterwards."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", SAVED[1:])
def test_no_pickle_is_run(again, name):
    """A swapped file is found by its hash before it is read; with a forged hash torch refuses."""
    sprung = again / "sprung"
    bad = again / "checkpoint-8" / name
    torch.save({"state": Trap(sprung)}, bad)
    torch.load(bad, weights_only=False)
    assert sprung.exists()  # the trap works
    sprung.unlink()

    assert newest(again) == "checkpoint-4"
    manifest = again / "checkpoint-8" / "manifest.json"
    digests = json.loads(manifest.read_text()) | {name: files.sha256(bad)}
    manifest.write_text(json.dumps(digests))
    assert newest(again) == "checkpoint-8"
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        make_trainer(again).train(resume_from_checkpoint=True)
    assert not sprung.exists()


def test_weights_are_safetensors_only(stopped):
    names = {path.name for path in (stopped / "checkpoint-8").iterdir()}
    assert names >= {*SAVED, "trainer_state.json", "settings.json", "manifest.json"}
    assert not {name for name in names if name.startswith("pytorch_model")}


def test_a_run_that_starts_anew_leaves_the_checkpoints_of_another_alone(again):
    before = saved(again, 8)
    with pytest.raises(OutputError, match=r"checkpoints of another run, up to step 8(.|\n)*Resume"):
        make_trainer(again).train()
    assert saved(again, 8) == before
    assert Checkpoints(again, SETTINGS).steps() == [4, 8]


def test_two_runs_in_one_folder(tmp_path):
    class Second(AtomicCheckpoints):
        def training_step(self, *args, **kwargs):
            if not self.state.global_step:
                with pytest.raises(OutputError, match=rf"Another run .* process {os.getpid()} on"):
                    make_trainer(tmp_path).train(resume_from_checkpoint=True)
            return super().training_step(*args, **kwargs)

    trainer = make_trainer(tmp_path, Second, max_steps=4)
    trainer.train()
    assert trainer.state.global_step == 4


# --- the best


def test_the_last_and_the_best_are_kept_and_the_best_is_loaded(tmp_path):
    losses = iter([5.0, 1.0, 4.0, 3.0, 2.0])

    class Judged(AtomicCheckpoints):
        def evaluate(self, *args, **kwargs):
            return super().evaluate(*args, **kwargs) | {"eval_loss": next(losses)}

    options = {"max_steps": 10, "save_steps": 2, "eval_steps": 2, "eval_strategy": "steps"}
    options |= {"metric_for_best_model": "eval_loss", "load_best_model_at_end": True}
    trainer = make_trainer(tmp_path, Judged, greater_is_better=False, **options)
    trainer.train()
    assert trainer.checkpoints.steps() == [4, 8, 10]
    best = tmp_path / "checkpoint-4"
    for step in (4, 8, 10):
        state = json.loads((tmp_path / f"checkpoint-{step}" / "trainer_state.json").read_text())
        assert (state["best_metric"], state["best_model_checkpoint"]) == (1.0, str(best))
    trainer.model.save_pretrained(tmp_path / "model")
    assert files.sha256(tmp_path / "model" / SAVED[0]) == saved(tmp_path, 4)[SAVED[0]]

    said = []
    trainer.checkpoints.say = said.append
    os.truncate(best / SAVED[0], 100)
    trainer._load_best_model()
    assert said == [
        "checkpoint-4, the best, is not taken: not as it was written: model.safetensors."
    ]


# --- a full disk


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if not mount or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # a model may be mapped still


class Filling(AtomicCheckpoints):
    """Fills the disk before step 8, up to `left` bytes."""

    left = 0

    def training_step(self, *args, **kwargs):
        filler = self.checkpoints.folder / "filler"
        if self.state.global_step == 7 and not filler.exists():
            filler.write_bytes(bytes(shutil.disk_usage(filler.parent).free - self.left))
        return super().training_step(*args, **kwargs)


@pytest.mark.parametrize("left", range(0, 90_000, 12_000))
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(tiny_disk, monkeypatch, left):
    monkeypatch.setattr(Filling, "left", left)
    told = r"No space left on device(.|\n)*Free some space(.|\n)*goes on from checkpoint-4"
    with pytest.raises(OutputError, match=told) as error:
        make_trainer(tiny_disk, Filling).train()
    assert error.value.where == tiny_disk / "checkpoint-8"
    assert {path.name for path in tiny_disk.iterdir()} == {
        ".lock",
        ".lock.json",
        "checkpoint-4",
        "filler",
    }
    (tiny_disk / "filler").unlink()
    trainer = make_trainer(tiny_disk)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 14


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("words", ["PytorchStreamWriter failed writing file", None])
def test_the_system_says_why_where_torch_does_not(tmp_path, monkeypatch, number, words):
    steps = Checkpoints(tmp_path, SETTINGS)

    def full(*_args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoints, "_probe", full)
    with pytest.raises(OutputError, match=os.strerror(number)), steps.write(4):
        raise RuntimeError(words) if words else OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


def test_errors_that_are_not_the_disks_stay_what_they_are(tmp_path):
    steps = Checkpoints(tmp_path, SETTINGS)
    with pytest.raises(RuntimeError, match="shapes"), steps.write(4):
        raise RuntimeError("shapes do not fit")
    assert list(tmp_path.iterdir()) == []


# --- the folder alone


def fill(checkpoint: Path, text: str = "some") -> None:
    (checkpoint / "inner").mkdir()
    for name in ("a", "b", "inner/c"):
        (checkpoint / name).write_text(text + name)


@pytest.fixture
def made(tmp_path) -> Checkpoints:
    """Checkpoints of steps 4 and 12, and a list `said` of what is said about them."""
    said = []
    made = Checkpoints(tmp_path / "run", SETTINGS, say=said.append)
    made.said = said
    for step in (4, 12):
        with made.write(step) as folder:
            fill(folder)
            assert not made.path(step).exists()
    return made


def test_a_checkpoint_has_its_settings_and_the_hash_of_each_file(made):
    assert made.newest_valid() == made.path(12)
    assert json.loads((made.path(12) / "settings.json").read_text()) == SETTINGS
    manifest = json.loads((made.path(12) / "manifest.json").read_text())
    assert manifest == {
        name: files.sha256(made.path(12) / name) for name in ("a", "b", "inner/c", "settings.json")
    }
    assert made.said == []


def truncated(folder: Path) -> None:
    os.truncate(folder / "a", 2)


def one_bit(folder: Path) -> None:
    content = bytearray((folder / "inner/c").read_bytes())
    content[0] ^= 1
    (folder / "inner/c").write_bytes(content)


def empty(folder: Path) -> None:
    (folder / "b").write_bytes(b"")


def missing(folder: Path) -> None:
    (folder / "inner/c").unlink()


def added(folder: Path) -> None:
    (folder / "scaler.pt").write_text("not ours")


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def torn_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 30)


def other_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("3")


def binary_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff\xfe")


def other_settings(folder: Path) -> None:
    (folder / "settings.json").write_text("{}")


def nothing_in_it(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "not as it was written: a"),
        (one_bit, "not as it was written: inner/c"),
        (empty, "not as it was written: b"),
        (missing, r"not those of its manifest \(inner/c\)"),
        (added, r"not those of its manifest \(scaler.pt\)"),
        (no_manifest, "cannot be read .*manifest.json"),
        (torn_manifest, "cannot be read"),
        (other_manifest, "cannot be read"),
        (binary_manifest, "cannot be read"),
        (other_settings, "not as it was written: settings.json"),
        (nothing_in_it, "cannot be read .*manifest.json"),
    ],
)
def test_damage_is_found_and_named_and_the_one_before_is_taken(made, damage, words):
    damage(made.path(12))
    assert made.newest_valid() == made.path(4)
    assert len(made.said) == 1
    assert made.said[0].startswith("checkpoint-12 is skipped: ")
    assert re.search(words, made.said[0])


def test_what_a_system_hides_in_a_folder_is_no_damage(made):
    (made.path(12) / ".DS_Store").write_text("of the system")
    assert made.newest_valid() == made.path(12)


def test_where_none_is_whole_there_is_none(made):
    for step in (4, 12):
        truncated(made.path(step))
    assert made.newest_valid() is None
    assert len(made.said) == 2
    assert Checkpoints(made.folder / "new", SETTINGS).newest_valid() is None


def test_only_folders_named_by_a_step_are_checkpoints(made):
    for name in ("checkpoint-", "checkpoint-12b", "a-checkpoint-20", "checkpoint-best"):
        (made.folder / name).mkdir()
    assert made.steps() == [4, 12]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": {"layers": 2, "width": 16}}, ["model.layers 1 there, 2 now"]),
        ({"data": "other"}, ["data 'made up' there, 'other' now"]),
        ({"rate": [1, 2]}, ["rate None there, [1, 2] now"]),
        (
            {"model": {"layers": 1}, "steps": 15},
            ["model.width 16 there, None now", "steps 14 there, 15 now"],
        ),
        ({"model": "none"}, ["model {'layers': 1, 'width': 16} there, 'none' now"]),
    ],
)
def test_a_checkpoint_with_other_settings_is_refused_and_the_differences_listed(made, change, told):
    other = Checkpoints(made.folder, SETTINGS | change)
    with pytest.raises(OutputError) as error:
        other.newest_valid()
    assert error.value.what == f"checkpoint-12 is of a run with other settings: {', '.join(told)}."
    assert error.value.where == made.path(12)


def test_settings_are_compared_as_they_are_read_back(tmp_path):
    for _ in range(2):
        steps = Checkpoints(tmp_path, {"layers": (0, 2), "names": {1: "a"}})
        with steps.write(4) as folder:
            fill(folder)
        assert steps.newest_valid() == steps.path(4)


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        (1, None, [5]),
        (2, None, [4, 5]),
        (3, None, [3, 4, 5]),
        (9, None, [1, 2, 3, 4, 5]),
        (1, 5, [5]),
        (1, 2, [2, 5]),
        (2, 1, [1, 4, 5]),
        (2, 4, [4, 5]),
    ],
)
def test_the_last_ones_and_the_best_are_kept(tmp_path, keep, best, left):
    steps = Checkpoints(tmp_path, SETTINGS, keep=keep)
    for step in range(1, 6):
        with steps.write(step) as folder:
            fill(folder)
    steps.remove_old(5, best)
    assert steps.steps() == left


def test_a_torn_one_of_a_later_step_does_not_push_out_the_one_just_written(made):
    truncated(made.path(12))
    only = Checkpoints(made.folder, SETTINGS, keep=1, say=str)
    with only.write(8) as folder:
        fill(folder)
    only.remove_old(8)
    assert only.newest_valid() == made.path(8)


def test_a_torn_one_is_replaced_as_a_whole(made):
    truncated(made.path(12))
    with made.write(12) as folder:
        fill(folder, "new")
    assert made.newest_valid() == made.path(12)
    assert (made.path(12) / "a").read_text() == "newa"
    assert {path.name for path in made.folder.iterdir()} == {"checkpoint-4", "checkpoint-12"}


def test_all_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    synced, done, rename, fsync = set(), [], os.rename, os.fsync

    def note_sync(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def note_rename(source, target) -> None:
        done.append({p.name for p in Path(source).rglob("*") if p.stat().st_ino not in synced})
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(files.os, "rename", note_rename)
    with Checkpoints(tmp_path, SETTINGS).write(4) as folder:
        fill(folder)
    assert done == [{"inner"}]  # of files none is left
    assert tmp_path.stat().st_ino in synced


def test_what_killed_runs_left_is_removed(made):
    for name in (".checkpoint-16-abc", ".checkpoint-12-old-abc"):
        (made.folder / name / "was").mkdir(parents=True)
    (made.folder / ".other").mkdir()
    made.remove_unfinished()
    left = {path.name for path in made.folder.iterdir()}
    assert left == {"checkpoint-4", "checkpoint-12", ".other"}


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="hoose another folder"):
        Checkpoints(tmp_path / "file", SETTINGS)
