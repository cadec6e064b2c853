"""A masked-language model distilled, from its settings to its scores, in one process or several.

1. The teacher is found, and a student is made of some of its layers.
2. The corpus becomes blocks; a part of it is held out.
3. The student learns, with checkpoints: a run that was killed goes on when it is started again.
4. Teacher, student, and the student before it learned, guess hidden words of the held-out part.

Under torchrun every process trains; the first alone speaks, writes and measures.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset
from rich.table import Table
from transformers import AutoTokenizer, BertForMaskedLM, PreTrainedTokenizerBase
from transformers.integrations import get_available_reporting_integrations
from transformers.utils import logging as transformers_logging

from course_utils import __version__, machine
from course_utils.data.blocks import token_frequencies
from course_utils.data.encoding import MAX_LENGTH
from course_utils.data.held_out import split_blocks
from course_utils.data.masking import MaskedBlocks, MaskedStream
from course_utils.data.sources import find_model
from course_utils.distill.checkpoints import differences
from course_utils.distill.lock import RunLock
from course_utils.distill.pretrain import PretrainRecipe, distil_mlm
from course_utils.errors import DataError, ModelError, OutputError
from course_utils.files import new_folder, sha256, write_text
from course_utils.measure.guessing import guess, score_guesses
from course_utils.measure.size import parameters
from course_utils.models.mlm import MaskedLM, has_mlm_head, load_masked_lm, need_its_tokenizer
from course_utils.models.student import student_from_teacher
from course_utils.prepared import masked_lm_teacher

CHECKPOINTS, STUDENT, RESULTS = "checkpoints", "student", "results.json"
PATIENCE = timedelta(hours=6)  # of the other processes, while the first downloads and packs


@dataclass(frozen=True)
class Pretraining:
    """Everything that a run is made of; `settings.read_settings` reads it from a TOML file.

    `corpus` is one name or several, see `read_corpus`; `teacher` is "pydocs", the course's own
    (`masked_lm_teacher`), or a folder or Hub id, see `find_model`. `layers` and `keep_token_types`
    are those of `student_from_teacher`, by default every other layer. Blocks have `length` tokens;
    `whole_words` and `smoothing` (rare tokens are hidden more often) are explained in `Masking`.
    Scores are of the first `held_out_blocks`. `report_to` names services that draw curves, such as
    tensorboard. Raises `DataError` for values that cannot be meant.
    """

    corpus: str | tuple[str, ...] = "pydocs"
    teacher: str = "pydocs"
    layers: int | tuple[int, ...] | None = None
    keep_token_types: bool = True
    length: int = MAX_LENGTH
    whole_words: bool = False
    smoothing: bool = False
    held_out_blocks: int = 512
    out: str = "build/distill-mlm"
    report_to: str | tuple[str, ...] = "none"
    recipe: PretrainRecipe = field(default_factory=PretrainRecipe)

    def __post_init__(self):
        if self.whole_words and self.smoothing:
            raise DataError(
                "whole_words and smoothing exclude each other: smoothing goes token by token.",
                do="Set one of the two.",
            )
        for name in ("corpus", "teacher", "out"):
            if not all(value.strip() for value in _as_tuple(getattr(self, name))):
                raise DataError(f"`{name}` is empty.", do="Give a name, or leave the line out.")
        if self.held_out_blocks < 1:
            raise DataError(f"held_out_blocks is {self.held_out_blocks}.", do="Take 1 or more.")
        can = {"none", *get_available_reporting_integrations()}
        if missing := {*_as_tuple(self.report_to)} - can:
            raise DataError(
                f"report_to names {', '.join(sorted(missing))}, which is not installed here.",
                do=f"Install it, or take {' or '.join(sorted(can))}.",
            )


def run(
    config: Pretraining,
    *,
    resume: bool = True,
    progress: bool = True,
    say: Callable[[str], object] = print,
) -> dict[str, object]:
    """The contents of `results.json` in the folder `out`, where the student is saved beside it.

    A run that was stopped goes on from its last whole checkpoint; one that has ended is only
    reported. Raises `CourseError` before anything is trained when models, corpus or folder cannot
    be used, or the folder holds another run.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    machine.use_all_cores()
    group = processes()
    first, out = group.is_main_process, Path(config.out).expanduser()
    say = say if first else _say_nothing
    with RunLock(out) if first else nullcontext():
        with group.main_process_first():  # the others find in the cache what it put there
            teacher, tokenizer, weights = _teacher(config, say)
            student = _student(config, teacher)
            blocks, held_out = _blocks(config, teacher, tokenizer, say)
            inputs = _inputs(config, blocks, held_out, weights)
            ended = resume and _has_ended(out, inputs)
        if ended:
            say(f"This run has ended: {out / RESULTS} is reported.")
            return _read(out)
        log = distil_mlm(
            student,
            teacher,
            blocks,
            config.recipe,
            out=out / CHECKPOINTS,
            resume=resume,
            progress=progress and first,
            report_to=[*_as_tuple(config.report_to)],
            say=say,
        )
        if first:
            _save(out / STUDENT, student, tokenizer)
            before = _student(config, teacher)
            models = {"teacher": teacher, "student": student, "before training": before}
            results = {
                "inputs": inputs,
                "student": sha256(_weights(out)),
                "models": _rows(models, held_out),
                "log": log,
                "processes": group.num_processes,
                "machine": machine.describe().as_dict(),
                "course": __version__,
            }
            write_text(out / RESULTS, json.dumps(results, indent=2) + "\n")
        group.wait_for_everyone()
        return _read(out)


def processes() -> PartialState:
    """The processes that run this together: this one alone, or those that torchrun started."""
    return PartialState(cpu=machine.describe().device == "cpu", timeout=PATIENCE)


def as_table(results: dict) -> Table:
    """The held-out scores for a terminal, a row for each model, with their 95 % intervals."""
    table = Table("", caption="hidden words of text that was held out, with 95 % intervals")
    for column in ("layers", "million", "perplexity", "guessed, %", "as teacher, %"):
        table.add_column(column, justify="right")
    for row in results["models"]:
        scores = [
            [100 ** (name != "perplexity") * row[name + end] for end in ("", "_low", "_high")]
            for name in ("perplexity", "accuracy", "agreement")
        ]
        table.add_row(
            row["name"],
            str(row["layers"]),
            f"{row['params'] / 1e6:.1f}",
            *(f"{value:.1f} ({low:.1f}–{high:.1f})" for value, low, high in scores),
        )
    return table


# --- what a run is made of ---


def _teacher(
    config: Pretraining, say: Callable[[str], object]
) -> tuple[BertForMaskedLM, PreTrainedTokenizerBase, str]:
    """The teacher, its tokenizer and the hash of its weights."""
    if config.teacher == "pydocs":
        folder = masked_lm_teacher(say=say)
    else:
        folder = find_model(config.teacher, say=say).path
    teacher, tokenizer = load_masked_lm(folder), AutoTokenizer.from_pretrained(folder)
    if not has_mlm_head(folder):
        raise ModelError(
            "This model has not learned to guess hidden words: it has no head for it.",
            where=folder,
            do='Take "pydocs", which the course makes of it, or the folder of a BertForMaskedLM.',
        )
    need_its_tokenizer(teacher, tokenizer)
    return teacher, tokenizer, sha256(folder / "model.safetensors")


def _student(config: Pretraining, teacher: BertForMaskedLM) -> MaskedLM:
    layers = config.layers
    if layers is None:
        layers = max(1, teacher.config.num_hidden_layers // 2)
    return student_from_teacher(teacher, layers=layers, keep_token_types=config.keep_token_types)


def _blocks(
    config: Pretraining,
    teacher: BertForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    say: Callable[[str], object],
) -> tuple[MaskedBlocks | MaskedStream, MaskedBlocks]:
    """The masked blocks to train on, and those that are held out: these masked token by token."""
    positions = teacher.config.max_position_embeddings
    if config.length > positions:
        raise DataError(
            f"`length` is {config.length}; the teacher reads {positions} tokens.",
            do=f"Take at most {positions}.",
        )
    seed, options = config.recipe.seed, {"whole_words": config.whole_words}
    blocks, held_out = split_blocks(
        _as_tuple(config.corpus), tokenizer, length=config.length, seed=seed, say=say
    )
    held_out = held_out.select(range(min(len(held_out), config.held_out_blocks)))
    asked = MaskedBlocks(held_out, tokenizer)
    if isinstance(blocks, Dataset):
        if config.smoothing:
            options["frequencies"] = token_frequencies(blocks, len(tokenizer))
        return MaskedBlocks(blocks, tokenizer, seed=seed, **options), asked
    if config.smoothing or config.recipe.steps is None:
        raise DataError(
            "This corpus is a stream, of which nobody knows the end or the rare tokens.",
            do="Give the recipe a number of steps, and leave smoothing out.",
        )
    return MaskedStream(blocks, tokenizer, seed=seed, **options), asked


def _rows(models: dict[str, MaskedLM], held_out: MaskedBlocks) -> list[dict[str, object]]:
    """Depth, size and held-out scores of each model, the first of which is the teacher."""
    device = machine.describe().device
    guesses = {name: guess(model.to(device), held_out) for name, model in models.items()}
    teacher = next(iter(guesses.values()))
    return [
        {"name": name, "layers": model.config.num_hidden_layers, "params": parameters(model)}
        | score_guesses(guesses[name], teacher=teacher)
        for name, model in models.items()
    ]


# --- what is in the folder ---


def _inputs(
    config: Pretraining,
    blocks: MaskedBlocks | MaskedStream,
    held_out: MaskedBlocks,
    weights: str,
) -> dict[str, object]:
    """All that the results depend on, as JSON gives it back."""
    settings = asdict(config)
    del settings["out"], settings["report_to"]
    prints = {
        "blocks": getattr(blocks, "fingerprint", "a stream"),
        "held_out": held_out.fingerprint,
        "weights": weights,
    }
    return json.loads(json.dumps(settings | prints))


def _has_ended(out: Path, inputs: dict[str, object]) -> bool:
    """Whether results and student of this run are there; `OutputError` if they are of another."""
    try:
        results = _read(out)
        there, student = results["inputs"], results["student"]
    except (OSError, ValueError, TypeError, KeyError):
        return False
    if there != inputs:
        raise OutputError(
            f"This folder holds another run: {', '.join(differences(there, inputs))}.",
            where=out,
            do="Choose another folder, or remove this one if you do not need it.",
        )
    return _weights(out).is_file() and sha256(_weights(out)) == student


def _read(out: Path) -> dict[str, object]:
    return json.loads((out / RESULTS).read_text(encoding="utf-8"))


def _save(folder: Path, model: MaskedLM, tokenizer: PreTrainedTokenizerBase) -> None:
    with new_folder(folder) as work:
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)


def _weights(out: Path) -> Path:
    return out / STUDENT / "model.safetensors"


# --- small things ---


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _say_nothing(line: str) -> None:
    """For all processes but the first."""
