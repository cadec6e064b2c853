"""Checkpoints that survive a kill, a full disk and a torn file, each at any moment.

A checkpoint is written into a hidden folder and takes its name when it is complete, with a manifest
of the hash of every file inside: a folder of that name is whole, or was damaged later, and then its
hashes say so before anything of it is read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from accelerate.utils import broadcast_object_list
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from course_utils.distill.lock import RunLock
from course_utils.errors import OutputError
from course_utils.files import check_writable, new_folder, sha256, write_text

MANIFEST, SETTINGS = "manifest.json", "settings.json"


class Checkpoints:
    """The checkpoints of one run in `folder`, named `checkpoint-` and the step.

    `settings` are JSON values, dicts in dicts if you like, that say what the run is: a checkpoint
    with others is refused. The last `keep` are kept, and the best. `say` is told what is skipped.
    Raises `OutputError` when the folder is not writable.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: dict[str, object],
        *,
        keep: int = 2,
        say: Callable[[str], object] = print,
    ):
        self.folder = check_writable(folder)
        self.settings = json.loads(json.dumps(settings))  # as read back: a tuple is a list
        self.keep, self.say = keep, say

    def path(self, step: int) -> Path:
        """The folder of the checkpoint after `step` steps, whether or not it exists."""
        return self.folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, whole or not, the first first."""
        pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
        names = (pattern.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def newest_valid(self) -> Path | None:
        """The newest checkpoint that is whole, or None; `say` names those that are not.

        Raises `OutputError` listing the differences when its settings are others.
        """
        for step in reversed(self.steps()):
            folder = self.path(step)
            if trouble := find_trouble(folder):
                self.say(f"{folder.name} is skipped: {trouble}.")
                continue
            self._need_same_settings(folder)
            return folder
        return None

    def need_none(self) -> None:
        """Nothing; raises `OutputError` when there is a checkpoint, for a run that starts anew."""
        if steps := self.steps():
            raise OutputError(
                f"This folder holds checkpoints of another run, up to step {steps[-1]}.",
                where=self.folder,
                do="Resume that run, choose another folder, or remove this one.",
            )

    @contextmanager
    def write(self, step: int) -> Iterator[Path]:
        """An empty folder to fill; at the end of the block it is the checkpoint of `step`.

        After an error there is no trace of it. Raises `OutputError` when the disk is full or cannot
        be written to, and says from where the run can go on.
        """
        try:
            with new_folder(self.path(step)) as work:
                try:
                    yield work
                except RuntimeError:
                    _probe(work)  # torch.save says that a write failed, and not why
                    raise
                write_text(work / SETTINGS, json.dumps(self.settings, indent=2) + "\n")
                _seal(work)
            _sync(self.folder)
        except OutputError as error:
            last = [s for s in self.steps() if s != step]
            go_on = f" The run then goes on from {self.path(last[-1]).name}." if last else ""
            raise OutputError(error.what, where=error.where, do=error.do + go_on) from error

    def remove_old(self, step: int, best: int | None = None) -> None:
        """Nothing; before `step`, only as many as make `keep` with it stay, and the best."""
        before = [s for s in self.steps() if s < step]
        for old in before[: max(0, len(before) + 1 - self.keep)]:
            if old != best:
                shutil.rmtree(self.path(old), ignore_errors=True)

    def remove_unfinished(self) -> None:
        """Nothing; what killed runs had begun to write is gone. Only for who holds the lock."""
        for path in self.folder.glob(f".{PREFIX_CHECKPOINT_DIR}-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _need_same_settings(self, folder: Path) -> None:
        there = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        if there != self.settings:
            raise OutputError(
                f"{folder.name} is of a run with other settings: "
                f"{', '.join(differences(there, self.settings))}.",
                where=folder,
                do="Choose another folder, or take the settings of that run to go on with it.",
            )


class AtomicCheckpoints(Trainer):
    """A `transformers.Trainer` whose own code writes its checkpoints as `Checkpoints` wants them.

    `train(resume_from_checkpoint=True)` goes on from the newest whole checkpoint, or starts where
    there is none: the training is then, bit for bit, that of a run that was never stopped, if the
    data's items depend on their number and epoch alone. `train()` starts anew, in a folder without
    checkpoints. While it trains no other run may write there. Raises `OutputError`.
    """

    def __init__(self, *args, checkpoints: Checkpoints, **kwargs):
        super().__init__(*args, **kwargs)
        self.checkpoints = checkpoints
        self._place = checkpoints.folder  # where Trainer puts `checkpoint-N`

    def train(self, resume_from_checkpoint: bool | None = None, **kwargs) -> TrainOutput:
        first = self.is_world_process_zero()
        with RunLock(self.checkpoints.folder) if first else nullcontext():
            start = [self._start(resume_from_checkpoint) if first else None]
            return super().train(broadcast_object_list(start)[0], **kwargs)

    def _start(self, resume: bool | None) -> str | None:
        self.checkpoints.remove_unfinished()
        if not resume:
            self.checkpoints.need_none()
        found = self.checkpoints.newest_valid()
        return found and str(found)

    def _run_epoch(self, *, epoch, train_dataloader, **kwargs):
        # Checkpoint and end may fall together inside an epoch; Trainer would train one step more.
        if self.state.global_step >= self.state.max_steps:
            return
        # accelerate passes the epoch on to the sampler or to the data set, not to both, when it
        # skips batches or shares them between processes.
        for part in (train_dataloader, train_dataloader.dataset):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, train_dataloader=train_dataloader, **kwargs)

    def _get_output_dir(self, trial) -> str:
        return str(self._place)

    def _save_checkpoint(self, model, trial) -> None:
        step, best = self.state.global_step, self.state.best_global_step
        first = self.is_world_process_zero()
        with self.checkpoints.write(step) if first else nullcontext() as work:
            self._place = broadcast_object_list([work])[0]
            try:
                super()._save_checkpoint(model, trial)
            finally:
                written, self._place = self._place, self.checkpoints.folder
            self._name_best(best)
            self.accelerator.wait_for_everyone()  # each process has written its random state
            if first:
                inner = written / self.checkpoints.path(step).name
                self.state.save_to_json(str(inner / TRAINER_STATE_NAME))
                for file in inner.iterdir():
                    file.rename(written / file.name)
                inner.rmdir()
        if first:
            self.checkpoints.remove_old(step, best)

    def _load_best_model(self) -> None:
        best = Path(self.state.best_model_checkpoint)
        if trouble := find_trouble(best):
            self.checkpoints.say(f"{best.name}, the best, is not taken: {trouble}.")
        else:
            super()._load_best_model()

    def _name_best(self, best: int | None) -> None:
        """Nothing; the state names the best checkpoint where it will be, not where it is made."""
        there = best is not None and (
            best == self.state.global_step or self.checkpoints.path(best).is_dir()
        )
        self.state.best_model_checkpoint = str(self.checkpoints.path(best)) if there else None


def find_trouble(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None if every file is as it was written."""
    try:
        digests = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = _files(folder)
        if files != sorted(digests):
            odd = ", ".join(sorted(set(files) ^ set(digests)))
            return f"its files are not those of its manifest ({odd})"
        torn = [name for name in files if sha256(folder / name) != digests[name]]
    except (OSError, ValueError, TypeError) as error:
        return f"it cannot be read ({error})"
    return f"not as it was written: {', '.join(torn)}" if torn else None


def _seal(folder: Path) -> None:
    """Nothing; the manifest is in the folder, and all of it is on the disk, not only in memory."""
    digests = {name: sha256(folder / name) for name in _files(folder)}
    write_text(folder / MANIFEST, json.dumps(digests, indent=2) + "\n")
    for name in (*digests, MANIFEST):
        with open(folder / name, "rb+") as file:
            os.fsync(file.fileno())
    _sync(folder)


def _sync(folder: Path) -> None:
    with suppress(OSError):  # not every system can do it for a folder; the hashes are there too
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _probe(folder: Path) -> None:
    """Nothing; raises the system's own error when a megabyte cannot be written."""
    with open(folder / "probe", "wb") as file:
        file.write(bytes(2**20))


def _files(folder: Path) -> list[str]:
    """The files of a checkpoint without its manifest, and without those that systems hide in it."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = (name.as_posix() for name in names if not name.name.startswith("."))
    return sorted(name for name in names if name != MANIFEST)


def differences(there: object, now: object, name: str = "") -> list[str]:
    """One entry for each setting that differs, dicts in dicts as `outer.inner`."""
    if isinstance(there, dict) and isinstance(now, dict):
        return [
            entry
            for key in there | now
            for entry in differences(there.get(key), now.get(key), f"{name}.{key}".strip("."))
        ]
    return [] if there == now else [f"{name} {there!r} there, {now!r} now"]
