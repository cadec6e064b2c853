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
# # 10 · Quantization
#
# > **About 80 minutes**, of which your computer works for about two, and one more the first
# > time, to train a teacher. Two processor cores are enough; a network is not needed. You should know how
# > a BERT is built (notebook 02) and how a student learns from a teacher's logits (notebook 03).
#
# A weight of a trained model is a float32: four bytes, some seven decimal digits. Does it need them?
#
# When you reach the end of this page you will have
#
# - stored real numbers as integers by hand, and chosen who shares a scale,
# - weighed rounding against clipping,
# - multiplied integers and got what ONNX Runtime gets, number for number,
# - made a whole BERT of integers, and found out what was left in float,
# - met the outliers in a real model's activations, and calibrated their ranges in three ways,
# - trained a model that knows of its own rounding,
# - asked one function for int8, int4 and 16 bits, and been told which library did it, and why.

# %% tags=["setup"]
import warnings

warnings.filterwarnings("ignore")

import copy
import tempfile
from math import ceil
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from course_utils import machine, prepared
from course_utils.classroom import check, claim
from course_utils.classroom import quantization_figures as figures
from course_utils.classroom.lines import Panel, lines_figure
from course_utils.classroom.plots import show, use_style
from course_utils.classroom.quiz import quiz
from course_utils.classroom.source import show_source
from course_utils.classroom.task_figures import rows_figure
from course_utils.compress.available import METHODS, slower_here
from course_utils.compress.calibration_ranges import RANGES, observe, outliers
from course_utils.compress.int8 import Int8Linear, int8_model
from course_utils.compress.qat import convert, fake_quant, prepare_qat
from course_utils.compress.quantization import (
    affine,
    error,
    from_range,
    int_matmul,
    quantize_tensor,
)
from course_utils.data.encoding import encode
from course_utils.data.tasks import load_task
from course_utils.distill.cache import teacher_signals
from course_utils.distill.trainer import Recipe, train
from course_utils.measure.accuracy import over_seeds_and_texts
from course_utils.measure.size import size_mb
from course_utils.measure.speed import speed
from course_utils.models.classifier import TorchClassifier
from course_utils.ship.backends import quantize
from course_utils.ship.onnx import to_onnx
from course_utils.ship.runtime import OnnxClassifier

logging.set_verbosity_error()
logging.disable_progress_bar()
use_style()

# %% tags=["nbval-ignore-output"]
machine.use_all_cores()
small = machine.profile() == "smoke"
print(machine.describe())

# %% [markdown]
# ## A number in a byte
#
# Take six numbers. We want to keep each in three bits: there are seven integers from −3 to 3, as many below
# zero as above. Divide by a [*scale*](../docs/glossary.md#scale), so that the largest number becomes 3, and round: that is [*quantization*](../docs/glossary.md#quantization).

# %% tags=["slide-three-bits"]
x = torch.tensor([-1.0, -0.4, 0.0, 0.3, 0.55, 2.0])
scale = x.abs().max() / 3
integers = torch.round(x / scale)
print("scale   ", round(scale.item(), 3))
print("integers", integers.int().tolist())
print("stored  ", [round(value, 2) for value in (integers * scale).tolist()])

# %% [markdown]
# Six numbers went in, and what comes back is near, not equal. This is [*symmetric*](../docs/glossary.md#symmetric-and-asymmetric-quantization) quantization. Nothing
# here is below −1, so the integer −3 is never used. *Asymmetric* quantization spreads unsigned integers, 0 to
# 7, over the range from the smallest to the largest number. Then some integer must stand for 0.0; it is
# called the [*zero point*](../docs/glossary.md#zero-point):
#
# $$x \approx (q - \text{zero point}) \cdot \text{scale}.$$
#
# The library does both; `affine` looks at the numbers, `quantize_tensor` makes the integers.

# %%
ways = {
    "symmetric": affine(x, bits=3, symmetric=True),
    "asymmetric": affine(x, bits=3, symmetric=False),
}
for name, q in ways.items():
    print(
        f"{name:>10}: scale {q.scale:.3f}, zero point {q.zero_point},",
        quantize_tensor(x, q).tolist(),
    )
claim(
    "the library's symmetric integers are ours",
    torch.equal(quantize_tensor(x, ways["symmetric"]).float(), integers),
)

# %% tags=["slide-stairs"]
show(
    figures.stairs_figure(x, ways),
    alt="Two staircases, symmetric and asymmetric, of three bits: what each real number is stored as. Six numbers "
    "stand on them, with red lines to where they came from. The asymmetric stairs have lower steps, all "
    "of them where the numbers are.",
)

# %% [markdown]
# The stairs are flat beyond their ends: a number out there is [*clipped*](../docs/glossary.md#clipping-of-a-range). With a running kernel, move the
# bits and the range. (In a page without a kernel, the figure above stands for it.)

# %% tags=["nbval-ignore-output", "slide-slider"]
figures.quantize_by_slider(x)

# %% [markdown]
# ### Exercise: scale and zero point
#
# > Difficulty: easy · about 8 minutes
#
# Eight bits, unsigned: 0 to 255. Padding and ReLU make exact zeros by the thousand, so 0.0 has to be on the
# grid, whatever the range is.


# %% tags=["slide-zero-point"]
def scale_and_zero_point(low, high):
    """(scale, zero point) that spread the integers 0 to 255 over low to high, 0.0 among them."""
    # solution
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    return scale, round(-low / scale)


# %%
check.scale_and_zero_point(scale_and_zero_point)


# %% tags=["solution"]
def scale_and_zero_point_answer(low, high):
    low, high = min(low, 0.0), max(high, 0.0)  # 0.0 is on the grid
    scale = (high - low) / 255  # 256 integers, 255 steps
    return scale, round(-low / scale)


check.scale_and_zero_point(scale_and_zero_point_answer)

# %% [markdown]
# ## Who shares a scale?
#
# Now real weights: MiniLM with six layers, fine-tuned on PyDocs, the teacher of notebook 00. Texts are cut
# to 24 tokens, to save your time.

# %%
SIZES = {
    "smoke": {"test": 48, "seen": 32, "unlabelled": 64, "steps": 2, "timed": 4, "rounds": 1},
    "cpu": {"test": 640, "seen": 128, "unlabelled": 960, "steps": 30, "timed": 32, "rounds": 3},
    "gpu": {"test": 2400, "seen": 512, "unlabelled": 5760, "steps": 120, "timed": 96, "rounds": 5},
}
size = SIZES[machine.profile()]
folder = prepared.pydocs_teacher(say=lambda line: None)
model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=24)
weight = model.bert.encoder.layer[2].intermediate.dense.weight.detach()
words = model.get_input_embeddings().weight.detach()
print(tuple(weight.shape), tuple(words.shape))

# %% [markdown]
# One scale for the whole matrix? One for each row, which belongs to one output? One for each [*group*](../docs/glossary.md#group-of-weights) of 32
# weights in a row? We measure the error relative to the weights' own size, for 8 bits down to 2.


# %% tags=["slide-sharing"]
def relative_error(x, q):
    """Root of the mean squared error, over the root of the mean square of x, in percent."""
    return 100 * (error(x, q).total / x.double().square().mean().item()) ** 0.5


all_bits = (8, 6, 4, 3, 2)
sharing = {"one scale": {}, "a scale per row": {"dim": 0}, "groups of 32": {"group_size": 32}}
errors = {
    name: [relative_error(weight, affine(weight, bits=b, symmetric=True, **how)) for b in all_bits]
    for name, how in sharing.items()
}
show(
    lines_figure(
        "How much does a bit cost, and who pays?",
        Panel(all_bits, errors, "bits", "error of the weights, %", log="y"),
    ),
    alt="The error of a weight matrix over the number of bits, 8 to 2, on a logarithmic axis, for three ways to "
    "share a scale. All rise as bits go. Groups have the least error everywhere, one scale the most.",
)

# %%
whole, rows, groups = map(np.array, errors.values())
claim("rows are finer than one scale, at 8, 6 and 4 bits", (rows < whole)[:3].all())
claim("groups are finer than rows, at every number of bits", (groups < rows).all())
claim("each bit that goes about doubles the error", 1.6 < (groups[2] / groups[0]) ** 0.25 < 2.5)

# %% [markdown]
# Scales are not free: each is a float32 of its own. A row of 384 weights can well afford one. And the
# largest matrix of the model? It is the table of word vectors.

# %% tags=["nbval-ignore-output"]
table = {
    name: relative_error(words, affine(words, symmetric=True, **how))
    for name, how in sharing.items()
}
print({name: f"{percent:.2f} %" for name, percent in table.items()})
peaks = words.abs().amax(1)  # (V,)
print(f"largest number of a word: {peaks.max():.2f}, of the median word {peaks.median():.2f}")

# %%
claim("some word's numbers are 3 times the median word's", bool(peaks.max() > 3 * peaks.median()))
claim(
    "8 bits, a scale per word: less than half of the error",
    table["a scale per row"] < table["one scale"] / 2,
)

# %% [markdown]
# One word has numbers several times as large as the median word has. With one scale for thirty thousand
# words, that one decides for all.
#
# ### Exercise: a scale for each row
#
# > Difficulty: easy · about 10 minutes


# %%
def quantize_rows(weight):
    """(integers (M, K) as int8, scales (M, 1)): symmetric, -127 to 127, a scale for each row."""
    # solution
    scales = weight.abs().amax(1, keepdim=True) / 127
    return torch.round(weight / scales).to(torch.int8), scales


# %%
check.quantize_rows(quantize_rows)


# %% tags=["solution"]
def quantize_rows_answer(weight):
    scales = weight.abs().amax(1, keepdim=True) / 127  # (M, 1)
    return torch.round(weight / scales).to(torch.int8), scales


check.quantize_rows(quantize_rows_answer)

# %% [markdown]
# ## Rounding against clipping
#
# The scale need not reach the largest weight. Cut the range, and the few beyond it are clipped, while all
# others get finer steps. We try every cut from a tenth of the peak to all of it, at 4 bits and at 8.

# %% tags=["slide-clip"]
shares = [k / 20 for k in range(2, 21)]
peak = weight.abs().max()
parts = {
    bits: [
        error(weight, from_range(-share * peak, share * peak, bits=bits, symmetric=True))
        for share in shares
    ]
    for bits in (4, 8)
}
panels = [
    Panel(
        shares,
        {
            "rounding": [e.rounding for e in found],
            "clipping": [e.clipping or np.nan for e in found],
            "both": [e.total for e in found],
        },
        "range kept, share of the peak",
        "mean squared error",
        f"{bits} bits",
        log="y",
    )
    for bits, found in parts.items()
]
show(
    lines_figure("Where is it best to cut?", *panels),
    alt="Two charts, 4 and 8 bits: rounding error rises with the range that is kept, clipping error falls, and "
    "their sum has its lowest point in between. At 8 bits that point is further to the right.",
)

# %%
best = {bits: shares[int(np.argmin([e.total for e in found]))] for bits, found in parts.items()}
claim("at 4 bits it pays to clip", best[4] < 1)
claim("with more bits, less should be clipped", best[8] > best[4])

# %% [markdown]
# The fewer the integers, the more each of them is worth, and the more it pays to give up a few extreme
# weights. At 8 bits there is little to be gained, which is why the plain min-max is used so often.
#
# ## Integers all the way
#
# Storage is one half of the gain. The other is arithmetic: processors have instructions that multiply
# 8-bit integers, four or more in the time of one float. Weights and inputs are both integers then:
#
# $$\sum_k x_k w_k \approx s_x s_w \sum_k (q_k - z)\, w^q_k.$$
#
# The sum on the right holds integers alone. A product of two 8-bit numbers has 16 bits, and hundreds are
# added, so the sum is kept in 32.
#
# ### Exercise: a product of integers
#
# > Difficulty: medium · about 12 minutes
#
# Take care with types: in uint8, 3 − 5 is 254.


# %% tags=["slide-integer-matmul"]
def integer_matmul(x, w, x_zero):
    """(x - x_zero) @ w as int32, (N, M), for x (N, K) uint8 and w (K, M) int8."""
    # solution
    return (x.int() - x_zero) @ w.int()


# %%
check.integer_matmul(integer_matmul)


# %% tags=["solution"]
def integer_matmul_answer(x, w, x_zero):
    # Processors take x.int() @ w.int() and subtract x_zero · (the sums of w's columns) afterwards.
    return (x.int() - x_zero) @ w.int()


check.integer_matmul(integer_matmul_answer)

# %% [markdown]
# In [*ONNX Runtime*](../docs/glossary.md#onnx-runtime) the same is an operator, `MatMulInteger`. Do we get its numbers? One warning first. Processors
# without 8-bit dot products add two products at a time in 16 bits, and 2 · 255 · 127 does not fit. There, and
# there alone, weights keep to 7 bits.

# %%
bits = 8 if slower_here("dynamic-int8") is None else 7
inputs = torch.randn(16, weight.shape[1], generator=torch.Generator().manual_seed(0))
q_x, q_w = affine(inputs, symmetric=False), affine(weight, bits=bits, symmetric=True, dim=0)
x8, w8 = quantize_tensor(inputs, q_x), quantize_tensor(weight, q_w).T.contiguous()
zero = q_x.zero_point.to(torch.uint8)

# %%
kinds = {"x": TensorProto.UINT8, "w": TensorProto.INT8, "zero": TensorProto.UINT8}
graph = helper.make_graph(
    [helper.make_node("MatMulInteger", list(kinds), ["y"])],
    "product",
    [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
    [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
)
product = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
session = onnxruntime.InferenceSession(product.SerializeToString())
[theirs] = session.run(None, {"x": x8.numpy(), "w": w8.numpy(), "zero": zero.numpy()})

# %%
ours = int_matmul(x8, w8, x_zero=q_x.zero_point)
claim("every sum is ONNX Runtime's", bool((ours.numpy() == theirs).all()))
claim("and some of them need more than 16 bits", bool(ours.abs().max() > 2**15))

# %% [markdown]
# The sums then become real numbers again: times the input's scale, times the scale of the output's own row.
# That is why a row may have its scale and a column may not: it must come out of the sum. The library's
# layer in full:

# %%
show_source(Int8Linear.forward)

# %% [markdown]
# ## A whole model of integers
#
# `int8_model` puts such a layer in the place of every `nn.Linear`, and an `Int8Embedding` in that of every
# table. It is written to be read; PyTorch multiplies int32 slowly, so we ask it about a few texts only.

# %%
task = load_task("pydocs", say=lambda line: None, progress=False)


def take(split, n, start=0):
    """`n` rows of a split, drawn at random: a dict of `text` and `label`."""
    rows = getattr(task, split)
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[order[start : start + n].tolist()]


test = take("test", size["test"])
labels = np.array(test["label"])
full = TorchClassifier.of(model, tokenizer, name="float32")
full_says = full.predict(test["text"])  # (N, C)

# %%
by_hand = TorchClassifier.of(int8_model(model), tokenizer, name="by hand")
few = test["text"][: 4 if small else 12]
by_hand_says = by_hand.predict(few, batch_size=1)
change = np.abs(by_hand_says - full_says[: len(few)]).mean()
claim(
    "its logits change by less than a fifth of their spread",
    small or change < 0.2 * full_says.std(),
)

# %% [markdown]
# And its file? We count the bytes of the three ways one meets: everything in float32; int8 for linear
# layers alone, which is what many tools do; int8 for the tables, too.
#
# ### Exercise: bytes
#
# > Difficulty: easy · about 5 minutes


# %%
def quantized_bytes(n_weights, bits, group_size):
    """Bytes of the weights, and of one float32 scale for each group of them."""
    # solution
    return n_weights * bits / 8 + n_weights / group_size * 4


# %%
check.quantized_bytes(quantized_bytes)


# %% tags=["solution"]
def quantized_bytes_answer(n_weights, bits, group_size):
    return n_weights * bits / 8 + n_weights / group_size * 4  # 8 bits a byte, 4 bytes a scale


check.quantized_bytes(quantized_bytes_answer)


# %% tags=["slide-files"]
def megabytes(stored):
    """MB of each part of the model; `stored` has (bits, group size) of those that are integers."""
    counts = {"embedding tables": 0, "linear layers": 0, "the rest": 0}
    kinds = {torch.nn.Embedding: "embedding tables", torch.nn.Linear: "linear layers"}
    for part in model.modules():
        if type(part) in kinds:
            counts[kinds[type(part)]] += part.weight.numel()
    counts["the rest"] = model.num_parameters() - sum(counts.values())
    return {part: n * bytes_each(*stored.get(part, (32, None))) / 1e6 for part, n in counts.items()}


def bytes_each(bits, group_size):
    """Bytes of a weight, with its part of a scale where it has one."""
    return bits / 8 + (4 / group_size if group_size else 0)


row = model.config.hidden_size
files = {
    "float32": megabytes({}),
    "int8, linear layers alone": megabytes({"linear layers": (8, row)}),
    "int8, tables too": megabytes({"linear layers": (8, row), "embedding tables": (8, row)}),
    "int4, tables int8": megabytes({"linear layers": (4, 32), "embedding tables": (8, row)}),
}
show(
    figures.files_figure(files),
    alt="Four bars of megabytes, in three parts. In float32 the embedding tables are about half of the file. With "
    "int8 linear layers alone, the tables are most of what is left; with tables in int8, too, the file is "
    "about a quarter of the first.",
)

# %%
totals = {name: sum(file.values()) for name, file in files.items()}
table_share = {name: file["embedding tables"] / totals[name] for name, file in files.items()}
claim(
    "linear layers alone: most of the file is still float32",
    table_share["int8, linear layers alone"] > 0.5,
)
claim(
    "tables too: less than 27 % of float32",
    totals["int8, tables too"] < 0.27 * totals["float32"],
)
claim("int4 layers: the table is most of the file again", table_share["int4, tables int8"] > 0.5)


# %% [markdown]
# ## Activations have outliers
#
# A weight is known before the model runs. What goes *into* a layer is not. [*Dynamic*](../docs/glossary.md#dynamic-and-static-quantization) quantization looks at
# every batch and takes its range, which costs a pass over the numbers each time. *Static* quantization
# watches some texts beforehand ([*calibration*](../docs/glossary.md#calibration-of-ranges)) and fixes the ranges for good. `observe` reads our
# calibration texts and keeps, for every linear layer, a histogram and the peak of each input.

# %%
calibration_texts = take("train", size["seen"])["text"]
seen = observe(model, encode(tokenizer, calibration_texts, max_length=24))
worst, *_, calmest = outliers(seen)

# %% tags=["nbval-ignore-output"]
for one in outliers(seen)[:4]:
    name = one.name.removeprefix("bert.encoder.")
    print(f"{name:34} input {one.channel}: {one.largest:5.1f}, the median one {one.median:.2f}")

# %% tags=["slide-outliers"]
show(
    figures.outliers_figure({one.name: seen[one.name] for one in (worst, calmest)}),
    alt="Two charts on a logarithmic axis: the largest value that each input of a linear layer had. In the first "
    "layer one input stands far above the median; in the second, inputs are much more alike.",
)

# %%
claim("in one layer an input is 5 times the median one", small or worst.ratio > 5)
claim("and in another no input is half as far from it", calmest.ratio < worst.ratio / 2)

# %% [markdown]
# Bondarenko and others (2021) found such outliers in BERT-base: in the same few inputs, whatever the text.
# One scale must serve all inputs of a layer, since it has to come out of the sum. So one input can make the
# steps of all others coarse. Shall we cut it off?
#
# ### Exercise: a range that leaves a few out
#
# > Difficulty: easy · about 8 minutes


# %%
def percentile_range(values, share):
    """(low, high) that hold this share of the values, half of the rest beyond either end."""
    # solution
    rest = (1 - share) / 2
    return np.quantile(values, rest), np.quantile(values, 1 - rest)


# %%
check.percentile_range(percentile_range)


# %% tags=["solution"]
def percentile_range_answer(values, share):
    rest = (1 - share) / 2  # on each side
    return np.quantile(values, rest), np.quantile(values, 1 - rest)


check.percentile_range(percentile_range_answer)

# %% [markdown]
# Three methods are common. *Min-max* clips nothing that it has seen. *Percentile* keeps 99.99 %. *Entropy*
# tries every cut and keeps the one whose integers tell most about the histogram, by the KL divergence
# that you know from distillation.

# %% tags=["slide-ranges"]
ranges = {method: {name: cut(one) for name, one in seen.items()} for method, cut in RANGES.items()}
shown = {
    one.name: (seen[one.name], {method: ranges[method][one.name] for method in ranges})
    for one in (worst, calmest)
}
show(
    figures.cuts_figure(shown),
    alt="Histograms, on a logarithmic axis, of what goes into the same two layers, with the ranges that three "
    "methods choose. In the first layer min-max reaches to the outlier, percentile and entropy stop far before "
    "it, entropy first. In the second layer all three nearly agree.",
)

# %%
widths = {
    method: np.mean([high - low for low, high in found.values()])
    for method, found in ranges.items()
}
claim(
    "averaged over the layers, entropy cuts deepest",
    small or widths["entropy"] < widths["percentile"] < widths["min-max"],
)

# %% [markdown]
# Which is best? Not the one with the nicest argument. To find out we need no integers: `prepare_qat` gives
# a model that computes in float, but rounds every weight, every table and every input to what the integers
# will stand for. It is called [*fake quantization*](../docs/glossary.md#fake-quantization), and it is as wrong as the real one.


# %%
def right(logits):
    """100 for each test text that is right, else 0: (1, N)."""
    return 100.0 * (logits.argmax(1) == labels)[None]


def agrees(logits):
    """100 for each test text in the class that float32 gives it, else 0: (1, N)."""
    return 100.0 * (logits.argmax(1) == full_says.argmax(1))[None]


def predict(quantized):
    return TorchClassifier.of(quantized, tokenizer, name="int8").predict(test["text"])


static_says = {method: predict(prepare_qat(model, ranges[method])) for method in ranges}

# %%
panels = {
    "against float32, points": {
        name: right(says) - right(full_says) for name, says in static_says.items()
    },
}
show(
    rows_figure("What does each calibration cost?", panels, line=0),
    alt="Three rows, one per method of calibration: the difference in accuracy to float32 with its interval, "
    "and a line at zero.",
)


# %% tags=["nbval-ignore-output", "slide-calibration"]
def print_change(name, points):
    mean, half = over_seeds_and_texts(points)
    verdict = "outside the interval" if abs(mean) > half else "inside: not shown"
    print(f"{name:26}{mean:+6.1f} ± {half:4.1f} points   {verdict}")


print(f"float32: {right(full_says).mean():.1f} % right")
for name, points in panels["against float32, points"].items():
    print_change(name, points)
for name, says in static_says.items():
    print(f"{name:>12}: {agrees(says).mean():.1f} % get the class that float32 gives them")

# %%
claim(
    "min-max loses less than 4 points",
    small or right(static_says["min-max"]).mean() > right(full_says).mean() - 4,
)
claim(
    "entropy moves more answers than min-max",
    small or agrees(static_says["entropy"]).mean() < agrees(static_says["min-max"]).mean(),
)

# %% [markdown]
# Where a line says *inside*, these texts cannot tell the accuracies apart. The classes can: the cleverest
# method moves the most answers. It was made for image networks, where large activations can be spared. Look at
# the figure of the ranges again. Percentile gives up the rarest peaks, the outlier among them, and here that
# costs nothing. Entropy cuts into values that are large and *not* rare, and the model uses these. Rules of
# thumb do not travel; a calibration is measured like anything else.
#
# ## Train with the rounding in
#
# Can a model learn to live with its grid? [*Quantization-aware training*](../docs/glossary.md#quantization-aware-training) (QAT) keeps real weights, rounds
# them in the forward pass, and lets the loss see the result. But rounding is a staircase, and the slope of a
# stair is zero. The [*straight-through estimator*](../docs/glossary.md#straight-through-estimator) pretends that the staircase was a straight line.
#
# ### Exercise: a gradient for a staircase
#
# > Difficulty: medium · about 10 minutes
#
# Symmetric int8: `x / scale` is rounded and clipped to −127 … 127, then multiplied by the scale. You are given
# the gradient of what comes out.


# %%
def straight_through(x, gradient, scale):
    """The gradient for x, from that for the int8 version of x (symmetric, -127 to 127)."""
    # solution
    inside = (x / scale).round().abs() <= 127
    return gradient * inside


# %%
check.straight_through(straight_through)


# %% tags=["solution"]
def straight_through_answer(x, gradient, scale):
    inside = (x / scale).round().abs() <= 127  # what was clipped does not move
    return gradient * inside


check.straight_through(straight_through_answer)

# %% [markdown]
# PyTorch has it as `fake_quantize_per_tensor_affine`. Value and gradient against our `fake_quant`:

# %%
q = from_range(-1.0, 1.0, symmetric=True)
mine = (1.5 * torch.randn(1000, generator=torch.Generator().manual_seed(0))).requires_grad_()
its = mine.detach().clone().requires_grad_()
one = fake_quant(mine, q)
other = torch.fake_quantize_per_tensor_affine(its, q.scale, q.zero_point, q.low, q.high)
one.square().sum().backward()
other.square().sum().backward()
claim("the same values", torch.allclose(one, other, atol=1e-6))
claim("the same gradients", torch.allclose(mine.grad, its.grad, atol=1e-5))
claim("none for what was clipped", bool((mine.grad[mine.detach().abs() > 1.01] == 0).all()))

# %% [markdown]
# At 8 bits and min-max there is next to nothing to repair. So we take the ranges that hurt, those of the
# entropy method. The *float model is the teacher*, its quantized self the student: it learns from logits, on
# texts without labels.
#
# And the control? May training alone have helped, without any rounding? Not here, and we can show it: a
# float32 student *is* its teacher, and has nothing to learn from it.

# %%
texts = encode(tokenizer, take("train", size["unlabelled"])["text"], max_length=24)
texts = texts.with_columns(**teacher_signals(model, texts, progress=False))
hard_ranges = ranges["entropy"]
SEEDS = range(1 if small else 2)


def losses(student, steps, seed=0):
    """The losses while `student` is trained on what the float model says."""
    epochs = steps / ceil(len(texts) / 32)
    recipe = Recipe(epochs, learning_rate=5e-5, alpha=0.0, freeze_words=True, seed=seed)
    return [line["loss"] for line in train(student, texts, recipe, progress=False)]


students = [prepare_qat(model, hard_ranges) for _ in SEEDS]
fell = [losses(student, size["steps"], seed) for student, seed in zip(students, SEEDS, strict=True)]
of_float = losses(copy.deepcopy(model), 1)

# %% tags=["nbval-ignore-output"]
print(f"a float32 student begins with a loss of {of_float[0]:.4f}")
for found in fell:
    print(f"with the rounding in: from {found[0]:.4f} to {found[-1]:.4f}")

# %%
claim("float32 has next to nothing to learn", small or of_float[0] < 0.2 * fell[0][0])
claim("with the rounding in, the loss falls", small or fell[0][-1] < 0.8 * fell[0][0])

# %% tags=["slide-trained"]
told = {
    "min-max": [static_says["min-max"]],
    "entropy": [static_says["entropy"]],
    "entropy, trained": [predict(student) for student in students],
}
panels = {
    title: {name: np.concatenate(list(map(measure, says))) for name, says in told.items()}
    for title, measure in (("right, %", right), ("float32's class, %", agrees))
}
show(
    rows_figure("Can a model learn to live with its grid?", panels),
    alt="Three int8 models in rows, by accuracy and by agreement with float32, with intervals: min-max, entropy, "
    "and entropy after quantization-aware training. Training brings the model of the entropy ranges closer to "
    "float32.",
)

# %% tags=["nbval-ignore-output"]
for title, found in panels.items():
    print_change(title, found["entropy, trained"] - found["entropy"])

# %%
gain = panels["float32's class, %"]["entropy, trained"] - panels["float32's class, %"]["entropy"]
claim("after training, more answers are float32's", small or gain.mean() > 0)

# %% [markdown]
# So far all its numbers are real, and rounded. `convert` makes integers of them. Does it still say the same?

# %%
integers = TorchClassifier.of(convert(students[0]), tokenizer, name="integers")
learned = TorchClassifier.of(students[0], tokenizer, name="learned")
two_texts = test["text"][:2]
gap = np.abs(integers.predict(two_texts) - learned.predict(two_texts)).max()
claim("real integers give the logits of the rounded numbers", gap < 0.1)

# %% [markdown]
# The weights have moved to where the clipped inputs do less harm. QAT is for this: for ranges or bits that
# hurt. Where plain int8 loses nothing, it has nothing to win, and costs a training.
#
# ## Sixteen bits, and four
#
# Two more formats. [*bfloat16*](../docs/glossary.md#bfloat16-and-float16) and *float16* are halves of a float32 in two ways.

# %%
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    about = torch.finfo(dtype)
    third = torch.tensor(1 / 3, dtype=dtype).item()
    print(f"{dtype!s:15} largest {about.max:.1e}  1/3 = {third:.8f}")

# %% [markdown]
# bfloat16 has float32's range and three digits at most; float16 one digit more, and nothing beyond 65 504.
# Both are half the file, and need no calibration. Whether they are *faster* is the processor's affair:
# one without instructions for them turns each number into a float32 first.
#
# [*Weight-only int4*](../docs/glossary.md#weight-only-quantization) goes the other way. Weights have 4 bits, a scale for each group of 32; inputs stay
# what they are. The chart of bits above says what that costs a weight, and why 4 bits need groups. It is
# what large language models use, whose time goes into *reading* weights. In a small BERT it saves less than it
# sounds: with 8 bits, the embedding table is now most of the file.
#
# ## One call for what the machine has
#
# The function that quantized a BERT in one line has moved twice: `torch.quantization`, then
# `torch.ao.quantization`, now the package torchao, each with other names. So the course has one function that
# names the *method*. It tries the libraries that can do it, in order, and says which it took, and why.

# %%
for method, libraries in METHODS.items():
    print(f"{method:13} by {', '.join(libraries)}")

# %% tags=["nbval-ignore-output"]
made = {}
for method in METHODS:
    made[method] = quantize(model, method, tokenizer=tokenizer, texts=calibration_texts)
    print(made[method])

# %% [markdown]
# A line that begins with *note* is a warning: a method that this processor will not thank you for. Each
# result is a classifier like any other, so we can measure it. One more belongs beside them: the same float32
# numbers in ONNX Runtime. Whoever compares int8 in one library with float32 in another measures two things.

# %%
scratch = tempfile.TemporaryDirectory()
place = Path(scratch.name)
model.save_pretrained(place / "torch")
tokenizer.save_pretrained(place / "torch")
to_onnx(place / "torch", place / "onnx", int8=False)
rivals = {"float32": full, "float32, ONNX": OnnxClassifier(place / "onnx")}
rivals |= {method: one.classifier for method, one in made.items()}
for name, classifier in rivals.items():
    classifier.name = name

# %%
says = {name: classifier.predict(test["text"]) for name, classifier in rivals.items()}
sizes = {"float32": size_mb(place / "torch"), "float32, ONNX": size_mb(place / "onnx")}
sizes |= {method: one.size_mb for method, one in made.items()}
timed = speed(list(rivals.values()), test["text"][: size["timed"]], rounds=size["rounds"])
one_ms = {row["name"]: row["latency_ms_p50"] for row in timed}
per_s = {row["name"]: row["throughput_32"] for row in timed}

# %% tags=["nbval-ignore-output", "slide-rivals"]
print(f"{'':13}{'MB':>6}{'one text':>12}{'batches of 32':>16}{'right':>8}{'as float32':>12}")
for name, logits in says.items():
    print(
        f"{name:13}{sizes[name]:6.1f}{one_ms[name]:9.1f} ms{per_s[name]:10.0f} per s"
        f"{right(logits).mean():6.1f} %{agrees(logits).mean():10.1f} %"
    )

# %%
show(
    figures.methods_figure(
        {"file, MB": sizes, "one text, ms": one_ms},
        {name: right(logits)[0] for name, logits in says.items()},
    ),
    alt="Accuracy, with intervals, of float32 in two libraries and of five methods, over the size of the file and "
    "over the time for one text, both on logarithmic axes.",
)

# %% tags=["nbval-ignore-output"]
for name in made:
    print_change(name, right(says[name]) - right(full_says))
for name in made:
    print(f"{name}: {slower_here(name) or 'nothing speaks against it here'}")

# %%
claim("dynamic int8: less than 27 % of the bytes", sizes["dynamic-int8"] < 0.27 * sizes["float32"])
claim("16 bits: half of them", abs(sizes["bf16"] / sizes["float32"] - 0.5) < 0.01)
moved = {name: 100 - agrees(logits).mean() for name, logits in says.items()}
claim("in ONNX, float32 changes next to no answer", small or moved["float32, ONNX"] < 1)
claim("in 16 bits, fewer than 5 in 100", small or max(moved["bf16"], moved["fp16"]) < 5)
claim("in int8, fewer than 15 in 100", small or moved["dynamic-int8"] < 15)
claim("in int4, fewer than 20 in 100", small or moved["weight-int4"] < 20)

# %% [markdown]
# And is the library's int8 ours? ONNX Runtime fuses and reorders, so that the two cannot agree to the last
# digit. But they make the same rounding errors, and should be nearer to each other than either to float32.

# %%
theirs = np.concatenate([made["dynamic-int8"].predict([text]) for text in few])
between = np.abs(theirs - by_hand_says).mean()
claim(
    "ours and the library's are nearer to each other than to float32",
    small or slower_here("dynamic-int8") is not None or between < change,
)

# %% [markdown]
# Read the times with the machine beside them: the first cell printed its features. With 8-bit dot products
# (`avx512_vnni`, `amx_int8`, `dotprod`) int8 can be the fastest line of the table; without them it may be slower
# than what you began with, and the note said so. Compare it with *float32, ONNX*: what is left of the gain is
# that of the integers, the rest is that of the library.
#
# ## What to take away
#
# 1. A quantized number is an integer, a scale and a zero point. Who shares the scale decides the error.
# 2. Rounding and clipping pull in two directions. The fewer the bits, the more it pays to clip *weights*.
# 3. Count the embedding table: linear layers alone leave most of a small BERT in float32.
# 4. Activations have outliers. Calibrate and measure: the cleverest way to cut them off need not be the best.
# 5. int8 is small everywhere and fast where the processor has 8-bit dot products. Measure it on the machine
#    that will run it.
#
# ## Three questions
#
# Read a question, then answer it in a cell of your own: `quiz.one_outlier("a")`.

# %%
quiz.half_in_float()

# %%
quiz.one_outlier()

# %%
quiz.is_it_faster()

# %% [markdown]
# ## To read
#
# - Jacob and others (2018), *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
#   Inference*: sections 2 and 3 are this page.
# - Zafrir and others (2019), *Q8BERT*: quantization-aware training of BERT, tables included.
# - Bondarenko, Nagel, Blankevoort (2021), *Understanding and Overcoming the Challenges of Efficient Transformer
#   Quantization*: where the outliers come from.
# - Dettmers and others (2022), *LLM.int8()*: outliers in larger models, kept in 16 bits.
# - Bengio, Léonard, Courville (2013), *Estimating or Propagating Gradients Through Stochastic Neurons*.
