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
# # 08 · Pruning
#
# > **About 80 minutes**, of which your computer works for about four; the first time it also trains a
# > teacher, for another minute. Two processor cores are enough; a network is not needed. You should know
# > what heads and neurons are (notebook 02) and how a student is distilled (notebook 06).
#
# When you reach the end of this page you will have
#
# - set half of the weights in a model's layers to zero, and measured what that saves: next to nothing,
# - taken heads and neurons *out*, with all their wires, and shown that shrunk is the same as masked,
# - ranked them in four ways, of which one is chance, and measured which ranking is worth its price,
# - repaired the damage by distilling from the model that was whole,
# - drawn how sensitive heads, neurons, width and layers are, before and after that repair,
# - bought speed, size and operations with accuracy, and seen the price with its interval.

# %% tags=["setup"]
import warnings

warnings.filterwarnings("ignore")

import copy
import json
import tempfile
import time
from itertools import combinations
from pathlib import Path
from statistics import median

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from course_utils import machine, prepared
from course_utils.classroom import check, claim, show_source
from course_utils.classroom import pruning_figures as figures
from course_utils.classroom.lines import Panel, lines_figure
from course_utils.classroom.plots import show, use_style
from course_utils.classroom.quiz import quiz
from course_utils.classroom.task_figures import rows_figure
from course_utils.compress.importance import by_chance, magnitude, movement, taylor
from course_utils.compress.pruning import (
    encoder_parameters,
    gradual,
    keep_most_important,
    masked,
    remove,
    remove_hidden,
)
from course_utils.compress.sparsity import (
    compressed_size_mb,
    share_of_zeros,
    two_of_four,
    zero_smallest,
)
from course_utils.data.encoding import EncodedTexts, encode
from course_utils.data.tasks import load_task
from course_utils.distill.cache import teacher_signals
from course_utils.distill.trainer import Recipe, train
from course_utils.measure.accuracy import over_seeds_and_texts
from course_utils.measure.size import size_mb
from course_utils.measure.speed import speed
from course_utils.models.anatomy import flops
from course_utils.models.classifier import TorchClassifier
from course_utils.models.student import student_from_teacher

logging.set_verbosity_error()
logging.disable_progress_bar()
use_style()

# %% tags=["nbval-ignore-output"]
machine.use_all_cores()
device = machine.describe().device
small = machine.profile() == "smoke"
print(machine.describe())

# %% [markdown]
# ## A model, and three piles of texts
#
# The model to shrink is the teacher of notebook 00: MiniLM, fine-tuned on PyDocs. Its texts are cut to 24
# tokens here, to save your time; that costs it some accuracy, and all its descendants as well. There are
# *test* texts to report on, *known* texts with labels that help to rank its parts, and *lessons*, texts without
# labels from which a damaged model learns again.

# %%
SIZES = {
    "smoke": {"test": 48, "known": 32, "steps": 3},
    "cpu": {"test": 480, "known": 192, "steps": 48},
    "gpu": {"test": 2400, "known": 1200, "steps": 400},
}
size = SIZES[machine.profile()]
LENGTH, BATCH, SEEDS = 24, 16, range(2 if small else 3)

# %%
folder = prepared.pydocs_teacher(say=lambda line: None)
tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=LENGTH)
teacher = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
teacher = teacher.eval().to(device)
task = load_task("pydocs", say=lambda line: None, progress=False)


def take(split, n):
    """`n` rows of a split, drawn at random: a dict of `text` and `label`."""
    rows = getattr(task, split)
    return rows[np.random.default_rng(0).permutation(len(rows))[:n].tolist()]


def read(rows, known=True):
    """The rows as token ids; without labels if nobody is to know them."""
    return encode(tokenizer, rows["text"], rows["label"] if known else None, max_length=LENGTH)


# %%
test_rows = take("test", size["test"])
test, known = read(test_rows), read(take("dev", size["known"]))
lessons = read(take("train", size["steps"] * BATCH), known=False)
lessons = lessons.with_columns(**teacher_signals(teacher, lessons, progress=False))


def right(*models):
    """100 for each test text that a model gets right, else 0: (models, N)."""
    said = [teacher_signals(m, test, progress=False)["teacher_logits"].argmax(1) for m in models]
    return 100 * (torch.stack(said) == test.columns["labels"]).float().numpy()


at_first = right(teacher)  # (1, N)

# %% [markdown]
# ## Zeros
#
# The oldest idea: most weights are small, so set the smallest to zero (Han and others 2015). It is called
# [*magnitude pruning*](../docs/glossary.md#magnitude-pruning), and [*unstructured*](../docs/glossary.md#unstructured-pruning), because the zeros may lie anywhere.
#
# ### Exercise: prune single weights
#
# > Difficulty: easy · about 8 minutes
#
# `round(share * number of weights)` weights of the matrix become zero.


# %%
def prune_weights(weight, share):
    """A copy of the matrix in which this share of the weights is 0: those closest to zero."""
    # solution
    n = round(share * weight.numel())
    pruned = weight.clone().flatten()
    pruned[pruned.abs().argsort()[:n]] = 0
    return pruned.view_as(weight)


# %%
check.prune_weights(prune_weights)


# %% tags=["solution"]
def prune_weights_answer(weight, share):
    n = round(share * weight.numel())
    pruned = weight.clone().flatten()  # the caller still needs the old one
    pruned[pruned.abs().argsort()[:n]] = 0
    return pruned.view_as(weight)


check.prune_weights(prune_weights_answer)

# %% [markdown]
# The library's `zero_smallest` does it for all matrices in the layers at once. How many weights can go?

# %%
shares = (0.0, 0.25, 0.5, 0.75, 0.9)
with_zeros = {share: zero_smallest(teacher, share) for share in shares}
for share, model in with_zeros.items():
    print(f"{share:.0%} were to be zero, {share_of_zeros(model):.0%} are")

# %% tags=["slide-zeros"]
curve = [(share, right(model)) for share, model in with_zeros.items()]
show(
    figures.curves_figure(
        "How many weights can be zero?",
        {"nothing repaired": {"smallest weights are zero": curve}},
        xlabel="zeros, % of the weights in the layers",
        line=at_first.mean(),
    ),
    alt="Accuracy over the share of zeros, with intervals. Up to a quarter of zeros the line is nearly level; "
    "towards ninety percent it falls to what guessing would give.",
)

# %%
loses = [over_seeds_and_texts(measured - at_first) for _, measured in curve]
mean, half = loses[1]
claim("a quarter of zeros costs less than five points", small or mean > -5)
mean, half = loses[-1]
claim("nine tenths, unrepaired, are too many: outside the interval", small or mean < -half)

# %% [markdown]
# A quarter of the layers' weights for nothing, more with a repair: that is how such results are told. And what
# has been *saved*? We look where it counts: bytes on the disk, and milliseconds. The two models are timed in
# turns, on the same texts, one text at a time and in batches of 32. (Always on the processor, also if you
# have a GPU.)

# %%
timed = take("dev", 8)["text"]


def file_mb(model):
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return size_mb(folder)


def timings(models, rounds):
    """What `speed` says of each model, by its name."""
    on_cpu = [
        TorchClassifier.of(copy.deepcopy(model).cpu(), tokenizer, name=name)
        for name, model in models.items()
    ]
    return {row["name"]: row for row in speed(on_cpu, timed, rounds=1 if small else rounds)}


def print_timings(rows):
    for name, row in rows.items():
        one, many = row["latency_ms_p50"], row["throughput_32"]
        print(f"{name:>16}: {one:6.2f} ms for one text, {many:7.0f} texts/s in batches of 32")


# %% tags=["nbval-ignore-output", "slide-zeros-cost"]
pair = {"original": teacher, "half zeros": with_zeros[0.5]}
print_timings(timings(pair, rounds=10))
files = {name: file_mb(model) for name, model in pair.items()}
zipped = {name: compressed_size_mb(model) for name, model in pair.items()}
for name in pair:
    print(f"{name:>16}: {files[name]:.1f} MB on disk, {zipped[name]:.1f} MB when compressed")

# %%
claim("half zeros: the file has as many bytes as before", files["half zeros"] == files["original"])
claim(
    "compressed, as for the way to a server, it is smaller",
    zipped["half zeros"] < zipped["original"],
)

# %% [markdown]
# A zero is stored in four bytes and multiplied like any other number. *That* is what zeros in a dense tensor
# save: the compressed file on its way, and nothing after it has arrived. (We shall claim the milliseconds
# below, in one run with a model for which it is different.)
#
# ### But there are sparse kernels?
#
# There are: matrix products that store the places of what is not zero, and skip the rest. The bookkeeping
# costs, too. We take a matrix of the feed-forward and one batch, and let torch's sparse kernel compete.

# %%
matrix = teacher.bert.encoder.layer[0].intermediate.dense.weight.detach().cpu()  # (F, H)
x = torch.randn(matrix.shape[1], 32 * LENGTH, generator=torch.Generator().manual_seed(0))


def product_ms(matrix):
    """Milliseconds of one product with x: the median of twelve, after three to warm up."""
    seconds = []
    for _ in range(15):
        start = time.perf_counter()
        matrix @ x
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds[3:])


def sparse(share):
    return (matrix * (matrix.abs() >= matrix.abs().quantile(share))).to_sparse_csr()


gone = (0.5, 0.8, 0.9, 0.95, 0.99)
sparse_ms, dense_ms = [product_ms(sparse(share)) for share in gone], product_ms(matrix)

# %% tags=["slide-sparse-kernel"]
lines = {"sparse kernel": sparse_ms, "dense kernel": [dense_ms] * len(gone)}
panel = Panel(
    [100 * share for share in gone], lines, xlabel="zeros, %", ylabel="ms for a product", log="y"
)
show(
    lines_figure("From how many zeros on does a sparse kernel pay?", panel),
    alt="Time of a matrix product over the share of zeros, on a logarithmic axis. The sparse kernel's line "
    "falls with the zeros; at half zeros it lies above the level line of the dense kernel.",
)

# %%
claim(
    "at half zeros the sparse kernel is slower than the dense one", small or sparse_ms[0] > dense_ms
)

# %% [markdown]
# Look where the two lines meet, if they do, and at the figure before it for what is left of a model with so
# many zeros. There is one pattern in between. On GPUs since NVIDIA's Ampere, a kernel skips two of each four
# neighbours, counted from the start of the row, if these are zero: [*2:4 sparsity*](../docs/glossary.md#24-sparsity). It is half zeros in a fixed pattern, so there is less freedom
# about which. The cell measures it if your machine has such a GPU.

# %%
pattern = two_of_four(teacher)
claim("2:4 sets exactly half of the weights to zero", share_of_zeros(pattern) == 0.5)


# %% tags=["nbval-ignore-output"]
def print_two_of_four():
    """The time of a large product on a GPU, dense and with the kernel for 2:4."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        print("there is no kernel for 2:4 on this machine")
        return
    from torch.utils.benchmark import Timer

    weight = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
    smallest = weight.view(-1, 4).abs().argsort(1)[:, :2]
    weight = weight.view(-1, 4).scatter(1, smallest, 0.0).view(4096, 4096)
    batch = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
    for name, kind in (("dense", weight), ("2:4", torch.sparse.to_sparse_semi_structured(weight))):
        timer = Timer("weight @ batch", globals={"weight": kind, "batch": batch})
        print(f"{name:>6}: {1000 * timer.blocked_autorange().median:.2f} ms")


print(f"half zeros anywhere: {right(with_zeros[0.5]).mean():.1f} % right")
print(f"half zeros, 2:4:     {right(pattern).mean():.1f} % right")
print_two_of_four()

# %% [markdown]
# ## What can really go
#
# What does a processor do faster without any special kernel? A *smaller* matrix product. So whole rows and
# columns have to go, and with them everything that they are wired to. This is [*structured*](../docs/glossary.md#structured-pruning) pruning. In a BERT
# there are four things that can be taken out and leave a BERT behind:
#
# - **heads**: rows of query, key and value, and columns of the matrix after them,
# - [**neurons**](../docs/glossary.md#neuron) of the feed-forward: rows of the first matrix, columns of the second,
# - [**width**](../docs/glossary.md#width): coordinates of the hidden states, through the whole model,
# - **layers**, as in notebook 04.
#
# In torch, `nn.Linear` keeps its weight as (out, in): what comes out is a *row*.
#
# ### Exercise: the rows of a head
#
# > Difficulty: easy · about 5 minutes
#
# The query matrix has the heads one below another, `head_size` rows each.


# %%
def rows_of_heads(heads, head_size):
    """The rows of query, key and value that belong to these heads, head by head."""
    # solution
    return [h * head_size + k for h in heads for k in range(head_size)]


# %%
check.rows_of_heads(rows_of_heads)


# %% tags=["solution"]
def rows_of_heads_answer(heads, head_size):
    return [h * head_size + k for h in heads for k in range(head_size)]


check.rows_of_heads(rows_of_heads_answer)

# %% [markdown]
# ### Exercise: take neurons out
#
# > Difficulty: medium · about 10 minutes
#
# A feed-forward is `w_out @ gelu(w_in @ x + b_in) + b_out`. Keep the neurons `kept`, and cut what belongs to
# the others: no more and no less.


# %% tags=["slide-cut-neurons"]
def cut_neurons(w_in, b_in, w_out, b_out, kept):
    """The four with the neurons `kept` only: w_in (F, H), b_in (F,), w_out (H, F), b_out (H,)."""
    # solution
    return w_in[kept], b_in[kept], w_out[:, kept], b_out


# %%
check.cut_neurons(cut_neurons)


# %% tags=["solution"]
def cut_neurons_answer(w_in, b_in, w_out, b_out, kept):
    return w_in[kept], b_in[kept], w_out[:, kept], b_out  # b_out belongs to the hidden coordinates


check.cut_neurons(cut_neurons_answer)

# %% [markdown]
# The library's `remove` does both for all layers. Transformers once had a method `prune_heads`; version 5 has
# none, and BERT's configuration has one number of heads for all layers. So the course has a small extension of it,
# with a number of heads and of neurons *for each layer*.

# %%
show_source(remove)

# %% [markdown]
# Which parts? For the moment the *largest*: those with the largest norm of all their weights.

# %%
largest = magnitude(teacher)
kept = keep_most_important(largest, heads=0.5, neurons=0.5)
smaller = remove(teacher, kept)
layer = smaller.bert.encoder.layer[0]
print("query       ", layer.attention.self.query)
print("after heads ", layer.attention.output.dense)
print("first matrix", layer.intermediate.dense)

# %%
left = encoder_parameters(smaller) / encoder_parameters(teacher)
print(f"{left:.1%} of the encoder's parameters are left")

# %% [markdown]
# Is it the same model, without the parts? The test is simple to state. `masked` leaves everything as large as
# it is and writes zeros where `remove` cuts. What is zero adds nothing, so both must say the same: [**shrunk =
# masked**](../docs/glossary.md#shrunk--masked).

# %%
mine = [
    "Returns the sorted labels of all rows that hold no missing value.",
    "Move all parameters and buffers to the device.",
    "Draw a legend outside of the axes.",
]
batch = tokenizer(mine, padding=True, return_tensors="pt").to(device)


@torch.no_grad()
def logits_of(model):
    return model(**batch).logits  # (B, C)


before = logits_of(teacher)
of_smaller, of_masked = logits_of(smaller), logits_of(masked(teacher, kept))
claim("shrunk = masked, to 1e-5", torch.allclose(of_smaller, of_masked, rtol=1e-5, atol=1e-5))
claim("and both differ from the original", not torch.allclose(of_smaller, before, atol=1e-2))
claim("which is as it was", torch.equal(logits_of(teacher), before))

# %% [markdown]
# It is an ordinary model. It is saved and loaded as any other, and the sizes stand in its `config.json`. (Whoever
# loads it needs `course_utils` installed, because that is where the class with sizes per layer lives.)

# %%
with tempfile.TemporaryDirectory() as place:
    smaller.save_pretrained(place)
    again = AutoModelForSequenceClassification.from_pretrained(place).eval().to(device)
    config = json.loads((Path(place) / "config.json").read_text())
for name in ("model_type", "head_size", "heads_per_layer", "neurons_per_layer"):
    print(f"{name}: {config[name]}")
claim("loaded again, it says the same", torch.allclose(logits_of(again), of_smaller, atol=1e-5))

# %% [markdown]
# ## Now the milliseconds
#
# Three models in one run, in turns: the original, the one with half zeros, and the one of which half of the
# encoder is *gone*. A call may take a tenth longer than the one before it, for no reason of its own. Whoever
# wants to claim something about ten percent therefore needs many short turns: here thirty-six.

# %%
three = {"original": teacher, "half zeros": with_zeros[0.5], "half removed": smaller}
rows = timings(three, rounds=36)

# %% tags=["nbval-ignore-output", "slide-removed-cost"]
print_timings(rows)
original = rows["original"]["throughput_32"]
faster = {name: row["throughput_32"] / original for name, row in rows.items()}
for name, ratio in faster.items():
    print(f"{name:>16}: {ratio:.2f} times as fast as the original, {file_mb(three[name]):.1f} MB")

# %%
claim(
    "half zeros: within 10 % of before, in batches of 32",
    small or abs(faster["half zeros"] - 1) <= 0.1,
)
claim(
    "half removed: at least 1.6 times as fast, in batches of 32",
    small or faster["half removed"] >= 1.6,
)

# %% [markdown]
# Both have lost half of the numbers in their encoder. One of them has noticed. For one text at a time it
# mostly gains less: norms, softmax and embeddings are as they were, and the calls themselves take time. And
# the file is not half as large, because the table of the words, about half of MiniLM, has no heads and no
# neurons. That table is a matter for notebook 09.
#
# ## Which ones?
#
# Half of the heads, half of the neurons: which? A [*ranking*](../docs/glossary.md#ranking-of-parts) gives each part a score, and the lowest go
# first. We compare four.
#
# - **Magnitude**: the norm of the part's weights. It reads no text. A part may be large and useless.
# - [**Taylor**](../docs/glossary.md#taylor-score): how much would the loss change without the part? To first order, activation times gradient
#   (Michel and others 2019; Molchanov and others 2019). It reads labelled texts once.
# - [**Movement**](../docs/glossary.md#movement-score): fine-tune for a while, and watch whether training drives the weights away from zero or towards
#   it (Sanh and others 2020). It costs a training; ours is a short one.
# - **Random**: the control. A ranking that does not beat chance is not worth its name.
#
# ### Exercise: Taylor
#
# > Difficulty: medium · about 12 minutes
#
# Without neuron f its activation is 0 in all tokens of a text. To first order, the loss of that text changes by
# the sum over tokens of activation · gradient. The score is the mean over texts of the *size* of this change.


# %% tags=["slide-taylor-scores"]
def taylor_scores(activations, gradients):
    """The score of each neuron, (F,), from activations and gradients of the loss, (N, S, F)."""
    # solution
    return (activations * gradients).sum(1).abs().mean(0)


# %%
check.taylor_scores(taylor_scores)


# %% tags=["solution"]
def taylor_scores_answer(activations, gradients):
    changes = (activations * gradients).sum(1)  # (N, F): one for each text and neuron
    return changes.abs().mean(0)


check.taylor_scores(taylor_scores_answer)

# %% [markdown]
# ### Exercise: movement
#
# > Difficulty: medium · about 10 minutes
#
# At each of T steps you have the weights of F neurons and their gradients. The optimizer goes against the
# gradient. The score is positive where the weights were driven away from zero.


# %%
def movement_scores(weights, gradients):
    """The score of each neuron, (F,), from its weights and gradients at T steps, (T, F, H)."""
    # solution
    return -(weights * gradients).sum((0, 2))


# %%
check.movement_scores(movement_scores)


# %% tags=["solution"]
def movement_scores_answer(weights, gradients):
    return -(weights * gradients).sum((0, 2))  # opposite signs: the weight grows in size


check.movement_scores(movement_scores_answer)

# %% tags=["slide-ranks"]
labelled = read(take("train", size["steps"] * BATCH))
short = Recipe(epochs=1, learning_rate=1e-4, batch_size=BATCH, freeze_words=True)
rankings = {
    "magnitude": largest,
    "Taylor": taylor(teacher, known),
    "movement": movement(teacher, labelled, short, progress=False),
    "random": by_chance(teacher, 0),
}
show(
    figures.ranks_figure(rankings),
    alt="Four maps of six layers by twelve heads, one for each ranking, darker for heads that would stay "
    "longer. Crosses mark the half that goes first; no two maps have the same crosses.",
)

# %% [markdown]
# Do any two of them agree? For the neurons we count: of the half that one ranking keeps, how much does the
# other keep, too? Two rankings without any relation share half.


# %% tags=["nbval-ignore-output"]
def kept_half(ranking):
    kept = keep_most_important(ranking, heads=0.5, neurons=0.5)
    return {(i, n) for i, layer in enumerate(kept.neurons) for n in layer}


halves = {name: kept_half(ranking) for name, ranking in rankings.items()}
for one, other in combinations(halves, 2):
    shared = len(halves[one] & halves[other]) / len(halves[one])
    print(f"{one:>9} and {other:<9} share {shared:.0%} of the neurons they keep")

# %%
ranks = [figures.head_ranks(ranking) for ranking in rankings.values()]
maps = [each < each.size // 2 for each in ranks]
claim(
    "no two rankings keep the same heads, or the same neurons",
    all((one != other).any() for one, other in combinations(maps, 2))
    and all(one != other for one, other in combinations(halves.values(), 2)),
)

# %% [markdown]
# Different opinions, then. Who is right? We ask the test texts, with 25, 50 and 75 % of heads and neurons gone,
# and nothing repaired.


# %% tags=["slide-rankings"]
def cut(ranking, heads, neurons):
    """The teacher without these shares of its heads and neurons."""
    return remove(teacher, keep_most_important(ranking, heads=1 - heads, neurons=1 - neurons))


quarters = (0.25, 0.5, 0.75)
contest = {name: [ranking] for name, ranking in rankings.items()}
contest["random"] = [by_chance(teacher, seed) for seed in SEEDS]  # a new one for each seed
as_cut = {
    name: [(gone, right(*(cut(one, gone, gone) for one in several))) for gone in quarters]
    for name, several in contest.items()
}
show(
    figures.curves_figure(
        "Which ranking does least harm?",
        {"nothing repaired": as_cut},
        xlabel="heads and neurons gone, %",
        line=at_first.mean(),
    ),
    alt="Accuracy over the share of heads and neurons that are gone, a line for each of four rankings, with "
    "intervals. All fall; at half, the line of Taylor lies above those of magnitude and of chance.",
)

# %%
half_cut = {name: curve[1][1] for name, curve in as_cut.items()}
for other in ("magnitude", "random"):
    mean, half = over_seeds_and_texts(half_cut["Taylor"] - half_cut[other])
    claim(f"at half, Taylor beats {other}: outside the interval", small or mean > half)

# %% [markdown]
# One pass over a few labelled texts, and the ranking knows what the sizes of the weights do not tell. (Here every
# layer loses its share. With `keep_most_important(…, across_layers=True)` the layers compete, and some lose more
# than others. Try it with magnitude, where sizes differ from layer to layer for reasons of their own.)
#
# ## Repair
#
# A cut model has not forgotten everything; it has lost its balance. We have the original still, so the repair
# is distillation, as in notebook 06: the *unpruned model is the teacher*, its logits are cached, and no labels
# are needed (alpha = 0; *alpha* is the weight of the hard loss). Each repair reads every lesson once.


# %%
def repaired(model, seed, texts=lessons):
    """The model itself, after one reading of what its teacher says about the texts."""
    settings = {"learning_rate": 1.5e-4, "freeze_words": True, "alpha": 0.0, "temperature": 4.0}
    recipe = Recipe(epochs=1, batch_size=BATCH, seed=seed, **settings)
    train(model, texts, recipe, progress=False)
    return model


def repaired_right(make):
    """What models are right about after repair, one per seed, (seeds, N); `make` takes a seed."""
    return np.concatenate([right(repaired(make(seed), seed)) for seed in SEEDS])


# %% tags=["slide-repair"]
half_repaired = {
    name: repaired_right(lambda seed, several=several: cut(several[seed % len(several)], 0.5, 0.5))
    for name, several in contest.items()
}
panels = {"right as cut, %": half_cut, "right after repair, %": half_repaired}
question = "Half is gone: does the ranking still matter after repair?"
fig = rows_figure(question, panels, line=at_first.mean())
for axes in fig.axes:
    axes.set_xlim(0, 80)  # the same on both sides
show(
    fig,
    alt="Four rankings in rows, with intervals: accuracy as cut on the left, after repair on the right, and the "
    "original as a dotted line in both. On the left the rows are far apart; on the right they are closer.",
)


# %% tags=["nbval-ignore-output"]
def print_lead(name, points):
    """The mean of differences (seeds, N), its interval, and what to make of it."""
    mean, half = over_seeds_and_texts(points)
    verdict = "outside the interval" if abs(mean) > half else "inside: not shown"
    print(f"{name:34}{mean:+6.1f} ± {half:4.1f} points   {verdict}")


print(f"the original: {at_first.mean():.1f} % right")
for name, measured in half_repaired.items():
    print_lead(f"{name}, repaired, against original", measured - at_first)
for name in ("magnitude", "movement", "random"):
    print_lead(f"Taylor against {name}, repaired", half_repaired["Taylor"] - half_repaired[name])

# %%
means = [[measured[name].mean() for name in rankings] for measured in panels.values()]
claim("repair brings the rankings closer together", small or np.ptp(means[1]) < np.ptp(means[0]))
mean, half = over_seeds_and_texts(half_repaired["random"] - half_cut["random"])
claim("even a random half is repaired in part: outside the interval", small or mean > half)

# %% [markdown]
# Read the two panels as one sentence: *a good ranking is a better place to start from, and training makes up
# for a part of a worse one*. Where little was broken, there is little to repair, and a short training can
# even cost a bit: compare Taylor's row on both sides. Papers that report only the right panel make rankings
# look alike; papers that report only the left one sell you a ranking where you need a repair. The random row has
# a new half for each seed, so its interval also holds the luck of the draw.
#
# ## What is sensitive?
#
# Heads, neurons, width, layers: where does it hurt most to save a parameter? We take each of the four alone, at
# three depths. The x axis is what all of them have in common: the share of the encoder's parameters that is
# gone. Heads are at most a third of a layer, so their line is short. For the width we keep the coordinates in
# which the word embeddings are largest. There is one repair each here, so these intervals know about texts, and
# not about seeds.

# %%
widest = teacher.get_input_embeddings().weight.detach().norm(dim=0).argsort(descending=True)


def without_width(gone):
    return remove_hidden(teacher, widest[: round((1 - gone) * len(widest))].tolist())


def without_layers(gone):
    depth = teacher.config.num_hidden_layers
    return student_from_teacher(teacher, layers=round((1 - gone) * depth))


ways = {
    "heads": lambda gone: cut(rankings["Taylor"], gone, 0.0),
    "neurons": lambda gone: cut(rankings["Taylor"], 0.0, gone),
    "width": without_width,
    "layers": without_layers,
}

# %%
panels = {"as cut": {name: [] for name in ways}, "after repair": {name: [] for name in ways}}
for name, without in ways.items():
    for share in (1 / 3, 1 / 2, 2 / 3):
        model = without(share)
        gone = 1 - encoder_parameters(model) / encoder_parameters(teacher)
        panels["as cut"][name].append((gone, right(model)))
        panels["after repair"][name].append((gone, right(repaired(model, 0))))

# %% tags=["slide-sensitivity"]
show(
    figures.curves_figure(
        "Where does it hurt to save a parameter?",
        panels,
        xlabel="of the encoder gone, %",
        line=at_first.mean(),
    ),
    alt="Two panels, as cut and after repair: accuracy over the share of the encoder that is gone, for heads, "
    "neurons, width and layers, with intervals and the original as a dotted line. As cut, width falls "
    "fastest; after repair the other three come together, and width stays below.",
)

# %%
as_cut_by, after_by = panels.values()
neurons, width = as_cut_by["neurons"][1][1], as_cut_by["width"][0][1]
mean, half = over_seeds_and_texts(neurons - width)
claim(
    "a third of the encoder gone, as cut: neurons hurt less than width, outside the interval",
    small or mean > half,
)
layers, width = after_by["layers"][2][1], after_by["width"][2][1]
mean, half = over_seeds_and_texts(layers - width)
claim(
    "two thirds gone, repaired: layers hurt less than width, outside the interval",
    small or mean > half,
)

# %% [markdown]
# The left panel tells where a cut does damage, the right one whether it *lasts*. Width is special: every norm
# takes its mean over the coordinates that are left, so nothing after the cut is what it was, and a short repair does
# not bring it back. Whole layers look bad at first, and are soon repaired. A curve as cut is often called the
# sensitivity of a model, and used to decide how much of each part goes. Compare the order of the lines
# in the two panels before you do.
#
# ## At once, or in rounds?
#
# Perhaps it is kinder to take a little, repair, rank again, and take some more. How much in which round? Early
# cuts take what is superfluous, late cuts take what is needed. So the usual schedule is fast at first (Zhu and Gupta
# 2017): of what is left *to do*, (1 − t/n)³ remains after round t of n.
#
# ### Exercise: a schedule
#
# > Difficulty: easy · about 8 minutes
#
# A list: the share that is gone after each of the rounds, from the first to the last. The last share is `end`.


# %%
def gone_after(end, rounds):
    """The share of the parts that is gone after each round: fast at first, then ever slower."""
    # solution
    return [end * (1 - (1 - t / rounds) ** 3) for t in range(1, rounds + 1)]


# %%
check.gone_after(gone_after)


# %% tags=["solution"]
def gone_after_answer(end, rounds):
    return [end * (1 - (1 - t / rounds) ** 3) for t in range(1, rounds + 1)]


check.gone_after(gone_after_answer)

# %%
for number, gone in enumerate(gradual(0.0, 0.75, 4), 1):
    print(f"after round {number}: {gone:.1%} gone")

# %% [markdown]
# Three quarters go, at once or in four rounds. Both have read the same lessons, each once, in as many steps. In
# rounds, a quarter of the lessons follows each cut; the ranking is made anew before it, by what is left.


# %%
def part_of(texts, first, last):
    """The texts from number `first` up to, not with, `last`."""
    columns = {name: values[first:last] for name, values in texts.columns.items()}
    return EncodedTexts(texts.input_ids[first:last], **columns)


def in_rounds(seed, end=0.75, rounds=4):
    model, before = teacher, 0.0
    for number, gone in enumerate(gradual(0.0, end, rounds)):
        stays = (1 - gone) / (1 - before)  # of what is left by now
        ranking = taylor(model, known)
        model = remove(model, keep_most_important(ranking, heads=stays, neurons=stays))
        ends = [len(lessons) * k // rounds for k in (number, number + 1)]
        model, before = repaired(model, seed, part_of(lessons, *ends)), gone
    return model


at_once = repaired_right(lambda seed: cut(rankings["Taylor"], 0.75, 0.75))
rounds = np.concatenate([right(in_rounds(seed)) for seed in SEEDS])
three_ways = {
    "as cut": as_cut["Taylor"][2][1],
    "at once, then repair": at_once,
    "in four rounds": rounds,
}
show(
    rows_figure(
        "Three quarters gone: at once or in rounds?", {"right, %": three_ways}, line=at_first.mean()
    ),
    alt="Three rows with intervals and the original as a dotted line: a quarter of the model as cut, cut at once "
    "and then repaired, and cut in four rounds with a repair after each.",
)

# %% tags=["nbval-ignore-output"]
print_lead("repair at once, against as cut", at_once - three_ways["as cut"])
print_lead("in rounds against at once", rounds - at_once)

# %%
mean, half = over_seeds_and_texts(at_once - three_ways["as cut"])
claim("three quarters gone: repair helps, outside the interval", small or mean > half)

# %% [markdown]
# What does the last line say on your machine? Rounds have two things for them, a fresh ranking and a gentler path,
# and one against them: the model has its final shape only for the last quarter of the steps. Equal steps are also not
# equal time, since the early rounds train a larger model. With as short a repair as ours, do not expect
# a law.
#
# ## The bill
#
# Now all of it in one figure: 25, 50 and 75 % of heads and neurons gone by Taylor, three seeds each, beside
# the original. Time was measured in one run; a GFLOP is 10⁹ operations, counted from the configuration.

# %%
models = {"all": teacher} | {
    f"−{gone:.0%}": cut(rankings["Taylor"], gone, gone) for gone in quarters
}
rows = timings(models, rounds=14)
kind = {"kind": AutoModelForSequenceClassification}
costs = {
    "ms a text, batches of 32": [1000 / row["throughput_32"] for row in rows.values()],
    "MB on disk": [file_mb(model) for model in models.values()],
    "GFLOP a text": [sum(flops(m.config, LENGTH, **kind).values()) / 1e9 for m in models.values()],
}

# %% tags=["slide-bill"]
first_quarter = repaired_right(lambda seed: cut(rankings["Taylor"], 0.25, 0.25))
after = [at_first, first_quarter, half_repaired["Taylor"], at_once]
bought = {
    "after repair": after,
    "as cut": [at_first, *(measured for _, measured in as_cut["Taylor"])],
}
show(
    figures.tradeoff_figure(costs, bought, list(models)),
    alt="Accuracy over three costs, time, size and operations, for the original and with 25, 50 and 75 percent of "
    "heads and neurons gone, as cut and after repair, with intervals. All costs fall from point to point; "
    "the size falls least.",
)

# %% tags=["nbval-ignore-output"]
for k, name in enumerate(models):
    mean, half = over_seeds_and_texts(after[k])
    ms, mb, gflop = (cost[k] for cost in costs.values())
    print(
        f"{name:>5}: {mean:.1f} ± {half:.1f} % right, {ms:.2f} ms, {mb:.1f} MB, {gflop:.2f} GFLOP"
    )

# %%
time_ms, mb, gflop = costs.values()
claim(
    "every quarter saves bytes and operations",
    (np.diff(mb) < 0).all() and (np.diff(gflop) < 0).all(),
)
claim("and time", small or (np.diff(time_ms) < 0).all())
ratios = [cost[-1] / cost[0] for cost in (gflop, mb)]
claim(
    "operations fall to less than a third, bytes to more than half",
    ratios[0] < 1 / 3 and ratios[1] > 1 / 2,
)

# %% [markdown]
# Three currencies, three exchange rates. A paper that reports operations sells the steepest line; whoever pays
# for memory sees the flattest. Say which one you mean, and show the time on the machine that will do the work.
#
# ## Your own scissors
#
# How far can *you* go before anything breaks? Cached texts, the teacher, and no repair:

# %%
kept_texts = part_of(test, 0, min(len(test), 160))  # encoded once


def share_right(model):
    said = teacher_signals(model, kept_texts, progress=False)["teacher_logits"].argmax(1)
    return (said == kept_texts.columns["labels"]).float().mean().item()


steps = (0.0, 0.25, 0.5, 0.75, 0.9)
grid = [
    [100 * share_right(cut(rankings["Taylor"], heads, neurons)) for heads in steps]
    for neurons in steps
]
show(
    figures.slider_figure(steps, np.array(grid)),
    alt="A heat map of accuracy, heads gone to the right and neurons gone upwards. Dark where little is gone; "
    "pale in the corner where nine tenths of both are.",
)

# %%
corner, origin = grid[-1][-1], grid[0][0]
claim("the far corner is worse than the origin", small or corner < origin)

# %% [markdown]
# With a running kernel, move the sliders: each move takes the parts out of the teacher and asks the texts
# again. (In a page without a kernel, the figure above stands for it.) Try the same place with another ranking.

# %% tags=["nbval-ignore-output", "slide-sliders"]
figures.prune_by_slider(teacher, rankings, share_right)

# %% [markdown]
# ## What to take away
#
# 1. Zeros in a dense tensor save nothing but the compressed file. Ask for bytes and milliseconds, not for zeros.
# 2. What goes must go with its wires: rows here, columns there. The test is *shrunk = masked*.
# 3. Rank by what the loss says, not by size alone, and always race against chance.
# 4. Repair by distilling from the model that was whole, and judge a ranking before *and* after.
# 5. Parameters, operations, bytes and milliseconds shrink at different rates. Report the one you pay for.
#
# ## Three questions
#
# Read a question, then answer it in a cell of your own: `quiz.half_of_the_encoder("a")`.

# %%
quiz.eighty_percent_zeros()

# %%
quiz.half_of_the_encoder()

# %%
quiz.a_tie_after_recovery()

# %% [markdown]
# ## To read
#
# - Han, Pool, Tran, Dally (2015), *Learning both Weights and Connections*: the idea of magnitude pruning.
# - Michel, Levy, Neubig (2019), *Are Sixteen Heads Really Better than One?*: the loss without a head.
# - Sanh, Wolf, Rush (2020), *Movement Pruning*: why size is the wrong score while fine-tuning.
# - Xia, Zhong, Chen (2022), *Structured Pruning Learns Compact and Accurate Models*: heads, neurons, width and
#   layers together, with distillation.
# - Mishra and others (2021), *Accelerating Sparse Deep Neural Networks*: what 2:4 asks and gives.
