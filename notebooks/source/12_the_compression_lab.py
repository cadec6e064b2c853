# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 · The compression lab
#
# > **About 75 minutes**, of which your computer works for about three, and one more the first
# > time, to train a teacher. Two processor cores are enough; a network is not needed. You should have met
# > the cuts: students (notebook 04), pruning (08), low rank and small vocabularies (09), quantization (10).
#
# Every chapter before this one had *its* method, its texts and its figure. That is how most tables in papers
# are made, too, and they cannot be compared. Here all methods meet: one teacher, the same texts, one run.
#
# When you reach the end of this page you will have
#
# - read one honest table of every method and of the combinations that make sense,
# - told which models are worth having, and which are beaten,
# - put an interval around a difference, and seen why that needs the same texts,
# - compared operations in both orders,
# - run a small lab of your own, and laid it beside the course's,
# - made a model fit a budget of megabytes, milliseconds and points,
# - started it where there is no PyTorch, and weighed what a deployment really is.

# %% tags=["setup"]
import warnings

warnings.filterwarnings("ignore")

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from transformers.utils import logging

from course_utils import machine, pipeline, prepared
from course_utils.classroom import check, claim
from course_utils.classroom import lab_figures as figures
from course_utils.classroom.make_it_fit import Budget, compose, verdict
from course_utils.classroom.plots import show, use_style
from course_utils.classroom.quiz import quiz
from course_utils.data.tasks import load_task
from course_utils.distill.trainer import Recipe
from course_utils.lab.operations import parse
from course_utils.lab.reference import reference
from course_utils.lab.run import run
from course_utils.lab.table import as_table
from course_utils.ship.bare import bare_python, disk_mb, needed, run_bare
from course_utils.ship.runtime import OnnxClassifier

logging.set_verbosity_error()
logging.disable_progress_bar()
use_style()

# %% tags=["nbval-ignore-output"]
machine.use_all_cores()
small = machine.profile() == "smoke"
print(machine.describe())

# %% [markdown]
# ## A model as a line of words
#
# All operations of this part take a model and give back an *ordinary*, smaller one. So they can follow one
# another, and what was done to a model can be written as a line:
#
# | operation | what it does | the model learns afterwards | from |
# |---|---|---|---|
# | `layers 3` | a student of three of the teacher's layers | yes | 04, 06 |
# | `prune 50` | half of the heads and of the neurons go, by Taylor | yes | 08 |
# | `rank 50` | linear layers as two factors, half of the encoder's parameters | yes | 09 |
# | `words 128` | the word table as two factors of rank 128 | yes | 09 |
# | `trim` | the tokens that the task needs are kept, and 128 of 512 positions | no | 09 |
# | `trim 8000` | 8000 tokens: all characters, then the most frequent; 128 positions | no | 09 |
# | `bf16`, `int8`, `int4` | smaller numbers; always the last | no | 10 |

# %% tags=["slide-line"]
line = parse("trim 8000, layers 3, prune 50, int8")
for operation in line:
    print(f"{operation!s:10} learns: {operation.is_learned}")

# %% [markdown]
# What learns, learns as the students of notebook 06 do: from what the teacher said about many texts, with and
# without labels. There is one teacher, and it was asked once.
#
# ### Exercise: what will it weigh?
#
# > Difficulty: easy · about 8 minutes
#
# The size of a model can be known before it is made. Count its two large parts: the word table, and for each layer
# the four matrices of the attention and the two of the feed-forward. Biases, norms, positions and the head are
# a few per cent: leave them out. A megabyte is 10⁶ bytes.


# %%
def megabytes(vocabulary, layers, hidden, feed_forward, bytes_each):
    """10^6 bytes of a BERT encoder's matrices and its word table."""
    # solution
    numbers = vocabulary * hidden + layers * (4 * hidden**2 + 2 * hidden * feed_forward)
    return numbers * bytes_each / 1e6


# %%
check.megabytes(megabytes)


# %% tags=["solution"]
def megabytes_answer(vocabulary, layers, hidden, feed_forward, bytes_each):
    numbers = vocabulary * hidden + layers * (4 * hidden**2 + 2 * hidden * feed_forward)
    return numbers * bytes_each / 1e6


check.megabytes(megabytes_answer)

# %% [markdown]
# Count two models with it: the teacher (30 522 words, six layers, H = 384, F = 1536, four bytes each), and
# `trim 8000, layers 3, int8`. How many times smaller is the second? The table that comes now has the files as they
# are.
#
# ## One honest table
#
# `course run --lab` in a terminal makes every model and measures them all in one run. That takes about
# half an hour on two cores, so this page does not do it. The course keeps its own run, with the machine
# and the versions it was made with:

# %%
theirs = reference("pydocs")
facts = {key: theirs["machine"][key] for key in ("system", "cpu", "threads")}
facts |= theirs["extra"]["versions"] | {"test texts": theirs["task"]["test"]}
for name, value in facts.items():
    print(f"{name:15} {value}")

# %% tags=["slide-table"]
Console(width=120).print(as_table(theirs))

# %% [markdown]
# Each line is a model that was made, saved, loaded again and timed in turns with all the others. "Smaller" and
# "faster" are ratios to the teacher, MiniLM's six layers in PyTorch with 32-bit floats: for one text at a
# time, and in batches of 32. The last column is a difference to the teacher, in points, with its 95 % interval.
#
# Take a minute before you go on. Which single operation saves most bytes? Which most milliseconds? Which
# costs least? And are the three the same?
#
# ## Which ones are worth having?
#
# A model is *beaten* if another is at least as small and at least as often right, and better in one of the
# two. Those that nobody beats are the [*Pareto front*](../docs/glossary.md#pareto-front).
#
# ### Exercise: the front
#
# > Difficulty: medium · about 10 minutes


# %% tags=["slide-on-the-front"]
def on_the_front(sizes, accuracies):
    """For each model, whether no other beats it: a list of True and False."""
    # solution
    models = list(zip(sizes, accuracies, strict=True))
    return [
        not any(
            other_size <= size and other >= accuracy and (other_size, other) != (size, accuracy)
            for other_size, other in models
        )
        for size, accuracy in models
    ]


# %%
check.on_the_front(on_the_front)


# %% tags=["solution"]
def on_the_front_answer(sizes, accuracies):
    models = list(zip(sizes, accuracies, strict=True))
    return [
        not any(
            other_size <= size and other >= accuracy and (other_size, other) != (size, accuracy)
            for other_size, other in models
        )
        for size, accuracy in models
    ]


check.on_the_front(on_the_front_answer)

# %% tags=["slide-front"]
rows = theirs["rows"]
show(
    figures.front_figure(rows, title="Which models are worth having?"),
    alt="Accuracy over size on disk, logarithmic, for every pipeline of the course's run, with intervals. "
    "The models of the front are filled, named and joined by a line; the others are pale.",
)

# %% [markdown]
# Read it aloud, from right to left. Sixteen bits are half of the bytes, and next to no answer changes. Eight
# bits are half of those. Then the words that the task does not need go, and up to here *nothing was trained*.
# What comes now is paid with training, and with accuracy: thinner layers, fewer layers, a thinner word table.
# At the left end a model with a twentieth of the bytes is a few points behind.
#
# And read what is *not* on the front. Two factors of low rank: pruning of the same size is faster, for it makes
# one product where they make two. (It is a point more often right as well, but that is what another seed may
# change.) Four bits are on the front of bytes, but they are slower than eight: a figure shows the two axes that
# somebody chose. And three whole layers: six that have half of their heads and neurons, and a thousand words
# fewer, are smaller and more often right. Are they faster, too? Look at the table: for one text at a time,
# three steps are done sooner than six, however thin. Say it with numbers:

# %%
by_name = {row["name"]: row for row in rows}
lost = {d["name"]: d for d in theirs["differences"] if d["than"] == "teacher"}


def keeps(smaller, faster, kept):
    """The pipelines with at least these ratios to the teacher, at one text and at 32."""
    return [
        row["name"]
        for row in rows
        if row["size_ratio"] >= smaller
        and min(row["speedup_batch1"], row["speedup_batch32"]) >= faster
        and row["retention"] >= kept
    ]


for demand in ((5, 4, 0.99), (10, 6, 0.97), (20, 6, 0.94)):
    smaller, faster, kept = demand
    print(f"{smaller} times smaller, {faster} times faster, {kept:.0%} kept: {keeps(*demand)}")

# %%
untrained = lost["trim, int8"]
claim(
    "int8 and fewer words, untrained: the interval of what is lost holds 0",
    abs(untrained["points"]) < untrained["half_width"],
)
claim("ten times smaller, six times faster, 97 % kept: there is one", bool(keeps(10, 6, 0.97)))
claim("twenty times smaller, 94 % kept: there is one", bool(keeps(20, 6, 0.94)))
pruned, factors = by_name["prune 50, int8"], by_name["rank 50, int8"]
claim(
    "pruning is faster than low rank of the same size, for one text and in batches",
    abs(pruned["size_mb"] / factors["size_mb"] - 1) < 0.01
    and pruned["speedup_batch1"] > factors["speedup_batch1"]
    and pruned["speedup_batch32"] > factors["speedup_batch32"],
)
thin, few = by_name["trim 7000, prune 50, int8"], by_name["trim 8000, layers 3, int8"]
claim(
    "six thin layers, fewer words: smaller than three whole, more often right, slower for one text",
    thin["size_mb"] < few["size_mb"]
    and thin["accuracy"] > few["accuracy"]
    and thin["latency_ms_p50"] > few["latency_ms_p50"],
)
claim(
    "four bits are smaller than eight, and slower here",
    by_name["int4"]["size_mb"] < by_name["int8"]["size_mb"]
    and by_name["int4"]["latency_ms_p50"] > by_name["int8"]["latency_ms_p50"],
)

# %% [markdown]
# Is that only so for this task? The course ran a few of the lines on SST-2, short sentences of film reviews that
# are for or against:

# %%
reviews = reference("sst2")
Console(width=120).print(as_table(reviews))

# %%
smallest = min(reviews["rows"], key=lambda row: row["size_mb"])
claim(
    "there, too, twenty times smaller: 94 % are kept",
    smallest["size_ratio"] >= 20 and smallest["retention"] >= 0.94,
)

# %% [markdown]
# ## Is that a difference?
#
# Two rows of a table have two intervals, and they overlap. Does that mean that nothing is known? No. The two
# models have read the *same* texts. A text that is hard for one is hard for the other, too, and plays no part in
# their difference. So we look at the difference text by text.
#
# ### Exercise: a paired interval
#
# > Difficulty: medium · about 10 minutes
#
# `right_a` and `right_b` hold 1 for each text that model a, or b, gets right, else 0. Give by how many [*points*](../docs/glossary.md#point) a
# is right more often, and half of the 95 % interval: 1.96 standard errors of the mean difference.


# %% tags=["slide-paired-interval"]
def paired_interval(right_a, right_b):
    """(points, half width) of a less b, both arrays of 0 and 1 for the same texts."""
    # solution
    difference = 100 * (right_a.astype(float) - right_b)
    return difference.mean(), 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))


# %%
check.paired_interval(paired_interval)


# %% tags=["solution"]
def paired_interval_answer(right_a, right_b):
    difference = 100 * (right_a.astype(float) - right_b)
    return difference.mean(), 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))


check.paired_interval(paired_interval_answer)

# %% [markdown]
# How much narrower is it? Take int8, which changes few answers. From its row in the table you would get
# the first interval, from its answers the second:

# %% tags=["slide-paired"]
int8 = by_name["int8"]
halves = [(row["accuracy_high"] - row["accuracy_low"]) / 2 for row in (int8, rows[0])]
unpaired = 100 * np.hypot(*halves)
paired = lost["int8"]
print(f"int8 against the teacher, from two rows:  ± {unpaired:.1f} points")
print(f"int8 against the teacher, text by text:   ± {paired['half_width']:.1f} points")

# %%
claim("text by text, the interval is less than half as wide", paired["half_width"] < unpaired / 2)

# %% [markdown]
# The interval knows about other texts. It does not know about other *seeds*: each pipeline of the lab was
# trained once. So read a difference of a point between two trained models as "about the same", whatever its
# interval says; notebook 06 shows how far seeds can lie apart.
#
# ## Which goes first?
#
# Some orders make no sense: nothing can follow smaller numbers, and layers are taken from a whole teacher. Others
# are a choice. Trim the words *before* a student learns, and it learns with the pieces that it will have to
# read. Trim *afterwards*, and a word that is gone reaches it in pieces that it has never seen. Prune before
# trimming, or after? Think about what you expect, then look:

# %%
orders = [d for d in theirs["differences"] if d["than"] != "teacher"]
for d in orders:
    print(f"{d['name']}\n  against {d['than']}: {d['points']:+.1f} ± {d['half_width']:.1f} points")

# %% tags=["slide-order"]
pairs = [(by_name[d["name"]], by_name[d["than"]]) for d in orders]
show(
    figures.order_figure(pairs),
    alt="For each pair of pipelines with the same operations in two orders: accuracy with intervals, one above "
    "the other.",
)

# %%
trim_last = next(d for d in orders if "trim 4000" in d["name"])
claim(
    "few words: trimmed after the training it is worse, outside the interval",
    trim_last["points"] < -trim_last["half_width"],
)

# %% [markdown]
# Where many words stay, little is cut, and the order hardly matters. The fewer they are, the more it does: the
# student that had to learn with the pieces knows them. The rule behind it: *what comes last should have been
# there while the model learned*, or disturb it so little that nothing has to be learned, as int8 does. An
# order that costs nothing to try is worth trying; one that needs a second training has to be worth a training.

# %% [markdown]
# ## A lab of your own
#
# Now on your machine: a small lab, with the teacher that you have, few texts, and a short training. The
# accuracies will be lower than the course's. Sizes and speeds need no long training.

# %%
SIZES = {
    "smoke": {"train": 32, "test": 32, "epochs": 1},
    "cpu": {"train": 960, "test": 480, "epochs": 2},
    "gpu": {"train": 6000, "test": 2400, "epochs": 3},
}
size = SIZES[machine.profile()]
whole = load_task("pydocs", say=lambda line: None, progress=False)
task = replace(
    pipeline.first_texts(whole, size["train"]),
    test=whole.test.select(range(min(size["test"], len(whole.test)))),
    unlabelled=whole.unlabelled[: 2 * size["train"]],
)
recipe = Recipe(
    size["epochs"], 3e-4, batch_size=32, alpha=0.0, beta=10.0, temperature=8.0, freeze_words=True
)
lines = ["int8", "layers 3, int8", "layers 3, trim 8000, int8", "trim 8000, layers 3, int8"]

# %% tags=["nbval-ignore-output"]
scratch = tempfile.TemporaryDirectory()
mine = run(
    task,
    pipelines=lines,
    teacher=prepared.pydocs_teacher(say=lambda line: None),
    recipe=recipe,
    out=Path(scratch.name, "lab"),
    say=lambda line: None,
    progress=False,
)
Console(width=120).print(as_table(mine))

# %% tags=["slide-beside"]
show(
    figures.beside_figure(theirs["rows"], mine["rows"]),
    alt="For each pipeline that both runs have: how much smaller and faster it is than its teacher, and what it "
    "keeps of the accuracy, in the course's run and in this one.",
)

# %%
own = {row["name"]: row for row in mine["rows"]}
near = [abs(own[name]["size_ratio"] / by_name[name]["size_ratio"] - 1) < 0.02 for name in lines]
claim("what is saved in bytes does not depend on the machine", all(near))
claim(
    "int8 keeps its teacher's class for nine texts of ten",
    small or own["int8"]["agreement"] >= 0.9,
)

# %% [markdown]
# Sizes are the same everywhere. Times are not: a processor without 8-bit dot products gains less from int8, one
# with more cores gains less from a thin model at one text. If yours differ much, *yours* are the ones that
# count for you. The long run, with your numbers in every row, is one command:
#
# ```
# course run --lab
# ```
#
# It keeps every step, so you may stop it and call it again; `--pipeline "layers 2, trim 8000, int8"` measures
# a line of your own. Once it has been run in this folder, the menus below take its table instead of the course's.


# %%
def latest(folder="build/lab"):
    """The results of `course run --lab`, if there are any near, else the course's own."""
    for place in (Path(folder), Path("..", folder)):
        if (place / "results.json").is_file():
            return json.loads((place / "results.json").read_text(encoding="utf-8"))
    return theirs


# %% [markdown]
# ## Make it fit
#
# A phone, a browser, a server that bills by the millisecond: they come with a [*budget*](../docs/glossary.md#budget), not with a method. A budget
# here has three limits: megabytes on disk, milliseconds for one text (its [*latency*](../docs/glossary.md#latency)), and points of accuracy that may be lost.
#
# ### Exercise: which limits hold?
#
# > Difficulty: easy · about 8 minutes
#
# `row` and `teacher` are rows of the table, `budget` is a dict with `mb`, `ms` and `points`. Accuracies are
# shares from 0 to 1; points are percentage points.


# %%
def fits(row, teacher, budget):
    """Whether each limit holds: a dict of `mb`, `ms` and `points` to True or False."""
    # solution
    lost = 100 * (teacher["accuracy"] - row["accuracy"])
    return {
        "mb": row["size_mb"] <= budget["mb"],
        "ms": row["latency_ms_p50"] <= budget["ms"],
        "points": lost <= budget["points"],
    }


# %%
check.fits(fits)


# %% tags=["solution"]
def fits_answer(row, teacher, budget):
    lost = 100 * (teacher["accuracy"] - row["accuracy"])
    return {
        "mb": row["size_mb"] <= budget["mb"],
        "ms": row["latency_ms_p50"] <= budget["ms"],
        "points": lost <= budget["points"],
    }


check.fits(fits_answer)

# %% [markdown]
# ### Exercise: choose
#
# > Difficulty: easy · about 5 minutes
#
# Of all rows that keep all three limits, the smallest on disk. Give its name, or None if there is none. You may
# call your `fits`.


# %%
def choose(rows, teacher, budget):
    """The name of the smallest row within the budget, or None."""
    # solution
    fitting = [row for row in rows if all(fits(row, teacher, budget).values())]
    return min(fitting, key=lambda row: row["size_mb"])["name"] if fitting else None


# %%
check.choose(choose)


# %% tags=["solution"]
def choose_answer(rows, teacher, budget):
    fitting = [row for row in rows if all(fits_answer(row, teacher, budget).values())]
    return min(fitting, key=lambda row: row["size_mb"])["name"] if fitting else None


check.choose(choose_answer)

# %% [markdown]
# Now compose. Write a line for each budget; the answer says which limits hold, and by how much. A line that
# was not measured gets the command that measures it.


# %%
def budgets(results):
    """Three of them, by name; milliseconds are a share of what the teacher takes in this run."""
    ms = results["rows"][0]["latency_ms_p50"]
    return {
        "browser": Budget(mb=10, ms=ms / 5, points=2.5),
        "watch": Budget(mb=5, ms=ms / 8, points=5),
        "server": Budget(mb=100, ms=ms / 3, points=1),
    }


my_line = "layers 3, int8"

# %% tags=["slide-verdicts"]
for name, budget in budgets(theirs).items():
    print(f"{name}\n{verdict(my_line, theirs, budget)}\n")

# %%
print(verdict("layers 3, prune 30, int8", theirs, budgets(theirs)["watch"]))

# %% [markdown]
# No single line solves all three. Under one that breaks a limit stand up to three *smaller* ones that keep all;
# a larger one may keep them, too. Find one for the server that is not named there, change `my_line`, and run the
# two cells again. Which limit rules out most rows, in each budget? Then set a budget of your own.
#
# With a running kernel you can compose with menus. (In a page without one, the figure below stands for it: the
# budget is the shaded corner.)

# %% tags=["nbval-ignore-output"]
results = latest()
compose(results, budgets(results))

# %% tags=["slide-browser"]
show(
    figures.front_figure(
        theirs["rows"], title="What fits into a browser?", budget=budgets(theirs)["browser"]
    ),
    alt="The front of the course's run once more, with the browser's budget of size and points shaded: some models "
    "of the front lie inside.",
)

# %% [markdown]
# ## Where there is no PyTorch
#
# The model is 90 MB, or 9. What else has to be there for it to run? We take a model of your lab to a bare
# place: a Python that sees its standard library, the course, and the packages that ONNX Runtime and tokenizers
# ask for. No PyTorch, no transformers.

# %%
runtime = needed(["onnxruntime", "tokenizers", "numpy"])
training = needed(["torch", "transformers"])
bare = bare_python(Path(scratch.name, "bare"), runtime)
model = Path(scratch.name, "lab", "trim-8000_layers-3_int8")

# %% tags=["nbval-ignore-output", "slide-runtime"]
print(f"to run:   {len(runtime):3} packages, {disk_mb(runtime):6.0f} MB")
print(f"to train: {len(training):3} packages, {disk_mb(training):6.0f} MB")
print(f"the model: {own['trim 8000, layers 3, int8']['size_mb']:.1f} MB")

# %%
claim(
    "what it takes to run weighs less than half of what it takes to train",
    disk_mb(runtime) < disk_mb(training) / 2,
)
claim("and more than the model", disk_mb(runtime) > own["trim 8000, layers 3, int8"]["size_mb"])

# %% [markdown]
# The model was never the largest part of a deployment; after compression it hardly counts. Does it run there, and
# does it say the same?

# %%
texts = ["Sort the rows of the frame by a column.", "Draw a line through the points of the plot."]
here = OnnxClassifier(model)
program = f"""
import json, time
start = time.perf_counter()
from course_utils.ship.runtime import OnnxClassifier
model = OnnxClassifier({str(model)!r}, threads={here.threads})
first = model.predict({texts[:1]!r})
seconds = time.perf_counter() - start
try:
    import torch
except ImportError:
    torch = None
print(json.dumps([model.predict({texts!r}).tolist(), seconds, torch is not None]))
"""
logits, seconds, has_torch = json.loads(run_bare(bare, program))

# %%
claim("there is no PyTorch in it", not has_torch)
same = np.allclose(logits, here.predict(texts), atol=1e-5)
claim("its logits are those of this process", same)

# %% tags=["nbval-ignore-output"]
print(f"from the start of the import to the first answer: {seconds:.2f} s")

# %% [markdown]
# ## What to take away
#
# 1. Methods can be compared if they share the teacher, the texts, the run and the machine. Else they cannot.
# 2. Look at the front, not at the winner. What is beaten in size *and* accuracy has no buyer.
# 3. Two models are compared text by text. Seeds are another matter.
# 4. What goes is subtracted: layers, words, heads and neurons. Fewer bits divide what is left.
# 5. Begin with the budget. Then the method chooses itself, and the runtime weighs more than the model.
#
# ## Three questions
#
# Read a question, then answer it in a cell of your own: `quiz.who_is_better("a")`.

# %%
quiz.savings_together()

# %%
quiz.who_is_better()

# %%
quiz.what_is_shipped()

# %% [markdown]
# ## To read
#
# - Han, Mao, Dally (2016), *Deep Compression*: pruning, shared values and coding, one after the other.
# - Jiao and others (2020), *TinyBERT*, and Wang and others (2020), *MiniLM*: students that are small in several ways.
# - Xia, Zhong, Chen (2022), *Structured Pruning Learns Compact and Accurate Models*: cuts and distillation at once.
# - Dehghani and others (2021), *The Efficiency Misnomer*: why parameters, operations and time disagree.
# - Dodge and others (2019), *Show Your Work*: what a table should say beside its best number.
