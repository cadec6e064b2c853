"""Writes docs/full_run.md: what the whole of DistilBERT's training takes, and what it costs.

    python tools/plan_full_run.py            the page, from what is measured in docs/results
    python tools/plan_full_run.py measure    measure this machine first, without a GPU

The measurement is docs/results/full_run.json. Where `make gpu-results` has made a gpu.json beside
it, the page uses that too.
"""

from __future__ import annotations

import json
import math
import sys
from datetime import date
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from gpu_results import Size, blocks_of, fitting, half, new_bert, steps, table
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerBase,
)

from course_utils.data.corpus import read_corpus
from course_utils.data.masking import SHARE
from course_utils.data.sources import find_model
from course_utils.distill.throughput import ATTENDED, LABELLED, PAIRS, arithmetic, matrix_rate
from course_utils.errors import CourseError, DataError
from course_utils.files import write_text
from course_utils.machine import describe, use_all_cores
from course_utils.measure.memory import kept_for_backward
from course_utils.models.anatomy import count, skeleton

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python tools/plan_full_run.py measure"

# The corpus and the recipe, as their authors state them.
WORDS = {"English Wikipedia": 2.5e9, "BookCorpus": 0.8e9}  # Devlin et al. 2019, section 3.1
EPOCHS = 3  # the command in the DistilBERT authors' code
BLOCKS_PER_STEP = 4000  # Sanh et al. 2019, section 3: "up to 4K examples per batch"
AUTHORS = {"cards": 8, "hours": 90, "peak": 125e12}  # section 3: V100; the peak is the maker's
TEACHER, STUDENT = BertConfig(), DistilBertConfig()

# What the reader replaces.
TOKENS_PER_WORD = 1.3  # by WordPiece, in plain English
PRICES_OF = "November 2026"
USES = (0.20, 0.35, 0.50)
SESSION_HOURS = 4
MINUTES_BETWEEN_CHECKPOINTS = 15
NOTEBOOK_MINUTES = 45  # what notebook 05 allows itself on a T4


class Machine(NamedTuple):
    """Cards of one kind: what their maker says, and what an hour of one costs."""

    cards: int
    card: str
    peak: float  # operations per second of one card, dense, in `dtype`
    dtype: str
    memory_gb: int  # of one card
    dollars: float  # for an hour of one card


MACHINES = (
    Machine(1, "T4", 65e12, "float16", 15, 0.40),
    Machine(1, "A100", 312e12, "bfloat16", 40, 2.00),
    Machine(8, "H100", 989e12, "bfloat16", 80, 3.00),
)
WAYS = {"masked": LABELLED, "all": ATTENDED}  # which tokens the heads see
LENGTHS = (128, 512)


# The arithmetic


@lru_cache
def operations(way: str, length: int) -> float:
    """Operations per token: the teacher forward, the student forward and backward.

    `way` is masked or all; the blocks have `length` tokens and no padding.
    """
    models = (skeleton(config, kind=AutoModelForMaskedLM) for config in (STUDENT, TEACHER))
    cost = arithmetic(*models, heads_at=WAYS[way])
    return cost[LABELLED] * SHARE + cost[ATTENDED] + cost[PAIRS] * length


def tokens(per_word: float) -> float:
    """Tokens that the whole training reads."""
    return sum(WORDS.values()) * per_word * EPOCHS


def hours(total: float, machine: Machine, use: float) -> float:
    """Hours that `total` operations take at this use of the machine's peak."""
    return total / (machine.cards * machine.peak * use) / 3600


def fixed_bytes() -> dict[str, float]:
    """Bytes that a training holds whatever its batch: by what they are for."""
    learned, taught = (
        sum(count(config, kind=AutoModelForMaskedLM).values()) for config in (STUDENT, TEACHER)
    )
    return {
        "student's weights, float32": 4 * learned,
        "their copies in 16 bits, while it computes": 2 * learned,
        "gradients, float32": 4 * learned,
        "AdamW's two averages, float32": 8 * learned,
        "teacher's weights, 16 bits": 2 * taught,
    }


def block_bytes(length: int, kept: float) -> float:
    """Bytes that each block of a batch adds, heads at the masked tokens.

    `kept` bytes stay for each number of a layer's input, see `kept_in_a_layer`. A masked token
    keeps its logits, the teacher's, the softmax of both and a gradient: five numbers of 4 bytes for
    each word of the vocabulary.
    """
    layers = kept * length * STUDENT.dim * STUDENT.n_layers
    return layers + 20 * SHARE * length * STUDENT.vocab_size


def checkpoint_bytes() -> float:
    """Bytes of a checkpoint: the student's weights and AdamW's two averages of their gradients."""
    held = fixed_bytes()
    return held["student's weights, float32"] + held["AdamW's two averages, float32"]


def largest_batch(machine: Machine, length: int, kept: float) -> int:
    """The largest power of two of blocks that fits into nine tenths of a card's memory."""
    room = 0.9 * machine.memory_gb * 1e9 - sum(fixed_bytes().values())
    return 2 ** math.floor(math.log2(room / block_bytes(length, kept)))


# What is measured


def measure() -> dict:
    """How well training uses this machine, and how many tokens a word has.

    Speed and rate are each the best of several rounds: what else the machine does costs both.
    """
    use_all_cores()
    machine = describe()
    tokenizer = AutoTokenizer.from_pretrained(find_model().path, model_max_length=512)
    size = Size(texts=2000)
    blocks, teacher = blocks_of("pydocs", tokenizer, size, split="train"), new_bert(tokenizer, size)
    rates, rows = [], []
    for way in WAYS:
        found = []
        for _ in range(2):
            matrix_rate.cache_clear()
            rates.append(matrix_rate(machine.dtype, machine.device))
            found.append(steps(half(teacher), teacher, blocks, 8, batch_size=8, kl_positions=way))
        speed = max(row["tokens_per_s"] for row in found)
        rows.append({"kl_positions": way, "batch_size": 8, "tokens_per_s": speed})
    for row in rows:
        row["mfu"] = row["tokens_per_s"] * operations(row["kl_positions"], 128) / max(rates)
    return {
        "command": COMMAND,
        "date": str(date.today()),
        "machine": machine.as_dict(),
        "matrix_rate": max(rates),
        "rows": rows,
        "tokens_per_word": tokens_per_word(tokenizer),
        "kept_in_a_layer": kept_in_a_layer(),
    }


def kept_in_a_layer(length: int = 128) -> float:
    """Bytes that training keeps for each number of a layer's input, until the backward pass.

    In bfloat16 where autocast allows it, with torch's fused attention, without dropout.
    """
    kept = []
    for n_layers in (1, 2):
        config = DistilBertConfig(
            n_layers=n_layers, vocab_size=2, dropout=0.0, attention_dropout=0.0
        )
        encoder = DistilBertModel(config).train()
        for n_blocks in (1, 2):
            with torch.autocast("cpu", torch.bfloat16):
                ids = torch.ones(n_blocks, length, dtype=torch.int64)
                kept.append(sum(n for _, n in kept_for_backward(encoder, ids)))
    return ((kept[3] - kept[2]) - (kept[1] - kept[0])) / (length * STUDENT.dim)


def tokens_per_word(tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """Tokens for each word of the corpora at hand, by name; see `share_out`."""
    found = {}
    for name in ("pydocs", "wikitext2"):
        try:
            texts = read_corpus(name)
        except DataError:  # no mirror
            continue
        found[name] = per_word(tokenizer, [row["text"] for row in islice(texts, 2000)])
    return found


def per_word(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> float:
    """Tokens for each word: what stands between spaces and has a letter or a digit."""
    words = sum(any(map(str.isalnum, word)) for text in texts for word in text.split())
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return sum(map(len, ids)) / words


# The page


def page(measured: dict, on_gpu: dict | None) -> str:
    """docs/full_run.md in Markdown, from full_run.json and, where there is one, gpu.json."""
    uses = {way: our_use(way, measured, on_gpu) for way in WAYS}
    return "\n\n".join(
        (
            INTRODUCTION,
            "## What is read\n\n" + reading(measured),
            "## What is computed\n\n" + computing(),
            "## How well a machine is used\n\n" + using(measured, on_gpu),
            "## Hours and money\n\n" + paying(uses),
            "## Memory and disk\n\n" + holding(measured["kept_in_a_layer"]),
            "## On Colab\n\n" + in_sessions(USES[0]),
        )
    )


INTRODUCTION = f"""# Planning the full run

DistilBERT was made of English Wikipedia and BookCorpus. The course trains on less; this page \
says what the whole takes: BERT-base into 6 layers, {EPOCHS} epochs. `tools/plan_full_run.py` \
writes it: change the tables there, not this page.

Every number has one of three marks: **M** was measured by us, **C** was computed from numbers on \
this page, **A** is assumed, with its source if it has one."""


def reading(measured: dict) -> str:
    """The corpus: words, tokens, blocks, steps."""
    words = " + ".join(f"{n / 1e9:.1f} G ({name})" for name, n in WORDS.items())
    ratios = ", ".join(f"{n:.2f} in {name}" for name, n in measured["tokens_per_word"].items())
    total = tokens(TOKENS_PER_WORD)
    rows = [
        ("words", words, "A", "Devlin et al. 2019, section 3.1; theirs, we did not count"),
        ("tokens for each word", f"{TOKENS_PER_WORD}", "A", f"**M** {ratios}"),
        ("epochs", f"{EPOCHS}", "A", "the DistilBERT authors' command"),
        ("tokens read", f"{total / 1e9:.1f} G", "C", "words × tokens for each word × epochs"),
    ]
    for length in LENGTHS:
        n = total / (BLOCKS_PER_STEP * length)
        how = f"tokens ÷ ({BLOCKS_PER_STEP:,} × {length})"
        rows.append((f"steps with blocks of {length}", f"{n:,.0f}", "C", how))
    return (
        fact_table(rows)
        + f"\n\nA step has {BLOCKS_PER_STEP:,} blocks (**A**, Sanh et al. 2019: “up to 4K examples "
        "per batch”; their code's command makes 2,000). Accumulation fills it on any card. The "
        "Wikipedia of today is larger than theirs: `to_blocks` prints what it has counted, so "
        "count before you pay."
    )


def computing() -> str:
    """Operations per token and in all, for each way."""
    total = tokens(TOKENS_PER_WORD)
    columns = {"way": "{way}", "blocks of": "{length}", "MFLOP for a token": "{each:,.0f}"}
    columns |= {"EFLOP for the whole run": "{all:.1f}"}
    names = {"masked": "ours, `masked`", "all": "ours, `all`; the authors' way"}
    rows = [
        {"way": names[way], "length": length, "each": n / 1e6, "all": n * total / 1e18}
        for way in WAYS
        for length in LENGTHS
        for n in [operations(way, length)]
    ]
    authors = AUTHORS["cards"] * AUTHORS["hours"]
    share = operations("all", 512) * total / (authors * 3600 * AUTHORS["peak"])
    return (
        f"{table(columns, rows)}\n\n**C**: the teacher once forward, the student forward and, "
        "twice as much, backward (`throughput.arithmetic`). `masked` computes logits for the "
        f"{SHARE:.0%} of the tokens that are hidden, `all` for every token. The authors' way needs "
        "the operations of `all`, and more for padding; what it costs beyond that is memory and "
        "time in which nothing is multiplied: `course bench mlm`.\n\n"
        f"A check: the authors report {AUTHORS['hours']} hours on {AUTHORS['cards']} V100 (**A**). "
        f"These operations in {authors} hours of such a card are {share:.1%} of its peak of "
        f"{AUTHORS['peak'] / 1e12:.0f} TFLOP/s in 16 bits (**C**)."
    )


def using(measured: dict, on_gpu: dict | None) -> str:
    """The measured use, and what it is a share of."""
    cpu = measured["machine"]
    text = [
        "*Use* (MFU) is the models' own arithmetic per second, as a share of a rate. Ours is a "
        "share of the rate at which the same machine multiplies square matrices."
    ]
    for row in measured["rows"]:
        text.append(
            f"- **M** {cpu['cpu']}, {cpu['threads']} threads, {cpu['dtype']}, {measured['date']}: "
            f"`{row['kl_positions']}`, batch {row['batch_size']} × 128: "
            f"{row['tokens_per_s']:,.0f} tokens/s, use {row['mfu']:.0%} of "
            f"{measured['matrix_rate'] / 1e9:,.0f} GFLOP/s."
        )
    if on_gpu is None:
        text.append(
            "\nNo GPU was at hand. Its rows below are **planned, not measured**: with our CPU's "
            "use, and with a range of uses, of the peak that the maker states. Our CPU's column is "
            "rather a bound than a promise: no product of matrices reaches a maker's peak, and a "
            "GPU waits longer between them. Plan with 20%. `make gpu-results` measures your GPU, "
            "and then this page uses that."
        )
    for row in fastest(on_gpu).values():
        text.append(
            f"- **M** {on_gpu['about']['machine']['device_name']}, {on_gpu['date']}, `make "
            f"gpu-results`: `{row['kl_positions']}`, batch {row['batch_size']} × 128: "
            f"{row['tokens_per_s']:,.0f} tokens/s, use {row['mfu']:.0%} of "
            f"{on_gpu['parts']['matrix_rate'] / 1e12:,.0f} TFLOP/s; the whole run in "
            f"{tokens(TOKENS_PER_WORD) / row['tokens_per_s'] / 3600:,.0f} hours (**C**)."
        )
    return "\n".join(text).replace(".\n- ", ".\n\n- ", 1)


def paying(uses: dict[str, tuple[str, float]]) -> str:
    """Hours and dollars for each machine and use, for each way."""
    text = []
    for way, (name, ours) in uses.items():
        total = operations(way, 128) * tokens(TOKENS_PER_WORD)
        columns = {
            "machine": "{name}",
            "peak of a card": "{peak}",
            f"{ours:.0%} ({name})": "{use0}",
        }
        columns |= {f"{use:.0%}": f"{{use{i}}}" for i, use in enumerate(USES, start=1)}
        rows = []
        for machine in MACHINES:
            row = {
                "name": f"{machine.cards} × {machine.card}",
                "peak": f"{machine.peak / 1e12:.0f} TFLOP/s",
            }
            for i, use in enumerate((ours, *USES)):
                n = hours(total, machine, use)
                cost = n * machine.cards * machine.dollars
                row[f"use{i}"] = f"{n:,.{1 if n < 10 else 0}f} h, ${cost:,.0f}"
            rows.append(row)
        text += [f"`{way}`, blocks of 128:", table(columns, rows)]
    prices = ", ".join(f"{m.card} ${m.dollars:.2f}" for m in MACHINES)
    dtypes = ", ".join(f"{m.dtype} on the {m.card}" for m in MACHINES)
    return (
        "\n\n".join(text)
        + "\n\n**C**: hours = operations ÷ (cards × peak × use); dollars = hours × cards × price. "
        f"**A**: the makers' dense peaks, {dtypes}; "
        f"the price of a card for an hour, {prices}, round numbers of {PRICES_OF}. Put your own "
        "into the table `MACHINES`. Eight cards are taken for eight times one: they exchange "
        f"{fixed_bytes()['gradients, float32'] / 1e6:.0f} MB of gradients once a step of "
        f"{BLOCKS_PER_STEP:,} blocks."
    )


def holding(kept: float) -> str:
    """Memory whatever the batch, memory of a block, the batch that fits, a checkpoint."""
    rows = [(name, f"{n / 1e9:.2f} GB", "C", "") for name, n in fixed_bytes().items()]
    rows.append(("together", f"{sum(fixed_bytes().values()) / 1e9:.2f} GB", "C", ""))
    for length in LENGTHS:
        fits = ", ".join(
            f"{m.card} ({m.memory_gb} GB) {largest_batch(m, length, kept):,}" for m in MACHINES
        )
        each = f"{block_bytes(length, kept) / 1e6:.0f} MB"
        rows.append((f"each block of {length}, `masked`", each, "C", f"fits: {fits}"))
    checkpoint = checkpoint_bytes()
    rows.append(("a checkpoint on disk", f"{checkpoint / 1e9:.2f} GB", "C", "weights and AdamW"))
    return (
        fact_table(rows) + f"\n\nA layer keeps {kept:.0f} bytes for each number of its input until "
        "the backward pass (**M**, on a CPU, in bfloat16 with fused attention); a hidden token "
        "keeps five numbers for each word of the vocabulary (**A**: logits and softmax of both "
        "models, a gradient). The batch that "
        "fits is a power of two within nine tenths of the memory. Two checkpoints are kept and a "
        f"third is written: have {3 * checkpoint / 1e9:.1f} GB free."
    )


def in_sessions(use: float) -> str:
    """What interruptions mean on a T4: sessions, checkpoints, and the notebook's own size."""
    t4 = MACHINES[0]
    total = operations("masked", 128) * tokens(TOKENS_PER_WORD)
    n, n_steps = hours(total, t4, use), tokens(TOKENS_PER_WORD) / (BLOCKS_PER_STEP * 128)
    step_seconds = n * 3600 / n_steps
    every = max(1, round(60 * MINUTES_BETWEEN_CHECKPOINTS / step_seconds))
    notebook = 60 * NOTEBOOK_MINUTES * t4.peak * use / operations("masked", 128)
    return (
        f"A session ends after some hours, at a time that Colab chooses; we plan {SESSION_HOURS} "
        f"(**A**). At a use of {use:.0%} (**A**), a T4 takes {step_seconds:.0f} s for a step of "
        "the full run (**C**). Keep a checkpoint on Drive every "
        f"{MINUTES_BETWEEN_CHECKPOINTS} minutes, `save_every={every}`: an interruption "
        "then costs at most that, and the same cell goes "
        f"on from the newest whole checkpoint. The full run takes "
        f"{math.ceil(n / SESSION_HOURS)} sessions (**C**), so take another machine for it.\n\n"
        f"The `gpu` profile of notebook 05 is made for at most {NOTEBOOK_MINUTES} minutes on a T4 "
        f"(**A**): {math.ceil(NOTEBOOK_MINUTES / 60 / SESSION_HOURS)} session, in which "
        f"{notebook / 1e6:.0f} M tokens are read (**C**), {notebook / tokens(TOKENS_PER_WORD):.1%} "
        "of the full run's.\n"
    )


def fact_table(rows: list[tuple[str, str, str, str]]) -> str:
    """A Markdown table of facts: what, how much, its mark, where it comes from."""
    columns = {"what": "{0}", "how much": "{1}", "mark": "**{2}**", "from": "{3}"}
    lines = [columns, dict.fromkeys(columns, "---")]
    lines += [{name: form.format(*row) for name, form in columns.items()} for row in rows]
    lines[0] = {name: name for name in columns}
    return "\n".join(f"| {' | '.join(line.values())} |" for line in lines)


def fastest(on_gpu: dict | None) -> dict[str, dict]:
    """For each way, the row of gpu.json with the most tokens per second."""
    rows = fitting(on_gpu["parts"]) if on_gpu else []
    best: dict[str, dict] = {}
    for row in sorted(rows, key=lambda row: row["tokens_per_s"]):
        best[row["kl_positions"]] = row
    return best


def our_use(way: str, measured: dict, on_gpu: dict | None) -> tuple[str, float]:
    """Whose use is ours, and how much: the GPU's, where one was measured, or the CPU's."""
    if row := fastest(on_gpu).get(way):
        return on_gpu["about"]["machine"]["device_name"], row["mfu"]
    return "our CPU's", next(row["mfu"] for row in measured["rows"] if row["kl_positions"] == way)


def write(root: Path) -> Path:
    """docs/full_run.md, written; raises `CourseError` where nothing has been measured."""
    results = root / "docs" / "results"
    found = [_read(results / name) for name in ("full_run.json", "gpu.json")]
    if found[0] is None:
        raise CourseError("Nothing is measured yet.", where=results, do=f"Run `{COMMAND}`.")
    return write_text(root / "docs" / "full_run.md", page(*found))


def _read(file: Path) -> dict | None:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def main(arguments: list[str]) -> None:
    """Measure, if asked to, and write the page."""
    try:
        if arguments == ["measure"]:
            text = json.dumps(measure(), indent=2) + "\n"
            write_text(ROOT / "docs" / "results" / "full_run.json", text)
        elif arguments:
            sys.exit(f"There is no {' '.join(arguments)!r}: give nothing, or measure.")
        print(write(ROOT).relative_to(ROOT))
    except CourseError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
