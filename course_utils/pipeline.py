"""The whole course as one call: teacher -> student -> compressed -> report.

1. A pretrained encoder is fine-tuned on the task: the teacher.
2. The teacher reads every training text once; what it says is kept.
   A task without unlabelled texts gets varied ones: on the texts it was trained on a teacher is so
   sure of itself that it has little more to say than the labels.
3. A student with half its layers, made of the teacher's weights, learns from these signals.
4. Both are exported to ONNX and quantized to int8.
5. All of them are measured in one run, and one table says what it cost and what it gained.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from course_utils import __version__, machine
from course_utils.data.augment import varied
from course_utils.data.encoding import MAX_LENGTH, EncodedTexts, encode, label_tensor
from course_utils.data.sources import Found, find_model
from course_utils.data.tasks import Task, load_task
from course_utils.distill.cache import teacher_signals
from course_utils.distill.recipes import n_varied, student_recipe, teacher_recipe
from course_utils.distill.trainer import Recipe, train
from course_utils.files import sha256, write_text
from course_utils.measure import report
from course_utils.measure.in_one_run import Entry, in_one_run
from course_utils.models.classifier import TorchClassifier
from course_utils.models.student import layer_map, matched_layers, student_from_teacher
from course_utils.ship.onnx import to_onnx
from course_utils.ship.runtime import OnnxClassifier
from course_utils.steps import Steps

PROBLEM = {False: "single_label_classification", True: "multi_label_classification"}
BASE = {"smoke": None, "cpu": None, "gpu": "google-bert/bert-base-uncased"}
TIMED_TEXTS = {"smoke": 32, "cpu": 192, "gpu": 192}
SMOKE_TEXTS = SMOKE_VARIED = 64


def first_texts(task: Task, n: int) -> Task:
    """The task with at most `n` texts in each split, for the smoke profile."""
    splits = {name: getattr(task, name) for name in ("train", "dev", "test")}
    small = {name: split.select(range(min(n, len(split)))) for name, split in splits.items()}
    return replace(task, **small, unlabelled=task.unlabelled[:n])


@dataclass(frozen=True)
class Row:
    """One line of the table: a model's folder and what runs it."""

    name: str
    folder: str
    runtime: type[TorchClassifier] | type[OnnxClassifier]


ROWS = (
    Row("teacher", "teacher", TorchClassifier),
    Row("teacher, int8", "teacher_int8", OnnxClassifier),
    Row("student", "student", TorchClassifier),
    Row("student, ONNX", "student_onnx", OnnxClassifier),
    Row("student, int8", "student_int8", OnnxClassifier),
)


def run(
    data: str | Path = "pydocs",
    *,
    text: str = "text",
    label: str = "label",
    out: str | Path = "build/report",
    layers: int | None = None,
    seed: int = 0,
    say: Callable[[str], object] = print,
    progress: bool = True,
) -> dict:
    """The contents of `results.json` (see `measure.report`), after every step that was still to do.

    Everything lies under `out`: a folder per step, and results.json, results.md, pareto.png and
    report.html. A step whose inputs did not change is not done again. `layers` is the student's
    depth, half the teacher's by default. Raises `CourseError` before anything is trained when the
    data or the folder cannot be used.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    machine.use_all_cores()
    profile = machine.profile()
    task = load_task(data, text=text, label=label, say=say, progress=progress)
    base = find_model(BASE[profile], say=say)
    if layers is not None:
        layer_map(AutoConfig.from_pretrained(base.path).num_hidden_layers, layers)
    settings = {"data": str(data), "text": text, "label": label, "layers": layers, "seed": seed}
    steps = Steps(out, settings | {"profile": profile, "version": __version__}, say=say)
    if profile == "smoke":
        task = first_texts(task, SMOKE_TEXTS)
    keys = build_models(steps, task, base, layers=layers, seed=seed, progress=progress)
    rows = measure(steps, task, keys, n_timed=TIMED_TEXTS[profile], progress=progress)
    return report.write_report(steps.folder, machine.describe().as_dict(), task.as_dict(), rows)


def build_models(
    steps: Steps, task: Task, base: Found, *, layers: int | None, seed: int, progress: bool
) -> dict[str, str]:
    """Every model of the table, each in its step's folder; the steps' keys by folder name."""
    tokenizer = AutoTokenizer.from_pretrained(base.path, model_max_length=MAX_LENGTH)
    labelled = labelled_texts(tokenizer, task)
    texts = transfer_set(tokenizer, task, labelled, seed=seed)
    to_teach = teacher_recipe(labelled, seed=seed)
    to_distil = student_recipe(texts, seed=seed)
    weights = sha256(base.path / "model.safetensors")

    teacher, teacher_key = steps.do(
        "teacher",
        lambda folder: fit_teacher(folder, base, tokenizer, task, labelled, to_teach, progress),
        weights=weights,
        task=task.fingerprint,
        recipe=asdict(to_teach),
    )
    signals, signals_key = steps.do(
        "signals",
        lambda folder: ask_teacher(folder, teacher, texts, layers, progress),
        teacher=teacher_key,
        texts=texts.fingerprint,
        layers=layers,
    )
    student, student_key = steps.do(
        "student",
        lambda folder: distil(
            folder, teacher, tokenizer, texts, signals, layers, to_distil, progress
        ),
        signals=signals_key,
        recipe=asdict(to_distil),
    )
    keys = {"teacher": teacher_key, "student": student_key}
    sample = task.dev["text"][:64]
    for name, source, int8 in (
        ("teacher_int8", teacher, True),
        ("student_onnx", student, False),
        ("student_int8", student, True),
    ):
        _, keys[name] = steps.do(
            name,
            lambda folder, source=source, int8=int8: steps.say(
                f"  {to_onnx(source, folder, int8=int8, check_texts=sample)}"
            ),
            source=keys[source.name],
        )
    return keys


def measure(
    steps: Steps, task: Task, keys: dict[str, str], *, n_timed: int, progress: bool
) -> list[dict]:
    """The rows of the table: every model on every test text, and all of them timed in turns."""
    folder, _ = steps.do(
        "measurements",
        lambda folder: write_text(
            folder / "rows.json",
            json.dumps(measure_rows(steps.folder, task, n_timed=n_timed, progress=progress)),
        ),
        models=keys,
        n_timed=n_timed,
    )
    return json.loads((folder / "rows.json").read_text(encoding="utf-8"))


def measure_rows(folder: Path, task: Task, *, n_timed: int, progress: bool) -> list[dict]:
    """What each model of `ROWS` costs and is worth, in the order of the table."""
    texts, labels = task.test["text"][:], task.test["label"][:]
    entries = [Entry(row.name, folder / row.folder, row.runtime) for row in ROWS]
    rows, _ = in_one_run(entries, texts, labels, n_timed=n_timed, progress=progress)
    return report.rows(rows)


def fit_teacher(
    folder: Path,
    base: Found,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    texts: EncodedTexts,
    recipe: Recipe,
    progress: bool,
) -> None:
    """Fine-tune the pretrained encoder with a new head on the task's labelled texts."""
    set_seed(recipe.seed)
    teacher = AutoModelForSequenceClassification.from_pretrained(
        base.path,
        num_labels=len(task.labels),
        id2label=dict(enumerate(task.labels)),
        label2id={name: i for i, name in enumerate(task.labels)},
        problem_type=PROBLEM[task.multi_label],
        ignore_mismatched_sizes=True,  # a classifier of other classes lends its encoder
        dtype=torch.float32,
    )
    train(teacher, texts, recipe, progress=progress)
    _save(folder, teacher, tokenizer)


def labelled_texts(tokenizer: PreTrainedTokenizerBase, task: Task) -> EncodedTexts:
    """The training texts with their labels: (N,), or (N, C) where a text may have several."""
    labels = label_tensor(task.train["label"], len(task.labels), task.multi_label)
    return encode(tokenizer, task.train["text"]).with_columns(labels=labels)


def transfer_set(
    tokenizer: PreTrainedTokenizerBase, task: Task, labelled: EncodedTexts, *, seed: int
) -> EncodedTexts:
    """The texts the student hears its teacher on: those with labels, then those without (-100).

    These are the task's own or, if it has none, variations of its training texts.
    """
    n = n_varied(labelled)
    more = encode(tokenizer, task.unlabelled).input_ids or varied(
        labelled.input_ids,
        min(SMOKE_VARIED, n) if machine.profile() == "smoke" else n,
        mask_id=tokenizer.mask_token_id,
        max_length=MAX_LENGTH,
        seed=seed,
    )
    known = labelled.columns["labels"]
    unknown = known.new_full((len(more), *known.shape[1:]), -100)
    return EncodedTexts(labelled.input_ids + more, labels=torch.cat([known, unknown]))


def ask_teacher(
    folder: Path, teacher: Path, texts: EncodedTexts, layers: int | None, progress: bool
) -> None:
    """What the teacher says about every text, and the hidden states the student is to match."""
    model = _load(teacher)
    depth = model.config.num_hidden_layers
    matched = matched_layers(depth, layers or depth // 2)
    signals = teacher_signals(model, texts, hidden_layers=matched, progress=progress)
    save_file(signals, folder / "signals.safetensors")


def distil(
    folder: Path,
    teacher: Path,
    tokenizer: PreTrainedTokenizerBase,
    texts: EncodedTexts,
    signals: Path,
    layers: int | None,
    recipe: Recipe,
    progress: bool,
) -> None:
    """A student made of the teacher's layers learns what the teacher said."""
    model = _load(teacher)
    student = student_from_teacher(model, layers=layers or model.config.num_hidden_layers // 2)
    texts = texts.with_columns(**load_file(signals / "signals.safetensors"))
    train(student, texts, recipe, progress=progress)
    _save(folder, student, tokenizer)


def _load(folder: Path) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)


def _save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
