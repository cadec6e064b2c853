"""`course distill`: labelled texts in, a small classifier out, with proof of what it lost.

1. The data is looked at, and what is odd about it is said before anything is trained.
2. With budgets, students of every depth are made and timed untrained; those outside go.
3. A teacher is fine-tuned and reads every text once. Each student learns from what it said.
4. On dev the smallest student is chosen that cannot be told from the best.
5. It is shipped as int8, and on test it is compared with its teacher, once.

Each of these is a step that is kept: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from course_utils import __version__, machine, pipeline
from course_utils.data.encoding import MAX_LENGTH
from course_utils.data.look import Look, look, refuse_unknown
from course_utils.data.sources import Found, find_model
from course_utils.data.tasks import Task, load_task
from course_utils.distill.lock import RunLock
from course_utils.errors import DataError, ModelError
from course_utils.measure import report
from course_utils.models.student import plan_student
from course_utils.shrinking.candidates import depths_to_try, within
from course_utils.shrinking.card import model_card
from course_utils.shrinking.evidence import as_csv
from course_utils.shrinking.folder import WORK, put, refuse_foreign
from course_utils.shrinking.steps import ShrinkingSteps
from course_utils.steps import Steps

MOST_SEEDS = 20


@dataclass(frozen=True)
class Shrinking:
    """What `course distill` is asked for. Raises `DataError` for what nobody can do.

    `layers` is the student's depth, half the teacher's if unset. With a budget it is the deepest
    candidate: `budget_mb` (10^6 bytes of the int8 file) and `budget_ms` (p50 for one text). `seeds`
    students of each depth are trained, from `seed` on. `label_separator` stands between the labels
    of a text that has several.
    """

    data: str
    out: str = "my_model"
    text: str = "text"
    label: str = "label"
    teacher: str | None = None
    layers: int | None = None
    budget_mb: float | None = None
    budget_ms: float | None = None
    seeds: int = 1
    label_separator: str | None = None
    encoding: str | None = None
    separator: str | None = None
    allow_unknown: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("data", "out", "text", "label"):
            if not getattr(self, name).strip():
                raise DataError(f"--{name} is empty.", do="Give it a value, or leave it away.")
        for name, value in (("mb", self.budget_mb), ("ms", self.budget_ms)):
            if value is not None and not 0 < value < math.inf:
                raise DataError(f"--budget-{name} is {value}.", do="Give a number above 0.")
        for name, value, least, most in (
            ("layers", self.layers, 1, math.inf),
            ("seeds", self.seeds, 1, MOST_SEEDS),
            ("seed", self.seed, 0, 2**32 - MOST_SEEDS - 1),
        ):
            if value is not None and not least <= value <= most:
                raise DataError(f"--{name} is {value}.", do=f"Take one from {least} to {most}.")

    @property
    def has_budgets(self) -> bool:
        """Whether students of several depths are candidates."""
        return self.budget_mb is not None or self.budget_ms is not None

    def identity(self) -> dict[str, object]:
        """What a folder's runs have in common. Budgets and more seeds may come in a later call."""
        free = {"out", "budget_mb", "budget_ms", "seeds", "allow_unknown"}
        held = {name: value for name, value in asdict(self).items() if name not in free}
        return held | {"profile": machine.profile(), "version": __version__}


def shrink(
    settings: Shrinking, *, say: Callable[[str], object] = print, progress: bool = True
) -> dict:
    """The contents of results.json; the folder `settings.out` then holds the model and its proof.

    Its files are listed in the model card, its README.md; the steps of the run are in `work`.
    Raises `CourseError` before anything is trained when the data, the teacher, the budgets or the
    folder cannot be used.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    machine.use_all_cores()
    out = Path(settings.out).expanduser()
    refuse_foreign(out)
    base = find_model(settings.teacher or pipeline.BASE[machine.profile()], say=say)
    tokenizer = AutoTokenizer.from_pretrained(base.path, model_max_length=MAX_LENGTH)
    depths = _depths(settings, base)
    task = load_task(
        settings.data,
        text=settings.text,
        label=settings.label,
        label_separator=settings.label_separator,
        encoding=settings.encoding,
        separator=settings.separator,
        say=say,
        progress=progress,
    )
    seen = look(task, tokenizer)
    for line in seen.lines():
        say(line)
    if not settings.allow_unknown:
        refuse_unknown(seen)
    if machine.profile() == "smoke":
        task = pipeline.first_texts(task, pipeline.SMOKE_TEXTS)
    with RunLock(out):
        steps = Steps(out / WORK, settings.identity(), say=say)
        run = ShrinkingSteps(
            steps,
            base,
            tokenizer,
            task,
            tight=settings.budget_mb is not None,
            seed=settings.seed,
            progress=progress,
        )
        files, results = _made(run, settings, depths, seen)
        put(out, files)
    return results


def _made(
    run: ShrinkingSteps, settings: Shrinking, depths: tuple[int, ...], seen: Look
) -> tuple[dict[str, Path | str], dict]:
    """Every file of the finished folder, by name, and the results."""
    say, task = run.steps.say, run.task
    costs = run.costs(depths) if settings.has_budgets else []
    for cost in costs:
        say(f"  {cost}")
    if costs:
        depths = within(costs, settings.budget_mb, settings.budget_ms)
    teacher = run.teacher()
    signals = run.signals(teacher, depths)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    students = {
        layers: [run.student(teacher, signals, depths, layers, seed) for seed in seeds]
        for layers in depths
    }
    choice = run.choice(students)
    for line in choice.lines():
        say(line)
    kept = students[choice.layers]
    student = kept[choice.seed]
    shipped = run.shipped(student)
    found = run.evidence(teacher, kept, choice.seed, shipped)
    odd = run.suspects(signals)
    if odd:
        say(f"! {len(odd):,} training texts have a label that the teacher firmly contradicts.")
    latency_ms = found["rows"][-1]["latency_ms_p50"]
    if settings.budget_ms and latency_ms > settings.budget_ms:
        say(f"! Timed again, one text took {latency_ms:.2f} ms: other work may slow this machine.")
    facts = {
        "base": base_name(run.base),
        "fine_tuned": not run.ready,
        "asked": {k: v for k, v in asdict(settings).items() if k not in ("data", "out", "teacher")},
        "data": seen.as_dict(),
        "said": seen.lines(),
        "candidates": [asdict(cost) for cost in costs],
        "choice": asdict(choice),
        "seeds": found["seeds"],
        "by_class": found["by_class"],
        "suspects": len(odd),
        "max_length": run.max_length,
        "multi_label": task.multi_label,
    }
    results, page = _report(task, found["rows"], facts)
    files = {
        "model.safetensors": student[0] / "model.safetensors",
        "tokenizer.json": student[0] / "tokenizer.json",
        "tokenizer_config.json": student[0] / "tokenizer_config.json",
        "model.onnx": shipped[0] / "model.onnx",
        "config.json": _without_path(shipped[0] / "config.json"),
        "labels.txt": "".join(f"{name}\n" for name in task.labels),
        "README.md": model_card(results),
        "results.json": json.dumps(results, indent=2, ensure_ascii=False) + "\n",
        "report.html": page,
        "suspects.csv": as_csv(odd),
    }
    return files, results


def _report(task: Task, rows: list[dict], facts: dict) -> tuple[dict, str]:
    """The contents of results.json, and the page, which leaves out what is long."""
    short = {k: facts[k] for k in ("base", "asked", "said", "seeds", "suspects")}
    about = machine.describe().as_dict(), task.as_dict()
    with tempfile.TemporaryDirectory() as scratch:
        results = report.write_report(scratch, *about, rows, short)
        page = Path(scratch, "report.html").read_text(encoding="utf-8")
    return results | {"extra": facts}, page


def _without_path(config: Path) -> str:
    """The file's text without the folder it was loaded from, which is nobody else's business."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_name_or_path", None)
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def base_name(base: Found) -> str:
    """The Hub's name of the teacher's base; of a folder its name, without the way to it."""
    return base.path.resolve().name if base.origin == "path" else base.name


def _depths(settings: Shrinking, base: Found) -> tuple[int, ...]:
    """The candidates' depths; raises `ModelError` if this teacher cannot have such students."""
    config = AutoConfig.from_pretrained(base.path)
    try:
        with torch.device("meta"):
            shape = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"A {config.model_type} model cannot be a classifier's teacher.",
            where=base.path,
            do="Give --teacher an encoder, such as a BERT.",
        ) from error
    most = settings.layers or max(1, getattr(config, "num_hidden_layers", 1) // 2)
    plan_student(shape, layers=most)
    return depths_to_try(config.num_hidden_layers, settings.layers, budgets=settings.has_budgets)
