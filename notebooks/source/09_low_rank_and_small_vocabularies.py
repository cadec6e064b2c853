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
# # 09 · Low rank and small vocabularies
#
# > **About 75 minutes**, of which your computer works for about three; the first time it also trains a
# > teacher, for another one. Two processor cores are enough; a network is not needed. You should know what is in
# > a layer (notebook 02), and pruning (notebook 08) will help.
#
# When you reach the end of this page you will have
#
# - written a matrix as the product of two thin ones, and found the rank at which that begins to pay,
# - looked at the spectra of a real BERT, and seen why "90 % of the energy" is no promise,
# - let the texts choose the directions, and measured what that is worth,
# - compared low rank and pruning at the same size, before and after training,
# - cut a vocabulary, tokenizer and table together, without changing a single logit,
# - factorised what was left of the table, and put it all together into one small model.

# %% tags=["setup"]
import warnings

warnings.filterwarnings("ignore")

import copy
import tempfile
from itertools import pairwise
from math import ceil

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from course_utils import machine, prepared
from course_utils.classroom import check, claim
from course_utils.classroom import lowrank_figures as figures
from course_utils.classroom.hand import legend, near
from course_utils.classroom.lines import Panel, lines_figure
from course_utils.classroom.plots import show, use_style
from course_utils.classroom.quiz import quiz
from course_utils.classroom.source import show_source
from course_utils.compress.importance import taylor
from course_utils.compress.lowrank import factorise, factorise_embeddings
from course_utils.compress.moments import input_moments, linears
from course_utils.compress.pruning import encoder_parameters, keep_most_important, remove
from course_utils.compress.ranks import ranks_for, spectra
from course_utils.compress.svd import break_even_rank, low_rank, spectrum
from course_utils.compress.vocabulary import tokens_to_keep, trim_vocabulary
from course_utils.data.encoding import EncodedTexts, encode
from course_utils.data.tasks import load_task
from course_utils.distill.cache import teacher_signals
from course_utils.distill.trainer import Recipe, train
from course_utils.measure.accuracy import over_seeds_and_texts
from course_utils.measure.size import parameters, size_mb
from course_utils.measure.speed import speed
from course_utils.models.anatomy import count, well_known
from course_utils.models.classifier import TorchClassifier
from course_utils.models.compact_bert import Factorised

logging.set_verbosity_error()
logging.disable_progress_bar()
use_style()

# %% tags=["nbval-ignore-output"]
machine.use_all_cores()
small = machine.profile() == "smoke"
print(machine.describe())

# %% [markdown]
# ## One matrix, two thin ones
#
# Pruning asks which parts of a layer can go. Here is another question: does the layer need all the
# *directions* it has room for? A weight that maps 384 numbers to 384 can tell 384 directions apart. Perhaps
# a hundred would do.
#
# The tool is the *singular value decomposition*, SVD. It writes every matrix as a sum of simple ones. Each is
# a column times a row, all its rows are multiples of one another, and we say that it has [*rank*](../docs/glossary.md#rank) 1. We take
# a matrix that we can check by hand.

# %% tags=["slide-hand"]
weight = torch.tensor([[3.0, 0.0], [4.0, 5.0]])
u, s, vh = torch.linalg.svd(weight)
first = s[0] * torch.outer(u[:, 0], vh[0])
second = s[1] * torch.outer(u[:, 1], vh[1])
legend(torch.cat([first, second], dim=1), ["row 0", "row 1"], ["first", "", "second", ""])

# %% [markdown]
# Two matrices of rank 1. Add them, and the weight is back. The numbers in `s`, the [*singular values*](../docs/glossary.md#singular-value), say how
# large each is. What if we keep the first one alone?

# %%
claim("the two add up to the weight", near(first + second, weight))
error = (weight - first).square().sum()
print(
    f"singular values squared: {s[0] ** 2:.0f} and {s[1] ** 2:.0f}; error of the first: {error:.0f}"
)

# %% [markdown]
# The squared error is the squared singular value that we left out. It holds for every matrix, and nobody
# can do better: of all matrices of rank r, the sum of the first r terms is the one with the least squared error
# (Eckart and Young 1936).
#
# ### Exercise: the best matrix of a rank
#
# > Difficulty: easy · about 8 minutes


# %%
def best_of_rank(weight, rank):
    """The matrix (out, in) of this rank with the least sum of squared differences from `weight`."""
    # solution
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


# %%
check.best_of_rank(best_of_rank)


# %% tags=["solution"]
def best_of_rank_answer(weight, rank):
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]  # (out, r) times (r, in)


check.best_of_rank(best_of_rank_answer)

# %% [markdown]
# The last line is the whole trick. The product is as large as the weight was, so we never multiply it out: we
# keep the two factors, and a layer becomes two thinner ones. The library returns them as `down`, (r, in), and `up`,
# (out, r).

# %%
generator = torch.Generator().manual_seed(0)
big = torch.randn(6, 10, generator=generator)
down, up = low_rank(big, rank=2)
u, s, vh = torch.linalg.svd(big, full_matrices=False)
claim("the product of the factors is the truncated sum", near(up @ down, u[:, :2] * s[:2] @ vh[:2]))
print(f"{big.numel()} numbers before, {down.numel()} + {up.numel()} after")

# %%
show_source(Factorised)

# %% [markdown]
# ## The rank that pays
#
# An (m, n) weight has m · n numbers. Its factors have r · n and m · r, together r · (m + n). That is less only if
#
# $$r < \frac{m\,n}{m + n}.$$
#
# For a square weight this is *half* of its full rank. At the full rank, the factors of a square weight are
# twice as large as the weight.

# %% tags=["slide-break-even"]
shapes = {"attention": (384, 384), "feed-forward": (1536, 384), "word table": (30522, 384)}
show(
    figures.break_even_figure(shapes),
    alt="The numbers held by two factors, in percent of the weight's, over the rank in percent of the full rank: "
    "straight lines from zero, for three weights of MiniLM. That of the square attention weight crosses 100 "
    "percent at half of the full rank, that of the feed-forward weight at 80 percent, that of the word table "
    "close to the full rank.",
)

# %%
print(f"BERT-base: {break_even_rank(768, 768):.0f} and {break_even_rank(768, 3072):.1f}")
claim(
    "MiniLM's two feed-forward weights break even at the same rank",
    break_even_rank(384, 1536) == break_even_rank(1536, 384),
)

# %% [markdown]
# Remember the figure when you read that [*low rank*](../docs/glossary.md#low-rank) "saves memory". Above the line it costs memory.
#
# ### Exercise: a rank for a budget
#
# > Difficulty: easy · about 6 minutes
#
# The layer may have at most a share, 0.5 for example, of the numbers it had.


# %% tags=["slide-largest-rank"]
def largest_rank(m, n, share):
    """The largest rank at which two factors hold at most this share of the m · n numbers."""
    # solution
    return int(share * m * n / (m + n))


# %%
check.largest_rank(largest_rank)


# %% tags=["solution"]
def largest_rank_answer(m, n, share):
    return int(share * m * n / (m + n))  # int rounds down


check.largest_rank(largest_rank_answer)

# %% [markdown]
# ## Does a BERT need all its directions?
#
# We take the teacher of notebook 00, MiniLM with six layers, and its task, PyDocs: which library documents
# itself like this? Texts are cut to 24 tokens.

# %%
SIZES = {
    "smoke": {"some": 32, "texts": 64, "test": 64, "many": 400, "steps": 2},
    "cpu": {"some": 256, "texts": 1280, "test": 640, "many": 8000, "steps": 40},
    "gpu": {"some": 1024, "texts": 7200, "test": 2400, "many": 12000, "steps": 225},
}
size = SIZES[machine.profile()]
BATCH, SEEDS = 32, range(2)

# %%
folder = prepared.pydocs_teacher(say=lambda line: None)
tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=24)
teacher = AutoModelForSequenceClassification.from_pretrained(folder).eval()
task = load_task("pydocs", say=lambda line: None, progress=False)


def take(split, n):
    """`n` rows of a split, drawn at random: a dict of `text` and `label`."""
    rows = getattr(task, split)
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[order[:n].tolist()]


def read(rows, tokenizer=tokenizer):
    return encode(tokenizer, rows["text"], rows["label"], max_length=24)


# %%
many_rows, train_rows, test_rows = (
    take("train", size["many"]),
    take("train", size["texts"]),
    take("test", size["test"]),
)
many, texts, test = map(read, (many_rows, train_rows, test_rows))
some = EncodedTexts(texts.input_ids[: size["some"]], labels=texts.columns["labels"][: size["some"]])
print(f"{len(some)} texts to look at, {len(texts)} to train with, {len(test)} to test")


# %%
def right(model, texts=test):
    """100 for each text that the model gets right, else 0: (N,)."""
    logits = teacher_signals(model, texts, progress=False)["teacher_logits"]
    return 100 * (logits.argmax(1) == texts.columns["labels"]).float().numpy()


teacher_right = right(teacher)

# %% [markdown]
# The *energy* of a matrix is the sum of its squared numbers, and also that of its squared singular values. How
# much of it do the first few hold? For comparison we draw random numbers of the same shape, in which no
# direction is better than another.

# %% tags=["slide-weight-energy"]
QUERY = "bert.encoder.layer.2.attention.self.query"
FEED = "bert.encoder.layer.2.output.dense"
layers = linears(teacher)
of_weights = spectra(teacher)


def energy_panels(**others):
    """For two layers: the singular values of random numbers, of the weight, and others."""
    panels = {}
    for title, name in (("attention, query", QUERY), ("feed-forward, second", FEED)):
        noise = torch.randn(layers[name].weight.shape, generator=torch.Generator().manual_seed(0))
        panels[title] = {"random numbers": spectrum(noise), "weight": of_weights[name]}
        panels[title] |= {label: each[name] for label, each in others.items()}
    return panels


its_shapes = [layers[QUERY].weight.shape, layers[FEED].weight.shape]
show(
    figures.energy_figure(energy_panels(), its_shapes),
    alt="For a query weight and a feed-forward weight of the teacher: the share of the energy that the first "
    "ranks hold. The weight's curve is above that of random numbers in both, but it is far from full at a "
    "quarter of the ranks. A dotted line marks the break-even rank.",
)

# %% [markdown]
# ### Exercise: a rank for an energy
#
# > Difficulty: easy · about 6 minutes
#
# A common recipe: "keep 90 % of the energy".


# %%
def rank_for_energy(singular_values, share):
    """The smallest rank that holds this share of the sum of the squared singular values (K,)."""
    # solution
    held = singular_values.square().cumsum(0)
    return int((held < share * held[-1]).sum()) + 1


# %%
check.rank_for_energy(rank_for_energy)


# %% tags=["solution"]
def rank_for_energy_answer(singular_values, share):
    held = singular_values.square().cumsum(0)  # by the first 1, 2, … ranks
    return int((held < share * held[-1]).sum()) + 1


check.rank_for_energy(rank_for_energy_answer)

# %% [markdown]
# `factorise(model, 0.9)` does it for all layers of the encoder, and leaves those whole that would not get smaller.
# What comes back is an ordinary model.


# %%
def print_lead(name, points):
    """The mean of differences (N,) or (seeds, N), its interval, and what to make of it."""
    mean, half = over_seeds_and_texts(points)
    verdict = "outside the interval" if abs(mean) > half else "inside: not shown"
    print(f"{name:34}{mean:+6.1f} ± {half:4.1f} points   {verdict}")


by_energy = factorise(teacher, 0.9)
left = encoder_parameters(by_energy) / encoder_parameters(teacher)

# %% tags=["nbval-ignore-output", "slide-ninety"]
print(f"the teacher: {teacher_right.mean():.1f} % right")
print(
    f"{len(by_energy.config.ranks)} of {len(layers)} layers became thinner; {left:.0%} of the encoder is left"
)
print_lead("against the teacher", right(by_energy) - teacher_right)

# %%
claim("90 % of the energy: less than a third of the encoder has gone", small or left > 2 / 3)

# %% [markdown]
# Little is saved, and look at the accuracy. Energy treats every direction alike, and a tenth of it, in every
# one of 36 layers, is a great deal of disturbance. **Weights of a trained BERT are not of low rank.**
#
# Before we ask why, two checks. With all directions kept, nothing may change; and the encoder should have grown.

# %%
full = {name: min(layer.weight.shape) for name, layer in layers.items()}
whole = factorise(teacher, full)
ids = torch.tensor([test.input_ids[0]])
with torch.no_grad():
    logits, of_whole = teacher(ids).logits, whole(ids).logits
claim(
    "at full rank, the logits are those of the teacher to 1e-4",
    torch.allclose(of_whole, logits, atol=1e-4),
)
print(
    f"and the encoder has {encoder_parameters(whole) / encoder_parameters(teacher):.2f} times its parameters"
)

# %% [markdown]
# ## Ask the inputs
#
# Best for whom? The SVD minimises the error of the *weight*. It would be the error of the *outputs* if inputs
# pointed everywhere alike. They do not: texts use few of the directions, and some much more than others.
#
# For a weight W, its approximation W′, and D = W − W′, the mean squared error of the outputs is
#
# $$\mathrm{mean}\,|D x|^2 = \mathrm{tr}(D\, M\, D^\top) = |D L|^2, \qquad M = \mathrm{mean}\;x x^\top = L L^\top.$$
#
# All that we need to know about the inputs is one matrix M, their [*second moment*](../docs/glossary.md#second-moment).
#
# ### Exercise: the second moment
#
# > Difficulty: medium · about 10 minutes


# %%
def second_moment(hidden, attention_mask):
    """The mean (H, H) of x xᵀ over the vectors x of all real tokens; hidden is (B, S, H)."""
    # solution
    x = hidden[attention_mask.bool()]
    return x.T @ x / len(x)


# %%
check.second_moment(second_moment)


# %% tags=["solution"]
def second_moment_answer(hidden, attention_mask):
    x = hidden[attention_mask.bool()]  # (N, H), without padding
    return x.T @ x / len(x)


check.second_moment(second_moment_answer)

# %% [markdown]
# Now the formula above says what to do: |D L|² is the squared error of approximating W L. So decompose W L.
# This is [*data-aware*](../docs/glossary.md#data-aware-svd) SVD (Chen and others 2021; Wang and others 2024).
#
# ### Exercise: the best matrix for these inputs
#
# > Difficulty: hard · about 15 minutes
#
# The SVD gives the best approximation of W L. The way back from it, to the best W′, is yours to find.


# %%
def best_for_inputs(weight, moment, rank):
    """The matrix (out, in) of this rank with the least mean of |(weight - it) x|²."""
    # solution
    root = torch.linalg.cholesky(moment)
    up = torch.linalg.svd(weight @ root, full_matrices=False).U[:, :rank]
    return up @ (up.T @ weight)


# %%
check.best_for_inputs(best_for_inputs)


# %% tags=["solution"]
def best_for_inputs_answer(weight, moment, rank):
    root = torch.linalg.cholesky(moment)  # moment = root @ root.T
    up = torch.linalg.svd(weight @ root, full_matrices=False).U[:, :rank]  # (out, r)
    return up @ (up.T @ weight)


check.best_for_inputs(best_for_inputs_answer)

# %% [markdown]
# What the SVD of W L keeps are directions of the *outputs*, the first r columns of U. Let only these through:
#
# $$W' = U_r U_r^\top W.$$
#
# The layer still has two factors, U_r and U_rᵀ W.
#
# The library's `low_rank` takes the moment as its third argument, `input_moments` collects the moments of all
# layers while the model reads a few texts. No labels are needed. First the error that each way makes,
# layer by layer, at half of the numbers.

# %%
moments = input_moments(teacher, some)
half = ranks_for(teacher, 0.5)


def output_error(name, inputs):
    """The mean squared error of a layer's outputs at its rank, as a share of their mean square."""
    weight = layers[name].weight.detach().double()
    down, up = low_rank(weight, half[name], inputs)
    rest = weight - up @ down
    return float(((rest @ moments[name]) * rest).sum() / ((weight @ moments[name]) * weight).sum())


errors = np.array(
    [[output_error(name, None), output_error(name, moments[name])] for name in layers]
)
claim("in every layer the inputs' choice has less error", (errors[:, 1] < errors[:, 0]).all())
claim("in most layers less than half of it", small or np.median(errors[:, 1] / errors[:, 0]) < 0.5)

# %% tags=["slide-output-energy"]
of_outputs = {name: spectrum(layers[name].weight, moments[name]) for name in layers}
show(
    figures.energy_figure(energy_panels(outputs=of_outputs), its_shapes),
    alt="The same two layers with a third curve, the energy of the outputs. It is the highest of the three: for "
    "the feed-forward weight nearly all of it is held by the very first directions.",
)

# %% [markdown]
# The outputs need far fewer directions than the weight has. In the feed-forward panel nearly all of their energy is in
# the very first. Which direction is that?

# %%
weight = layers[FEED].weight.detach().double()
by_output = (weight @ moments[FEED] @ weight.T).diagonal()  # the mean square of each of 384 outputs
claim(
    "one output of 384 holds more than half of the energy of them all",
    small or by_output.max() > by_output.sum() / 2,
)

# %% [markdown]
# A single coordinate. Notebook 10 meets such [*outliers*](../docs/glossary.md#outlier) again. Here they are a warning: energy is dominated
# by what is large, and what is large need not be what decides.
#
# Here is one layer, at a rank of your choice. (In a page without a kernel, look at the figure.)

# %%
show(
    figures.rank_figure(of_weights[QUERY], of_outputs[QUERY], its_shapes[0], half[QUERY]),
    alt="One query layer at the rank that halves its numbers. Left, the singular values of weight and outputs on "
    "a logarithmic axis; those of the outputs fall faster. Right, three bars: about half of the numbers are stored, "
    "and the outputs keep a larger share of their energy than the weight does.",
)

# %% tags=["nbval-ignore-output", "slide-rank-viewer"]
figures.rank_viewer(of_weights[QUERY], of_outputs[QUERY], its_shapes[0], rank=half[QUERY])

# %% [markdown]
# ## Low rank or pruning?
#
# Time for accuracy. Three ways make the encoder smaller, to the same share of its parameters: plain SVD, SVD with
# the texts' moments, and pruning of heads and neurons (by the first-order Taylor score of notebook 08). We look first at
# what each breaks. Then each learns for a few steps from the whole model, which is the *teacher* now: its
# logits are all that this training reads, alpha (the weight of the labels) is 0.

# %%
importance = taylor(teacher, some)


def pruned(share):
    return remove(teacher, keep_most_important(importance, heads=share, neurons=share))


def plain(share):
    return factorise(teacher, ranks_for(teacher, share))


def with_texts(share):
    return factorise(teacher, ranks_for(teacher, share), texts=some)


WAYS = {"plain": plain, "with texts": with_texts, "pruned": pruned}

# %%
SHARES = (0.65, 0.5, 0.35)
cut = {name: {share: way(share) for share in SHARES} for name, way in WAYS.items()}
before = {name: [right(cut[name][share]) for share in SHARES] for name in WAYS}
sizes = [encoder_parameters(each[0.5]) / encoder_parameters(teacher) for each in cut.values()]
claim(
    "all three have half of the encoder's parameters, within a point", np.ptp([*sizes, 0.5]) < 0.01
)

# %%
softly = texts.with_columns(**teacher_signals(teacher, texts, progress=False))


def recovered(model, seed, rows=softly):
    """A copy of the model, after a few steps towards the teacher's logits."""
    student = copy.deepcopy(model)
    epochs = size["steps"] / ceil(len(rows) / BATCH)
    recipe = Recipe(epochs, 2e-4, batch_size=BATCH, alpha=0.0, freeze_words=True, seed=seed)
    train(student, rows, recipe, progress=False)
    return student


students = {
    name: {share: [recovered(cut[name][share], seed) for seed in SEEDS] for share in SHARES[1:]}
    for name in WAYS
}
after = {
    name: {share: np.stack([right(model) for model in models]) for share, models in each.items()}
    for name, each in students.items()
}  # (seeds, N) each

# %% tags=["slide-ways"]
show(
    figures.sizes_figure(SHARES, before, after, teacher_right.mean()),
    alt="Accuracy over the share of the encoder that is left, for plain SVD, SVD with texts and pruning. As they are "
    "cut, plain SVD lies far below the other two at every size. After training, all three have come closer "
    "to the teacher; plain SVD is still the lowest at the smallest size.",
)

# %% tags=["nbval-ignore-output"]
for k, share in enumerate(SHARES[1:], start=1):
    print(f"{share:.0%} of the encoder")
    for name in ("plain", "pruned"):
        print(f"  with texts against {name}")
        print_lead("    as cut", before["with texts"][k] - before[name][k])
        print_lead("    after training", after["with texts"][share] - after[name][share])
    print("  with texts against the teacher")
    print_lead("    after training", after["with texts"][share] - teacher_right)

# %%
gain = [over_seeds_and_texts(a - b) for a, b in zip(before["with texts"], before["plain"])]
claim(
    "as they are cut: texts help at every size, outside the interval",
    small or all(m > h for m, h in gain),
)
mended = after["plain"][0.5] - before["plain"][1]
claim("training brings plain SVD back by more than ten points", small or mended.mean() > 10)
mean, margin = over_seeds_and_texts(after["with texts"][0.35] - after["plain"][0.35])
claim("at the smallest size, texts still help after it", small or mean > margin)

# %% [markdown]
# Read the verdicts. As they are cut, the choice of directions is everything. A few steps of training repair
# much of what was broken, whatever broke it. But they do not make all equal: who starts far down has not
# arrived when the steps are over. Low rank *with texts* and pruning are another matter. Compare their lines, and do not
# let a mean inside its interval crown a winner. (Where two seeds disagree the interval is very wide: two say
# little about a third.)
#
# And if you cannot train? Then the inputs' moments cost a few hundred texts without labels, and seconds.
#
# So far every layer kept the same share of its numbers. Could we not be cleverer, and give the ranks to those who
# need them? By energy: the next rank always goes to the layer whose outputs gain most from it, until half of the
# encoder is spent.

# %%
uneven = ranks_for(teacher, 0.5, spectra=of_outputs)
by_outputs = right(factorise(teacher, uneven, texts=some))
same_share = before["with texts"][1]

# %% tags=["nbval-ignore-output"]
for name, ranks in {"same share": half, "by energy": uneven}.items():
    print(f"{name}: ranks from {min(ranks.values())} to {max(ranks.values())}")
print_lead("by energy against the same share", by_outputs - same_share)

# %%
mean, margin = over_seeds_and_texts(same_share - by_outputs)
claim("the same share for all does better, outside the interval", small or mean > margin)

# %% [markdown]
# The outliers have deceived the rule. A layer with one huge direction holds nearly all its energy in it, and is given next to
# nothing more. Energy compares directions *within* a layer well; between layers it does not say what matters.
#
# Parameters are not milliseconds. A factorised layer is two products instead of one, a pruned layer one
# smaller product. We time them in turns, on the same texts.

# %%
of_half = {"teacher": teacher} | {name: each[0.5][0] for name, each in students.items()}
racers = [TorchClassifier.of(model, tokenizer, name=name) for name, model in of_half.items()]
times = speed(racers, test_rows["text"][:64], rounds=2 if small else 4)

# %% tags=["nbval-ignore-output"]
for row in times:
    print(
        f"{row['name']:>10}: {row['latency_ms_p50']:5.1f} ms for one text, {row['throughput_32']:5.0f} texts/s in batches"
    )

# %% [markdown]
# Compare *with texts* and *pruned*: the same number of parameters, and pruned is faster, for one text and in
# batches. The factorised model makes two products of one. And it still has all heads and all neurons, so
# whatever is computed between the products, softmax and GELU, is as much as in the teacher. Equal parameters
# are not equal time.
#
# ## Half of a small BERT is a table
#
# So far we have worked on the encoder. In a small BERT that is not where most of the parameters are.


# %% tags=["slide-owners"]
def three_parts(config):
    counts = count(config)
    words = counts["word embeddings"]
    layers = counts["attention"] + counts["feed-forward"]
    return {"word table": words, "layers": layers, "rest": sum(counts.values()) - words - layers}


show(
    figures.parts_figure(
        {name: three_parts(config) for name, config in well_known().items()},
        "Who owns the parameters?",
    ),
    alt="Stacked bars of BERT-large, BERT-base, DistilBERT and MiniLM, in millions of parameters: word table, "
    "layers, rest. The smaller the model, the larger the share of the word table: a tenth of BERT-large, a fifth of "
    "BERT-base, a third of DistilBERT, half of MiniLM.",
)

# %% [markdown]
# The table has 30 522 rows, a row per token. A text uses a few of them. How many does a task use?

# %%
places = [round(share * len(many)) for share in (0.05, 0.1, 0.25, 0.5, 1)]
seen = [{i for ids in many.input_ids[:n] for i in ids} for n in places]
known = [100 * np.mean([i in each for ids in test.input_ids for i in ids]) for each in seen]
show(
    lines_figure(
        "How many tokens does a task use?",
        Panel(
            places,
            {"distinct tokens": [len(each) for each in seen]},
            "texts read",
            "tokens",
            log="x",
        ),
        Panel(places, {"covered": known}, "texts read", "tokens of new texts covered, %", log="x"),
    ),
    alt="Left, the number of distinct tokens in the first texts read: it grows with the texts and stays far below "
    "the size of the vocabulary. Right, the share of the tokens of new texts that were among them: it "
    "rises towards all of them.",
)

# %%
claim(
    "all texts together use less than a third of the vocabulary",
    small or len(seen[-1]) < len(tokenizer) / 3,
)
claim("and they cover more than 95 % of what new texts hold", small or known[-1] > 95)

# %% [markdown]
# So cut the others out, which is called [*vocabulary trimming*](../docs/glossary.md#vocabulary-trimming). Tokenizer and table have to be cut *together*, and the ids move: *it*, row 2 009 of the
# old table, will stand in another row of the new one. And what of a word that nobody has seen yet? BERT's
# tokenizer splits it into the longest pieces that it has. As long as every single character is there, it always
# finds some.
#
# ### Exercise: tokens to keep
#
# > Difficulty: medium · about 10 minutes
#
# `vocabulary` maps tokens to ids; pieces within a word begin with `##`. `special` are ids, `texts` lists of ids.


# %% tags=["slide-keep-tokens"]
def keep_tokens(vocabulary, special, texts):
    """The ids, sorted, that stay: special ones, those of the texts, and single characters."""
    # solution
    kept = {*special, *(i for ids in texts for i in ids)}
    kept |= {i for token, i in vocabulary.items() if len(token.removeprefix("##")) == 1}
    return sorted(kept)


# %%
check.keep_tokens(keep_tokens)


# %% tags=["solution"]
def keep_tokens_answer(vocabulary, special, texts):
    kept = {*special, *(i for ids in texts for i in ids)}
    # every character, as the first of a word and within one
    kept |= {i for token, i in vocabulary.items() if len(token.removeprefix("##")) == 1}
    return sorted(kept)


check.keep_tokens(keep_tokens_answer)

# %% [markdown]
# The library's `tokens_to_keep` does this and, because a student knows a word best by its own token, adds
# frequent tokens up to a number that you choose. It needs no labels, so we give it all the texts we have.
# `trim_vocabulary` makes the new model and the new tokenizer.

# %%
keep = tokens_to_keep(tokenizer, many.input_ids, at_least=8192)
trimmed = trim_vocabulary(teacher, tokenizer, keep)
ids = texts.input_ids[0]
new_ids = trimmed.new_ids[ids]  # where each token went
with torch.no_grad():
    was, now = teacher(torch.tensor([ids])).logits, trimmed.model(new_ids[None]).logits
claim(
    "the new tokenizer finds the moved ids by itself",
    read(train_rows, trimmed.tokenizer).input_ids[0] == new_ids.tolist(),
)
claim("no logit has moved by more than 1e-5", near(now, was))

# %% [markdown]
# This is the one compression in the course that is *exact*: for a text whose tokens are all kept, the model computes what it did.
# Nothing is approximated, and nothing has to be trained. Now words that are not kept. We cut harder, to see it: the
# course's own sentence, and a vocabulary of its own few tokens and all characters.

# %% tags=["slide-pieces"]
tiny_keep = tokens_to_keep(
    tokenizer, encode(tokenizer, ["Sort the labels of the rows."]).input_ids, at_least=0
)
tiny = trim_vocabulary(teacher, tokenizer, tiny_keep).tokenizer
for text in ("Sort the labels.", "Sort the columns.", "Übergröße!"):
    print(tokenizer.tokenize(text), "->", tiny.tokenize(text))

# %% [markdown]
# No [UNK], but *columns* is spelled out, and the model has hardly ever read like that. The text has become longer, too,
# and what is cut off at 24 tokens is its end. How far can we go? We try four vocabularies, on test texts that had no
# say in the choice. (Two thousand tokens of each are characters: BERT knows Chinese, Arabic and many signs.)

# %%
vocabularies = {}
for at_most in (2500, 4096, 8192, 16384):
    few = tokens_to_keep(tokenizer, many.input_ids, at_least=at_most, at_most=at_most)
    cut_down = trim_vocabulary(teacher, tokenizer, few)
    as_split = read(test_rows, cut_down.tokenizer)
    length = np.mean([len(ids) for ids in as_split.input_ids])
    vocabularies[len(few)] = right(cut_down.model, as_split) - teacher_right, length

# %% tags=["slide-vocabulary"]
kept, (points, lengths) = list(vocabularies), zip(*vocabularies.values())
show(
    lines_figure(
        "How small may the vocabulary be?",
        Panel(
            kept,
            {"trimmed": [each.mean() for each in points]},
            "tokens kept",
            "against the teacher, points",
            log="x",
        ),
        Panel(kept, {"trimmed": lengths}, "tokens kept", "tokens per text", log="x"),
    ),
    alt="Left, the accuracy of four trimmed models against the teacher, over the number of tokens kept. "
    "Right, the mean length of a test text in tokens: the fewer tokens are kept, the longer are the texts, up to "
    "the cut.",
)

# %% tags=["nbval-ignore-output"]
for n in kept:
    print_lead(f"{n} tokens", vocabularies[n][0])

# %%
claim("fewer tokens, longer texts", small or all(a >= b for a, b in pairwise(lengths)))
claim(
    "with the largest of the four, the accuracy is within two points",
    small or abs(points[-1].mean()) < 2,
)

# %% [markdown]
# ## A thinner table
#
# A table is a matrix, too: 30 522 rows of 384. ALBERT (Lan and others 2020) gives it a rank: a thin table of 128
# columns, and one matrix that maps 128 numbers to 384. A token's "input" is a single 1 at its place, so the second
# moment is diagonal: how often each token occurs. `factorise_embeddings(model, rank, texts=…)` counts.
#
# From how many texts? We compare three counts: none, a few hundred texts, thousands. And we look at the error of
# the table in three places: all rows, the tokens of new texts, and those of them that the few texts lack.

# %%
RANK = 128
counted = {"none": None, "few texts": some, "many texts": many}
thin_tables = {
    name: factorise_embeddings(teacher, RANK, texts=each) for name, each in counted.items()
}


def rows_of(model, ids):
    with torch.no_grad():
        return model.bert.embeddings.word_embeddings(torch.tensor(ids))


def table_error(model, ids):
    """The squared error of these tokens' vectors, as a share of their squares."""
    table = rows_of(teacher, ids)
    return float((rows_of(model, ids) - table).square().sum() / table.square().sum())


# %%
in_new_texts = [i for ids in test.input_ids for i in ids]
met = {i for ids in some.input_ids for i in ids}
groups = {
    "all rows": range(len(tokenizer)),
    "new texts": in_new_texts,
    "not in the few": [i for i in in_new_texts if i not in met],
}
wrong = np.array(
    [[table_error(model, list(ids)) for ids in groups.values()] for model in thin_tables.values()]
)  # (counts, groups)

# %% tags=["nbval-ignore-output"]
legend(torch.tensor(wrong), [name.split()[0] for name in counted], ["rows", "new", "lacked"])
for name, model in thin_tables.items():
    print_lead(f"{name}, against the teacher", right(model) - teacher_right)

# %%
rows_wrong, new_wrong, _ = wrong.T
claim("the more texts, the less error on new texts", small or (np.diff(new_wrong) < 0).all())
claim("and the more on the table as a whole", small or (np.diff(rows_wrong) > 0).all())

# %% [markdown]
# Counting does not lower the error, it *moves* it: from tokens that occur to tokens that do not. So the question is
# whether your count knows what will occur. A few hundred texts were plenty for the *layers*: every token of every text shows a layer
# another vector. For the *table* they are few: on new texts (the middle column) the count of few leaves more
# error than that of many. And it does nothing for the tokens that it lacks (the last column). On balance, a count
# of few texts may help or harm; the lines above say what it did here. Count with all the text you have; it needs no labels.
#
# One more trap is the order. Trim first, and the rank is spent on the tokens that stay. Factorise first, and a
# part of it goes to tokens that you then throw away.

# %%
trim_first = factorise_embeddings(trimmed.model, RANK)
factorise_first = trim_vocabulary(thin_tables["none"], tokenizer, keep).model


def kept_rows_error(model):
    ids = range(len(keep))
    return float((rows_of(model, list(ids)) - rows_of(teacher, keep)).square().sum())


claim(
    "trim first: less error on the rows that stay",
    kept_rows_error(trim_first) < kept_rows_error(factorise_first),
)

# %% [markdown]
# ## All of it
#
# One model, in this order: trim the vocabulary, factorise the encoder with the texts' moments, factorise the table
# with many counts, and learn from the teacher for a few steps.


# %%
def split_anew(rows, texts):
    """The texts of these rows in the new vocabulary, with what goes with them."""
    ids = read(rows, trimmed.tokenizer).input_ids
    return EncodedTexts(ids[: len(texts)], **texts.columns)


new_some, new_softly = split_anew(train_rows, some), split_anew(train_rows, softly)
new_many, new_test = split_anew(many_rows, many), split_anew(test_rows, test)

# %%
thin = factorise(trimmed.model, ranks_for(trimmed.model, 0.5), texts=new_some)
thin = factorise_embeddings(thin, RANK, texts=new_many)
all_of_it = [recovered(thin, seed, new_softly) for seed in SEEDS]

# %% [markdown]
# It is saved and loaded like any other model: `config.json` holds the ranks, the folder the new tokenizer.

# %%
small_rows = test_rows["text"][:32]
with tempfile.TemporaryDirectory() as place:
    all_of_it[0].save_pretrained(place)
    trimmed.tokenizer.save_pretrained(place)
    loaded = TorchClassifier(place)
    saved_mb, was_mb = size_mb(place), size_mb(folder)
mine = TorchClassifier.of(all_of_it[0], trimmed.tokenizer, name="all of it")
claim(
    "what was loaded says what was saved",
    np.allclose(loaded.predict(small_rows), mine.predict(small_rows), atol=1e-5),
)
claim("and takes less than half of the teacher's bytes", saved_mb < was_mb / 2)

# %% tags=["slide-steps"]
steps = {
    "teacher": teacher,
    "half the encoder": cut["with texts"][0.5],
    "+ trimmed": trim_vocabulary(cut["with texts"][0.5], tokenizer, keep).model,
    "+ thin table": thin,
}


def parts_of(model):
    words = parameters(model.bert.embeddings.word_embeddings)
    layers = encoder_parameters(model)
    return {"word table": words, "layers": layers, "rest": parameters(model) - words - layers}


show(
    figures.parts_figure(
        {name: parts_of(model) for name, model in steps.items()}, "What is left, step by step?"
    ),
    alt="Four stacked bars, in millions of parameters: the teacher; with half of its encoder; with a trimmed "
    "vocabulary as well; and with a thin table. Each is shorter than the one above, and the trimming of the "
    "vocabulary is the longest step.",
)

# %% tags=["nbval-ignore-output"]
print(f"on disk: {was_mb:.1f} MB before, {saved_mb:.1f} MB after, both in 32-bit numbers")
in_new = np.stack([right(model, new_test) for model in all_of_it])
print(f"right: {teacher_right.mean():.1f} % before, {in_new.mean():.1f} % after")
print_lead("all of it against the teacher", in_new - teacher_right)

# %% [markdown]
# All numbers are still of 32 bits. Notebook 10 makes them smaller, one by one.
#
# ## What to take away
#
# 1. A rank saves something only below m·n / (m + n): for a square weight, below *half* of its full rank.
# 2. BERT's weights are not of low rank; what its layers *put out* is closer to it. Ask the inputs, not the energy of the weight.
# 3. A few steps of distillation repair much, and a good start still pays. Compare at the same size, before and after.
# 4. The smaller the model, the more of it is the word table. Trimming it is exact; keep all characters, and check on new texts.
# 5. Order counts: first trim, then factorise, then train. And parameters are not milliseconds.
#
# ## Three questions
#
# Read a question, then answer it in a cell of your own: `quiz.rank_four_hundred("a")`.

# %%
quiz.rank_four_hundred()

# %%
quiz.energy_is_not_accuracy()

# %%
quiz.a_word_left_out()

# %% [markdown]
# ## To read
#
# - Eckart, Young (1936), *The Approximation of One Matrix by Another of Lower Rank*: eight pages.
# - Chen, Yu, Dhillon, Hsieh (2021), *DRONE: Data-aware Low-rank Compression for Large NLP Models*.
# - Wang, Zheng, Wan, Zhang (2024), *SVD-LLM*: the same root of the second moment, for large models.
# - Lan and others (2020), *ALBERT*: section 3.1 is the thin table.
# - Abdaoui, Pradel, Sigel (2020), *Load What You Need: Smaller Versions of Multilingual BERT*: trimming.
