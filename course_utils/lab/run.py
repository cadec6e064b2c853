"""`course run --lab`: every method and the combinations that make sense, in one honest table.

All pipelines start from the same teacher, learn from the same texts what it said about them, and
are measured in one run on the same machine. Pipelines that begin alike share what they share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from course_utils import __version__, machine, pipeline
from course_utils.data.encoding import MAX_LENGTH, EncodedTexts, encode
from course_utils.data.retokenise import retokenised
from course_utils.data.sources import Found, find_model
from course_utils.data.tasks import Task, load_task
from course_utils.distill.cache import teacher_signals
from course_utils.distill.recipes import student_recipe, teacher_recipe
from course_utils.distill.trainer import Recipe, train
from course_utils.errors import DataError, ModelError
from course_utils.files import sha256, write_text
from course_utils.lab.operations import (
    NUMBERS,
    Model,
    Operation,
    apply,
    need_possible,
    parse,
    written,
)
from course_utils.lab.table import measured
from course_utils.measure import report
from course_utils.models.classifier import TorchClassifier
from course_utils.models.student import matched_layers
from course_utils.ship.backends import quantize
from course_utils.steps import Step, Steps

LIBRARIES = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime")

PIPELINES = (
    "bf16",
    "int8",
    "int4",
    "trim, int8",
    "prune 50",
    "prune 50, int8",
    "prune 50, trim 7000, int8",
    "trim 7000, prune 50, int8",
    "rank 50",
    "rank 50, int8",
    "words 128, int8",
    "layers 3",
    "layers 3, int8",
    "layers 3, trim, int8",
    "layers 3, trim 8000, int8",
    "trim 8000, layers 3, int8",
    "layers 3, trim 4000, int8",
    "trim 4000, layers 3, int8",
    "layers 3, prune 50, trim 8000, int8",
    "trim 8000, layers 3, prune 50, int8",
    "trim 8000, layers 3, prune 50, words 128, int8",
    "trim 8000, layers 2, int8",
)


def run(
    data: str | Path | Task = "pydocs",
    *,
    pipelines: str | Sequence[str] = PIPELINES,
    text: str = "text",
    label: str = "label",
    teacher: str | Path | None = None,
    recipe: Recipe | None = None,
    out: str | Path = "build/lab",
    seed: int = 0,
    say: Callable[[str], object] = print,
    progress: bool = True,
) -> dict:
    """The contents of results.json: the teacher's row, and one for every pipeline.

    `data` is a task, or what `load_task` takes; `pipelines` are lines, or one line. Without
    `teacher`, the folder of a classifier that is trained on the task, one is trained. `recipe` is
    how every model learns after a cut, by default `student_recipe`. Everything lies under `out`, a
    folder per step; a step whose inputs did not change is not done again, so more pipelines may
    come in a later call. Raises `CourseError` before anything is trained for a pipeline that cannot
    be, for data or a folder that cannot be used, for a teacher of other classes or without a head.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    machine.use_all_cores()
    lines = [parse(line) for line in ([pipelines] if isinstance(pipelines, str) else pipelines)]
    task = data
    if not isinstance(task, Task):
        task = load_task(data, text=text, label=label, say=say, progress=progress)
    if task.multi_label:
        raise DataError("The lab compares models on texts with one class each.", where=task.name)
    base = find_model(teacher or pipeline.BASE[machine.profile()], say=say)
    config = AutoConfig.from_pretrained(base.path)
    need_possible(lines, config, AutoTokenizer.from_pretrained(base.path))
    if teacher and (labels := TorchClassifier(base.path).labels) != tuple(task.labels):
        raise ModelError(
            f"The teacher's classes are {', '.join(labels)}; the task's are "
            f"{', '.join(task.labels)}, in this order.",
            where=base.path,
            do="Give a classifier that was trained on this task, or let one be trained.",
        )
    settings = {"lab": True, "task": task.name, "texts": task.fingerprint, "seed": seed}
    settings |= {"teacher": teacher and str(teacher)}
    settings |= {"profile": machine.profile(), "version": __version__}
    steps = Steps(out, settings, say=say)
    if machine.profile() == "smoke":
        task = pipeline.first_texts(task, pipeline.SMOKE_TEXTS)
    lab = Lab(steps, task, base, recipe, trained=bool(teacher), seed=seed, progress=progress)
    return lab.results(lines)


class Lab:
    """The steps of one run: a teacher, what it said, a model per pipeline, and their table."""

    def __init__(
        self,
        steps: Steps,
        task: Task,
        base: Found,
        recipe: Recipe | None,
        *,
        trained: bool,
        seed: int,
        progress: bool,
    ):
        self.steps, self.task, self.base, self.trained = steps, task, base, trained
        self.seed, self.progress = seed, progress
        self.tokenizer = AutoTokenizer.from_pretrained(base.path, model_max_length=MAX_LENGTH)
        self.labelled = pipeline.labelled_texts(self.tokenizer, task)
        self.texts = pipeline.transfer_set(self.tokenizer, task, self.labelled, seed=seed)
        self.dev = encode(self.tokenizer, task.dev["text"])
        self.recipe = recipe or student_recipe(self.texts, seed=seed)

    def results(self, lines: Sequence[Sequence[Operation]]) -> dict[str, Any]:
        """The contents of results.json, after every step that was still to do."""
        models = {"teacher": self.teacher()}
        signals = self.signals(models["teacher"])
        for line in lines:
            models[written(line)] = self.made(line, models["teacher"], signals)
        rows, differences = self.table(models)
        return report.write_report(
            self.steps.folder,
            machine.describe().as_dict(),
            self.task.as_dict(),
            rows,
            {"seed": self.seed, "recipe": asdict(self.recipe), "versions": _versions()},
            differences=differences,
        )

    def teacher(self) -> Step:
        """The folder of the teacher."""
        recipe = teacher_recipe(self.labelled, seed=self.seed)

        def work(folder: Path) -> None:
            if self.trained:
                _load(self.base.path).save_pretrained(folder)
                self.tokenizer.save_pretrained(folder)
                return
            pipeline.fit_teacher(
                folder, self.base, self.tokenizer, self.task, self.labelled, recipe, self.progress
            )

        return self.steps.do(
            "teacher",
            work,
            weights=sha256(self.base.path / "model.safetensors"),
            task=self.task.fingerprint,
            recipe=None if self.trained else asdict(recipe),
        )

    def signals(self, teacher: Step) -> Step:
        """The folder with what the teacher said, and its [CLS] vectors after every layer."""

        def work(folder: Path) -> None:
            model = _load(teacher[0])
            layers = tuple(range(1, model.config.num_hidden_layers + 1))
            said = teacher_signals(model, self.texts, hidden_layers=layers, progress=self.progress)
            save_file(said, folder / "signals.safetensors")

        return self.steps.do("signals", work, teacher=teacher[1], texts=self.texts.fingerprint)

    def made(self, operations: Sequence[Operation], teacher: Step, signals: Step) -> Step:
        """The folder of the model after these operations; those before the last come first."""
        if not operations:
            return teacher
        *before, last = operations
        source, key = self.made(before, teacher, signals)
        name = "_".join(str(one).replace(" ", "-") for one in operations)

        def work(folder: Path) -> None:
            if last.verb in NUMBERS:
                quantize(source, NUMBERS[last.verb], out=folder)
            else:
                self._shrink(last, source, signals[0], folder)

        return self.steps.do(
            name,
            work,
            source=key,
            signals=signals[1],
            operation=str(last),
            recipe=asdict(self.recipe),
        )

    def table(self, models: dict[str, Step]) -> tuple[list[dict], list[dict]]:
        """The rows of the table and the differences between models (see `lab.table`)."""

        def work(folder: Path) -> None:
            folders = {name: step[0] for name, step in models.items()}
            found = measured(folders, self.task, progress=self.progress)
            write_text(folder / "rows.json", json.dumps(found))

        keys = {name: key for name, (_, key) in models.items()}
        folder, _ = self.steps.do("measurements", work, models=keys)
        return tuple(json.loads((folder / "rows.json").read_text(encoding="utf-8")))

    def _shrink(self, operation: Operation, source: Path, signals: Path, folder: Path) -> None:
        start = Model(_load(source), AutoTokenizer.from_pretrained(source))
        labelled, dev = self._own(self.labelled, start), self._own(self.dev, start)
        made = apply(operation, start, labelled, dev)
        if operation.is_learned:
            said = load_file(signals / "signals.safetensors")
            depth = said["teacher_hidden"].shape[1]
            kept = matched_layers(depth, made.model.config.num_hidden_layers)
            said["teacher_hidden"] = said["teacher_hidden"][:, [layer - 1 for layer in kept]]
            texts = self._own(self.texts, made).with_columns(**said)
            train(made.model, texts, self.recipe, progress=self.progress)
        made.model.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)

    def _own(self, texts: EncodedTexts, model: Model) -> EncodedTexts:
        """The texts, given in the teacher's tokens, in this model's."""
        return retokenised(texts, self.tokenizer, model.tokenizer, max_length=MAX_LENGTH)


def _versions() -> dict[str, str]:
    return {"shrinking-bert": __version__} | {name: version(name) for name in LIBRARIES}


def _load(folder: Path):
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
