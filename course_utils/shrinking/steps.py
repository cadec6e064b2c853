"""The steps of `course distill`: each is done once, and kept for the next call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from course_utils import machine, pipeline
from course_utils.data.encoding import MAX_LENGTH, encode
from course_utils.data.retokenise import retokenised
from course_utils.data.sources import Found
from course_utils.data.tasks import Task
from course_utils.distill.cache import teacher_signals
from course_utils.distill.recipes import student_recipe, teacher_recipe
from course_utils.distill.trainer import train
from course_utils.files import sha256, write_text
from course_utils.models.classifier import TorchClassifier
from course_utils.models.protocol import labels_of
from course_utils.models.student import matched_layers
from course_utils.ship.onnx import to_onnx
from course_utils.shrinking.candidates import (
    Choice,
    Cost,
    choose,
    measure_costs,
    untrained,
    vocabulary,
)
from course_utils.shrinking.evidence import Suspect, is_right, measured, split_labels, suspects
from course_utils.steps import Step, Steps

SIGNALS = "signals.safetensors"


class ShrinkingSteps:
    """The steps of one run. Each method does one of them, or takes it as an earlier run left it."""

    def __init__(
        self,
        steps: Steps,
        base: Found,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        *,
        tight: bool,
        seed: int,
        progress: bool,
    ):
        self.steps, self.base, self.tokenizer, self.task = steps, base, tokenizer, task
        self.seed, self.progress = seed, progress
        self.n_timed = pipeline.TIMED_TEXTS[machine.profile()]
        self.weights = sha256(base.path / "model.safetensors")
        self.ready = knows(base.path, task)
        config = AutoConfig.from_pretrained(base.path)
        self.depth = config.num_hidden_layers
        self.max_length = min(tokenizer.model_max_length, config.max_position_embeddings)
        self.labelled = pipeline.labelled_texts(tokenizer, task)
        self.texts = pipeline.transfer_set(tokenizer, task, self.labelled, seed=seed)
        self.texts.need_room(config.max_position_embeddings)
        dev = encode(tokenizer, task.dev["text"])
        self.vocabulary = vocabulary(tokenizer, self.texts, dev, tight=tight)

    def costs(self, depths: tuple[int, ...]) -> list[Cost]:
        """What a student of each depth takes; untrained, for training changes none of it."""
        folder, _ = self.steps.do(
            "sizes",
            lambda folder: _write_json(
                folder / "costs.json", [asdict(cost) for cost in self._costs(depths)]
            ),
            weights=self.weights,
            labels=self.task.labels,
            vocabulary=self.vocabulary,
            timed=self.task.dev["text"][: self.n_timed],
            depths=depths,
        )
        return [Cost(**cost) for cost in _read_json(folder / "costs.json")]

    def _costs(self, depths: tuple[int, ...]) -> list[Cost]:
        set_seed(self.seed)
        shape = AutoModelForSequenceClassification.from_pretrained(
            self.base.path,
            num_labels=len(self.task.labels),
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
        timed = self.task.dev["text"][: self.n_timed]
        return measure_costs(
            shape, self.tokenizer, self.vocabulary, depths, timed=timed, progress=self.progress
        )

    def teacher(self) -> Step:
        """The folder of the teacher, fine-tuned, or as it was if it knows this task already."""
        recipe = teacher_recipe(self.labelled, seed=self.seed)
        if self.ready:
            self.steps.say(f"{self.base.name} knows these labels: it is the teacher as it is.")

        def work(folder: Path) -> None:
            if self.ready:
                take_over(folder, self.base.path, self.tokenizer, self.task)
            else:
                pipeline.fit_teacher(
                    folder,
                    self.base,
                    self.tokenizer,
                    self.task,
                    self.labelled,
                    recipe,
                    self.progress,
                )

        return self.steps.do(
            "teacher",
            work,
            weights=self.weights,
            task=self.task.fingerprint,
            recipe=None if self.ready else asdict(recipe),
        )

    def signals(self, teacher: Step, depths: tuple[int, ...]) -> Step:
        """The folder with what the teacher says of every text, for students of all these depths."""
        layers = _heard(self.depth, depths)

        def work(folder: Path) -> None:
            heard = teacher_signals(
                _load(teacher[0]), self.texts, hidden_layers=layers, progress=self.progress
            )
            save_file(heard, folder / SIGNALS)

        key = {"teacher": teacher[1], "texts": self.texts.fingerprint, "layers": layers}
        return self.steps.do("signals", work, **key)

    def student(
        self, teacher: Step, signals: Step, depths: tuple[int, ...], layers: int, seed: int
    ) -> Step:
        """The folder of the student of this depth, trained with this seed."""
        recipe = student_recipe(self.texts, seed=seed)

        def work(folder: Path) -> None:
            start = untrained(_load(teacher[0]), self.tokenizer, self.vocabulary, layers)
            said = load_file(signals[0] / SIGNALS)
            kept = [_heard(self.depth, depths).index(k) for k in matched_layers(self.depth, layers)]
            said["teacher_hidden"] = said["teacher_hidden"][:, kept]
            texts = retokenised(self.texts, self.tokenizer, start.tokenizer, max_length=MAX_LENGTH)
            train(start.model, texts.with_columns(**said), recipe, progress=self.progress)
            start.model.save_pretrained(folder)
            start.tokenizer.save_pretrained(folder)

        return self.steps.do(
            f"student_{layers}_{seed}",
            work,
            signals=signals[1],
            vocabulary=self.vocabulary,
            layers=layers,
            recipe=asdict(recipe),
        )

    def choice(self, students: Mapping[int, list[Step]]) -> Choice:
        """The depth and seed to keep, by what all the students have right on dev."""

        def work(folder: Path) -> None:
            texts, labels = self.task.dev["text"][:], split_labels(self.task.dev, self.task)
            right = {
                depth: np.stack(
                    [is_right(TorchClassifier(one).predict(texts), labels) for one, _ in seeds]
                )
                for depth, seeds in students.items()
            }
            _write_json(folder / "choice.json", asdict(choose(right)))

        keys = [key for seeds in students.values() for _, key in seeds]
        folder, _ = self.steps.do("choice", work, students=keys)
        return Choice(**_read_json(folder / "choice.json"))

    def shipped(self, student: Step) -> Step:
        """The folder of the chosen student as int8 ONNX."""
        sample = self.task.dev["text"][:64]
        return self.steps.do(
            "int8",
            lambda folder: self.steps.say(
                f"  {to_onnx(student[0], folder, int8=True, check_texts=sample)}"
            ),
            student=student[1],
        )

    def evidence(
        self, teacher: Step, students: list[Step], chosen: int, shipped: Step
    ) -> dict[str, Any]:
        """What `evidence.measured` found on the test split."""
        folder, _ = self.steps.do(
            "measurements",
            lambda folder: _write_json(
                folder / "found.json",
                measured(
                    teacher[0],
                    [one for one, _ in students],
                    shipped[0],
                    chosen,
                    self.task,
                    n_timed=self.n_timed,
                    progress=self.progress,
                ),
            ),
            models=[key for _, key in (teacher, *students, shipped)],
            chosen=chosen,
            n_timed=self.n_timed,
        )
        return _read_json(folder / "found.json")

    def suspects(self, signals: Step) -> list[Suspect]:
        """Training texts whose label the teacher firmly contradicts."""
        said = load_file(signals[0] / SIGNALS)["teacher_logits"]
        return suspects(said[: len(self.task.train)].numpy(), self.task)


def knows(folder: Path, task: Task) -> bool:
    """Whether a model's folder is a classifier for the task's labels, in whatever order."""
    config = _read_json(folder / "config.json")
    many = config.get("problem_type") == "multi_label_classification"
    return (
        any("ForSequenceClassification" in name for name in config.get("architectures") or ())
        and sorted(labels_of(config.get("id2label", {}))) == sorted(task.labels)
        and many == task.multi_label
    )


def take_over(folder: Path, path: Path, tokenizer: PreTrainedTokenizerBase, task: Task) -> None:
    """Nothing; the classifier at `path` is saved in `folder`, its classes in the task's order."""
    model = _load(path)
    names = labels_of(model.config.id2label)
    order = [names.index(name) for name in task.labels]
    head = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(parameter[order].clone())
    model.config.id2label = dict(enumerate(task.labels))
    model.config.label2id = {name: k for k, name in enumerate(task.labels)}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _heard(depth: int, depths: tuple[int, ...]) -> tuple[int, ...]:
    """The teacher's layers that students of these depths are to match, each once."""
    return tuple(sorted({layer for own in depths for layer in matched_layers(depth, own)}))


def _load(folder: Path) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)


def _write_json(file: Path, value: object) -> None:
    write_text(file, json.dumps(value, ensure_ascii=False))


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
