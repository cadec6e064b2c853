"""Measures BERT-base, 12 -> 6 layers, on this machine's GPU: docs/results/gpu.json and gpu.md.

python tools/gpu_results.py [MINUTES]

1. The step: tokens per second, use and memory, for two losses, compiled or not, batch by batch.
2. `course bench mlm`: our way and the original's.
3. A real run: a BERT trained from nothing on PyDocs for MINUTES (10), then half its layers, with
   the teacher and without.

Each part is in the JSON as soon as it is finished. Started again after an interruption, with the
same machine, versions and minutes, the measurement goes on from there.
"""

from __future__ import annotations

import copy
import gc
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, PreTrainedTokenizerBase

from course_utils import bench
from course_utils.data.blocks import to_blocks
from course_utils.data.corpus import read_corpus
from course_utils.data.masking import MaskedBlocks
from course_utils.data.sources import find_model
from course_utils.distill.pretrain import PretrainRecipe, distil_mlm
from course_utils.distill.throughput import matrix_rate
from course_utils.errors import CourseError
from course_utils.files import write_text
from course_utils.machine import describe, profile
from course_utils.measure.guessing import guess, score_guesses
from course_utils.measure.size import own_peak_memory_mb
from course_utils.models.mlm import MaskedLM
from course_utils.models.student import student_from_teacher

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "make gpu-results"
MINUTES = 10.0
LINES = 4  # of the log in a measured run; the first, which warms up and compiles, does not count


@dataclass(frozen=True)
class Size:
    """What is measured. The defaults are for a GPU."""

    config: dict[str, int] = field(default_factory=dict)  # what differs from BERT-base
    length: int = 128
    batches: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    compiled: tuple[bool, ...] = (False, True)
    steps: int = 20
    batch_size: int = 256  # of the real run
    held_out: int = 2000  # blocks
    texts: int | None = None  # of the corpus; None: all


TINY = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
TINY |= {"intermediate_size": 64, "max_position_embeddings": 64}
SIZES = {
    "gpu": Size(),
    "smoke": Size(TINY, 16, (2, 4), (False,), steps=LINES, batch_size=2, held_out=20, texts=2000),
}


class Record:
    """The JSON file: what it is `about`, and `parts`, each there as soon as it is finished.

    A file that is not `complete` and about the same is gone on with; any other is replaced.
    """

    def __init__(self, file: Path, about: dict[str, object], page: Callable[[dict], str]):
        self.file, self.page = file, page
        self.content = {"about": about, "date": str(date.today()), "complete": False, "parts": {}}
        self.content = json.loads(json.dumps(self.content))  # as it is read back
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            if held["about"] == self.content["about"] and not held["complete"]:
                self.content = held
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or one that cannot be gone on with

    def do(self, name: str, work: Callable[[], object]) -> object:
        """What `work` returns, a JSON value; from the file if an earlier run has finished it."""
        parts = self.content["parts"]
        if name not in parts:
            print(f"{name}: working", flush=True)
            parts[name] = work()
            self.write()
        return parts[name]

    def write(self, *, complete: bool = False) -> None:
        """Nothing; the file and the page beside it hold what is known by now."""
        self.content["complete"] = complete
        write_text(self.file, json.dumps(self.content, indent=2) + "\n")
        write_text(self.file.with_suffix(".md"), self.page(self.content))


def measure(
    folder: Path,
    *,
    minutes: float = MINUTES,
    corpus: str | Path = "pydocs",
    model: str | Path | None = None,
    work: Path = ROOT / "build" / "gpu-results",
) -> dict:
    """What was measured, as gpu.json in `folder` has it; gpu.md, which says it, is beside it.

    `model` is the folder or id whose tokenizer is used, None the course's own; `work` keeps the
    checkpoints of the real run. Raises `CourseError` where there is no GPU, but not in the smoke
    profile, whose sizes are tiny.
    """
    machine = describe()
    smoke = profile() == "smoke"
    if machine.device != "cuda" and not smoke:
        raise CourseError(
            f"There is no GPU here that torch can use, only {machine.device_name}.",
            do=f"Run `{COMMAND}` where `make doctor` names one. COURSE_PROFILE=smoke tries the "
            "path with tiny sizes on any machine; its numbers mean nothing.",
        )
    size = SIZES["smoke" if smoke else "gpu"]
    versions = {name: version(name) for name in ("shrinking-bert", "torch", "transformers")}
    about = {"command": COMMAND, "minutes": minutes, "size": asdict(size)}
    about |= {
        "machine": machine.as_dict(),
        "versions": versions,
    }
    record = Record(folder / "gpu.json", about, page)
    tokenizer = AutoTokenizer.from_pretrained(find_model(model).path, model_max_length=512)
    blocks = blocks_of(corpus, tokenizer, size, split="train")

    record.do("matrix_rate", lambda: matrix_rate(machine.dtype, machine.device))
    sweep(record, blocks, new_bert(tokenizer, size), size)
    held_out = blocks_of(corpus, tokenizer, size, split="test")
    real_run(record, blocks, held_out, new_bert(tokenizer, size), size, minutes, work)
    if "mlm" in bench.BENCHMARKS:
        record.do("bench", partial(bench.bench, "mlm"))
    record.write(complete=True)
    return record.content


def blocks_of(
    corpus: str | Path, tokenizer: PreTrainedTokenizerBase, size: Size, *, split: str
) -> MaskedBlocks:
    """The corpus's split as masked blocks; of all but the training split at most `held_out`."""
    texts = read_corpus(corpus, split=split)
    if size.texts is not None:
        texts = texts.select(range(min(size.texts, len(texts))))
    rows = to_blocks(texts, tokenizer, length=size.length)
    if split != "train":
        rows = rows.select(range(min(size.held_out, len(rows))))
    return MaskedBlocks(rows, tokenizer)


def new_bert(tokenizer: PreTrainedTokenizerBase, size: Size) -> BertForMaskedLM:
    """A BERT-base, or what `size` makes of it, with random weights, always the same."""
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **size.config)).eval()


# The step


def sweep(record: Record, blocks: MaskedBlocks, teacher: BertForMaskedLM, size: Size) -> None:
    """Nothing; the record gets a part `step …` for each setting, until memory runs out."""
    for kl_positions in ("masked", "all"):
        for compiled in size.compiled:
            for batch_size in size.batches:
                settings = {"kl_positions": kl_positions, "compile": compiled}
                settings["batch_size"] = batch_size
                name = "step " + " ".join(map(str, settings.values()))
                row = record.do(name, lambda s=settings: s | try_steps(teacher, blocks, size, **s))
                if "trouble" in row:
                    break  # a larger batch needs more


def try_steps(
    teacher: BertForMaskedLM | None, blocks: MaskedBlocks, size: Size, **settings: object
) -> dict[str, object]:
    """What `steps` measures, or `trouble`: out of memory, or why it cannot be compiled."""
    trouble = None
    try:
        return steps(half(teacher), teacher, blocks, size.steps, **settings)
    except torch.OutOfMemoryError:
        trouble = "out of memory"
    except RuntimeError as error:
        if not settings["compile"]:
            raise
        trouble = f"cannot be compiled: {type(error).__name__}"
    finally:
        free()
    return {"trouble": trouble}


def steps(
    student: MaskedLM, teacher: MaskedLM | None, blocks: MaskedBlocks, n: int, **settings: object
) -> dict[str, float]:
    """`tokens_per_s`, `mfu` and `peak_memory_mb` of training steps, the fastest line of the log.

    The memory is what torch has allocated on the GPU; on a CPU, all that this process ever held.
    """
    on_gpu = describe().device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    recipe = PretrainRecipe(steps=n, log_every=n // LINES, **settings)
    log = distil_mlm(student, teacher, blocks, recipe, progress=False)
    fastest = max(log[1:], key=lambda line: line["tokens_per_s"])
    peak = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else own_peak_memory_mb()
    return {name: fastest[name] for name in ("tokens_per_s", "mfu")} | {"peak_memory_mb": peak}


def half(teacher: BertForMaskedLM) -> MaskedLM:
    """A DistilBERT of half the teacher's layers, as its authors made theirs."""
    layers = teacher.config.num_hidden_layers // 2
    return student_from_teacher(teacher, layers=layers, keep_token_types=False)


def free() -> None:
    """Nothing; what a measurement has left in memory, and what was compiled for it, is gone."""
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where there is no GPU


# The real run


def real_run(
    record: Record,
    blocks: MaskedBlocks,
    held_out: MaskedBlocks,
    teacher: BertForMaskedLM,
    size: Size,
    minutes: float,
    work: Path,
) -> None:
    """Nothing; the record gets `plan` and a part for each model, with its scores on `held_out`.

    The teacher learns for `minutes`; its students, equal at the start, take half as many steps.
    """
    if "plan" not in record.content["parts"]:
        shutil.rmtree(work, ignore_errors=True)  # checkpoints of another run
    plan = record.do("plan", lambda: plan_run(record, teacher, blocks, size, minutes))
    batches = {"batch_size": plan["batch_size"], "accumulation": plan["accumulation"]}

    def train(name: str, model: MaskedLM, teacher: MaskedLM | None, **changes: float) -> MaskedLM:
        """The model, trained; if an earlier run has finished that, with its weights."""
        recipe = PretrainRecipe(**batches, **changes)
        distil_mlm(model, teacher, blocks, recipe, out=work / name, progress=False)
        return model.to(describe().device)

    # More cautious than a student's: a deep model that knows nothing diverges more easily.
    cautious = {"learning_rate": 3e-4, "warmup": 0.1, "weight_decay": 0.01, "max_grad_norm": 1.0}
    teacher = train("teacher", teacher, None, steps=plan["steps"], **cautious)
    expected = guess(teacher, held_out)

    def scores(model: MaskedLM) -> dict[str, float]:
        return score_guesses(guess(model, held_out), teacher=expected)

    steps = plan["student_steps"]
    record.do("teacher", lambda: scores(teacher))
    record.do("student at the start", lambda: scores(half(teacher).to(describe().device)))
    for name, helper in (("student with teacher", teacher), ("student without teacher", None)):
        model = half(teacher)
        record.do(name, lambda n=name, m=model, h=helper: scores(train(n, m, h, steps=steps)))


def plan_run(
    record: Record, teacher: BertForMaskedLM, blocks: MaskedBlocks, size: Size, minutes: float
) -> dict[str, float]:
    """Batches and steps of the real run, from how fast the teacher trains here, alone.

    A quarter of the largest batch that fitted a step of the student: the teacher is twice as deep.
    """
    rows = fitting(record.content["parts"])
    largest = max((row["batch_size"] for row in rows), default=1)
    batch_size = min(size.batch_size, max(1, largest // 4))
    accumulation = max(1, size.batch_size // batch_size)
    batches = {"batch_size": batch_size, "accumulation": accumulation}
    pace = steps(copy.deepcopy(teacher), None, blocks, size.steps, **batches)["tokens_per_s"]
    free()
    n = max(2, round(60 * minutes * pace / (batch_size * accumulation * size.length)))
    return batches | {"tokens_per_s": pace, "steps": n, "student_steps": max(1, n // 2)}


# The page

STEP_COLUMNS = {
    "logits": "{kl_positions}",
    "compiled": "{compiled}",
    "batch": "{batch_size}",
    "tokens/s": "{tokens_per_s:,.0f}",
    "use, %": "{mfu:.1%}",
    "peak memory, GB": "{gb:.1f}",
}
MODELS = ("teacher", "student at the start", "student with teacher", "student without teacher")
INTERVAL = "{%s:%s} ({%s_low:%s} to {%s_high:%s})"
MODEL_COLUMNS = {"model": "{model}"} | {
    title: INTERVAL % ((name, form) * 3)
    for title, name, form in (
        ("perplexity", "perplexity", ".2f"),
        ("guessed, %", "accuracy", ".1%"),
        ("as the teacher, %", "agreement", ".1%"),
    )
}


def table(columns: dict[str, str], rows: list[dict]) -> str:
    """A Markdown table: titles, and how a row is written under each; "." is no number."""
    lines = [list(columns), ["---"] + ["---:"] * (len(columns) - 1)]
    lines += [[form.format_map(row).replace("%", "") for form in columns.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(content: dict) -> str:
    """gpu.md: what is measured by now, in Markdown."""
    about, parts = content["about"], content["parts"]
    machine = about["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    text = [f"# Measured on {machine['device_name']}"]
    if not content["complete"]:
        text.append(f"Not finished: `{about['command']}` goes on from here.")
    text.append(
        f"By `{about['command']}`, {content['date']}: {machine['device_memory_gb']} GB, "
        f"{machine['dtype']}, {machine['system']}, Python {machine['python']}, {versions}. "
        "`gpu.json` has every number."
    )
    if "matrix_rate" in parts:
        text.append(
            f"Square matrix products run at {parts['matrix_rate'] / 1e12:.1f} TFLOP/s here. "
            "*Use* is the share of that rate which the models' own arithmetic reached (MFU)."
        )
    if _steps(parts):
        text += ["## A training step", _sizes(about["size"])]
        rows = [
            row
            | {"gb": row["peak_memory_mb"] / 1000, "compiled": "yes" if row["compile"] else "no"}
            for row in fitting(parts)
        ]
        text.append(table(STEP_COLUMNS, rows))
        text += [
            f"Batch {row['batch_size']}, `{row['kl_positions']}`{', compiled' * row['compile']}: "
            f"{row['trouble']}."
            for row in _steps(parts)
            if "trouble" in row
        ]
    if "bench" in parts:
        columns = {name.replace("_", " "): f"{{{name}}}" for name in parts["bench"][0]}
        text += ["## Against the original's way", "`course bench mlm`, in the same run."]
        text.append(table(columns, parts["bench"]))
    if models := [{"model": name} | parts[name] for name in MODELS if name in parts]:
        text += ["## A real run", _plan(about, parts["plan"]), table(MODEL_COLUMNS, models)]
    return "\n\n".join(text) + "\n"


def fitting(parts: dict) -> list[dict]:
    """The rows of the steps that were measured, without those that met trouble."""
    return [row for row in _steps(parts) if "trouble" not in row]


def _steps(parts: dict) -> list[dict]:
    return [row for name, row in parts.items() if name.startswith("step ")]


def _sizes(size: dict) -> str:
    config = BertConfig(**size["config"])
    depth = config.num_hidden_layers
    return (
        f"{depth} -> {depth // 2} layers, hidden {config.hidden_size}, blocks of {size['length']} "
        "tokens. Logits are computed at the masked tokens or at all. The batch is in blocks."
    )


def _plan(about: dict, plan: dict) -> str:
    return (
        f"A BERT with random weights learned for {about['minutes']:g} minutes: "
        f"{plan['steps']:,} steps of {plan['accumulation']} x {plan['batch_size']} blocks. Half of "
        f"its layers then learned for {plan['student_steps']:,} steps, with the teacher and, from "
        "the same start, with the hidden words alone. All are asked about the same hidden words of "
        "blocks that none was trained on; 95 % intervals by bootstrap over the blocks."
    )


def main(arguments: list[str]) -> None:
    """Measure, for as many minutes as the first argument says."""
    try:
        minutes = float(arguments[0]) if arguments else MINUTES
    except ValueError:
        sys.exit(f"Minutes are a number, not {arguments[0]!r}: {COMMAND} MINUTES=10")
    smoke = profile() == "smoke"  # numbers that mean nothing are no results
    folder = ROOT / "build" / "smoke" if smoke else ROOT / "docs" / "results"
    try:
        measure(folder, minutes=minutes)
    except CourseError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
