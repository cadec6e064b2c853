"""`course bench distill`: the course's training of a student against two obvious ones.

All three start from the same teacher, fine-tuned on the texts before any clock runs, and make a
student of the same layers of it. They read the same texts as often, in batches of the same size, by
the same tokenizer, each batch padded to its longest text. Which texts share a batch is part of a
way: the other two draw them at random, ours puts like lengths together and needs less padding. So
is what is done with the teacher, the loss, the learning rate and the data type. What all that may
not cost is what the student has learned: `agreement` is the share of texts none of them was trained
on that a student puts in its teacher's class.

The clock starts with texts and a teacher, and ends with a student: encoding them and asking the
teacher counts.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from course_utils import machine
from course_utils.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from course_utils.data.tasks import Task

N_TEXTS = {"smoke": 64, "cpu": 1600, "gpu": 3200}
N_HELD_OUT = {"smoke": 64, "cpu": 1000, "gpu": 1000}
EPOCHS = 3
BATCH_SIZE = 32
LAYERS = 3
LEARNING_RATE = 1e-4  # of the other two
BASELINES = {"baseline": "a plain Trainer", "textbrewer": "TextBrewer"}
WAYS = ("teacher", "ours", *BASELINES)


def rows(measured: dict[str, dict]) -> list[dict]:
    """One for each baseline that could be measured: `work, unit, ours, baseline, ratio,
    peak_memory_mb, baseline_peak_memory_mb, agreement, baseline_agreement`.
    """
    ours = measured["ours"]
    return [
        {
            "work": f"distill {ours['data']} into {LAYERS} layers, "
            f"{EPOCHS} epochs of {ours['n_texts']}, against {name}",
            "unit": "texts/s",
            "ours": round(ours["texts_per_s"], 1),
            "baseline": round(baseline["texts_per_s"], 1),
            "ratio": round(ours["texts_per_s"] / baseline["texts_per_s"], 2),
            "peak_memory_mb": round(ours["peak_memory_mb"]),
            "baseline_peak_memory_mb": round(baseline["peak_memory_mb"]),
            "agreement": round(ours["agreement"], 4),
            "baseline_agreement": round(baseline["agreement"], 4),
        }
        for way, name in BASELINES.items()
        if (baseline := measured[way])
    ]


def measure(way: str) -> dict:
    """What `way` did: its `texts_per_s`, the `agreement` of its student with the teacher, and the
    peak memory of this process while it worked, all of it, in 10^6 bytes.

    "teacher" trains the one that all others in this run load; that, and a way that needs a package
    that is not installed, gives an empty dict.
    """
    if way == "textbrewer" and importlib.util.find_spec("textbrewer") is None:
        print(
            "  left out: textbrewer is not installed; "
            "install it with pip install textbrewer==0.2.1.post1",
            file=sys.stderr,
        )
        return {}
    from datasets import disable_progress_bars
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    from course_utils.measure.size import own_peak_memory_mb

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    machine.use_all_cores()
    task, folder = _task(), machine.cache_dir() / "bench" / "teacher"
    if way == "teacher":
        _train_teacher(task, folder)
        return {}
    teacher = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts, labels = task.train["text"][:], task.train["label"][:]
    work = {"ours": ours, "baseline": baseline, "textbrewer": textbrewer}[way]
    before = time.perf_counter()
    student = work(teacher, tokenizer, texts, labels)
    seconds = time.perf_counter() - before
    return {
        "data": task.name,
        "n_texts": len(texts),
        "texts_per_s": EPOCHS * len(texts) / seconds,
        "peak_memory_mb": own_peak_memory_mb(),
        "agreement": _agreement(teacher, student, tokenizer, task.test["text"][:]),
    }


def _task() -> Task:
    """SST-2 if it is at hand, otherwise PyDocs; its training texts are those of the benchmark, its
    test texts are held out.
    """
    from course_utils.data.tasks import load_task

    def quiet(_: str) -> None:
        pass

    try:
        task = load_task("sst2", say=quiet)
    except DataError:
        task = load_task("pydocs", say=quiet, progress=False)
    profile = machine.profile()
    train, n_held_out = task.train.shuffle(seed=0), min(N_HELD_OUT[profile], len(task.test))
    return replace(
        task,
        train=train.select(range(min(N_TEXTS[profile], len(train)))),
        test=task.test.select(range(n_held_out)),
    )


def _train_teacher(task: Task, folder: Path) -> None:
    from transformers import AutoTokenizer

    from course_utils.data.encoding import encode
    from course_utils.data.sources import find_model
    from course_utils.distill.recipes import teacher_recipe
    from course_utils.files import new_folder
    from course_utils.pipeline import fit_teacher

    base = find_model(say=lambda _: None)
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    texts = encode(tokenizer, task.train["text"], task.train["label"])
    recipe = replace(teacher_recipe(texts), epochs=1)
    with new_folder(folder) as fresh:
        fit_teacher(fresh, base, tokenizer, task, texts, recipe, progress=False)


def _agreement(
    teacher: PreTrainedModel, student: PreTrainedModel, tokenizer, texts: list[str]
) -> float:
    """The share of the texts that both put in the same class, computed in float32."""
    import torch

    same = []
    for start in range(0, len(texts), BATCH_SIZE):
        batch = tokenizer(
            texts[start : start + BATCH_SIZE],
            padding=True,
            truncation=True,
            max_length=128,
            return_tensors="pt",
        )
        with torch.no_grad():
            chosen, expected = (
                model.eval()(**batch.to(model.device)).logits.argmax(1).cpu()
                for model in (student, teacher)
            )
        same.append(chosen == expected)
    return torch.cat(same).float().mean().item()


def ours(teacher, tokenizer, texts: list[str], labels: list[int]) -> PreTrainedModel:
    """The course's way: the teacher asked once, then a student trained on what it said."""
    from course_utils.data.encoding import encode
    from course_utils.distill.cache import teacher_signals
    from course_utils.distill.recipes import student_recipe
    from course_utils.distill.trainer import train
    from course_utils.models.student import matched_layers, student_from_teacher

    encoded = encode(tokenizer, texts, labels)
    matched = matched_layers(teacher.config.num_hidden_layers, LAYERS)
    signals = teacher_signals(teacher, encoded, hidden_layers=matched, progress=False)
    student = student_from_teacher(teacher, layers=LAYERS)
    recipe = replace(student_recipe(encoded), epochs=EPOCHS, batch_size=BATCH_SIZE)
    train(student, encoded.with_columns(**signals), recipe, progress=False)
    return student


def baseline(teacher, tokenizer, texts: list[str], labels: list[int]) -> PreTrainedModel:
    """The obvious way: a Trainer whose loss runs the teacher, in float32, at every step."""
    import tempfile

    import torch
    import torch.nn.functional as F
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from course_utils.models.student import student_from_teacher

    class ObviousTrainer(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(**inputs)
            with torch.no_grad():
                teacher_logits = teacher(**inputs).logits
            soft = F.kl_div(
                F.log_softmax(outputs.logits / 2, dim=-1),
                F.softmax(teacher_logits / 2, dim=-1),
                reduction="batchmean",
            )
            loss = 0.5 * outputs.loss + 0.5 * 4 * soft
            return (loss, outputs) if return_outputs else loss

    student = student_from_teacher(teacher, layers=LAYERS)
    rows = Dataset.from_dict({"text": texts, "labels": labels})
    rows = rows.map(lambda row: tokenizer(row["text"], truncation=True, max_length=128))
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            save_strategy="no",
            report_to="none",
            dataloader_pin_memory=torch.cuda.is_available(),
            disable_tqdm=True,
        )
        teacher.eval().to(arguments.device)
        ObviousTrainer(
            student,
            arguments,
            train_dataset=rows.remove_columns("text"),
            data_collator=DataCollatorWithPadding(tokenizer),
        ).train()
    return student


def textbrewer(teacher, tokenizer, texts: list[str], labels: list[int]) -> PreTrainedModel:
    """TextBrewer's distiller, with the objective and the matched layers of ours."""
    from course_utils.bench.textbrewer_way import distil
    from course_utils.models.student import matched_layers, student_from_teacher

    student = student_from_teacher(teacher, layers=LAYERS)
    distil(
        teacher,
        student,
        tokenizer,
        texts,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        matched=matched_layers(teacher.config.num_hidden_layers, LAYERS),
        device=machine.describe().device,
    )
    return student
