"""`course bench`: our way and the obvious way, timed in one run on this machine.

Each way runs in a process of its own, so that its peak memory is its own; the ratio is what counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from course_utils import machine
from course_utils.errors import CourseError, DataError
from course_utils.files import check_writable, write_text

N_TEXTS = {"smoke": 64, "cpu": 3200, "gpu": 3200}
EPOCHS = 3
BATCH_SIZE = 32
LAYERS = 3


def bench(what: str, *, json_file: Path | None = None) -> list[dict]:
    """Rows with `work, unit, ours, baseline, ratio, peak_memory_mb, baseline_peak_memory_mb`.

    Prints them as a table and, if asked to, writes them as JSON. Raises `CourseError` for a piece
    of work there is no benchmark for.
    """
    if what != "distill":
        raise CourseError(f"There is no benchmark {what!r}.", do="Choose: distill.")
    if json_file is not None:
        check_writable(json_file.parent)
    ours, baseline = (_in_own_process(way) for way in ("ours", "baseline"))
    work = f"distill {ours['data']} into {LAYERS} layers, {EPOCHS} epochs of {ours['n_texts']}"
    rows = [
        {
            "work": work,
            "unit": "texts/s",
            "ours": round(ours["texts_per_s"], 1),
            "baseline": round(baseline["texts_per_s"], 1),
            "ratio": round(ours["texts_per_s"] / baseline["texts_per_s"], 2),
            "peak_memory_mb": round(ours["peak_memory_mb"]),
            "baseline_peak_memory_mb": round(baseline["peak_memory_mb"]),
        }
    ]
    table = Table(title="Ours against the obvious way, one run on this machine")
    for column in rows[0]:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if json_file is not None:
        write_text(json_file, json.dumps(rows, indent=2) + "\n")
    return rows


def _in_own_process(way: str) -> dict:
    print(f"measuring: {way}")
    command = [sys.executable, "-m", "course_utils.bench", way]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CourseError(f"The benchmark's process for {way!r} ended with {done.returncode}.")
    return json.loads(done.stdout.splitlines()[-1])


def _short_texts() -> tuple[str, list[str], list[int]]:
    """SST-2 if it is at hand, otherwise the course's own reviews, repeated to the same number."""
    from course_utils.data.tasks import load_task

    def quiet(_: str) -> None:
        pass

    try:
        task = load_task("sst2", say=quiet)
    except DataError:
        task = load_task("reviews", say=quiet)
    train = task.train.shuffle(seed=0)
    rows = [i % len(train) for i in range(N_TEXTS[machine.profile()])]
    return task.name, [train[i]["text"] for i in rows], [train[i]["label"] for i in rows]


def ours(teacher, tokenizer, texts: list[str], labels: list[int]) -> None:
    """The course's way: the teacher asked once, then a student trained on what it said."""
    from course_utils.data.encoding import encode
    from course_utils.distill.cache import teacher_signals
    from course_utils.distill.trainer import train
    from course_utils.models.student import matched_layers, student_from_teacher
    from course_utils.pipeline import student_recipe

    encoded = encode(tokenizer, texts, labels)
    matched = matched_layers(teacher.config.num_hidden_layers, LAYERS)
    signals = teacher_signals(teacher, encoded, hidden_layers=matched, progress=False)
    student = student_from_teacher(teacher, layers=LAYERS)
    recipe = replace(student_recipe(len(texts)), epochs=EPOCHS, batch_size=BATCH_SIZE)
    train(student, encoded.with_columns(**signals), recipe, progress=False)


def baseline(teacher, tokenizer, texts: list[str], labels: list[int]) -> None:
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

    rows = Dataset.from_dict({"text": texts, "labels": labels})
    rows = rows.map(lambda row: tokenizer(row["text"], truncation=True, max_length=128))
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=1e-4,
            save_strategy="no",
            report_to="none",
            dataloader_pin_memory=torch.cuda.is_available(),
            disable_tqdm=True,
        )
        teacher.eval().to(arguments.device)
        ObviousTrainer(
            student_from_teacher(teacher, layers=LAYERS),
            arguments,
            train_dataset=rows.remove_columns("text"),
            data_collator=DataCollatorWithPadding(tokenizer),
        ).train()


def _measure(way: str) -> dict:
    import torch
    from datasets import disable_progress_bars
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    from course_utils.data.sources import find_model
    from course_utils.measure.size import own_peak_memory_mb

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    machine.use_all_cores()
    name, texts, labels = _short_texts()
    folder = find_model(say=lambda _: None).path
    torch.manual_seed(0)
    teacher = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=max(labels) + 1, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = time.perf_counter()
    {"ours": ours, "baseline": baseline}[way](teacher, tokenizer, texts, labels)
    seconds = time.perf_counter() - before
    return {
        "data": name,
        "n_texts": len(texts),
        "texts_per_s": EPOCHS * len(texts) / seconds,
        "peak_memory_mb": own_peak_memory_mb(),
    }


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1])))
