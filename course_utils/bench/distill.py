"""`course bench distill`: the course's training of a student against the obvious one."""

from __future__ import annotations

import time
from dataclasses import replace

from course_utils import machine
from course_utils.errors import DataError

N_TEXTS = {"smoke": 64, "cpu": 3200, "gpu": 3200}
EPOCHS = 3
BATCH_SIZE = 32
LAYERS = 3
WAYS = ("ours", "baseline")


def rows(measured: dict[str, dict]) -> list[dict]:
    """One with `work, unit, ours, baseline, ratio, peak_memory_mb, baseline_peak_memory_mb`."""
    ours, baseline = (measured[way] for way in WAYS)
    return [
        {
            "work": f"distill {ours['data']} into {LAYERS} layers, "
            f"{EPOCHS} epochs of {ours['n_texts']}",
            "unit": "texts/s",
            "ours": round(ours["texts_per_s"], 1),
            "baseline": round(baseline["texts_per_s"], 1),
            "ratio": round(ours["texts_per_s"] / baseline["texts_per_s"], 2),
            "peak_memory_mb": round(ours["peak_memory_mb"]),
            "baseline_peak_memory_mb": round(baseline["peak_memory_mb"]),
        }
    ]


def measure(way: str) -> dict:
    """Texts per second of `way`, and the peak memory of this process, all of it, in 10^6 bytes."""
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
