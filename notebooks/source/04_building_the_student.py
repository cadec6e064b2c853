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
# # 04 · Building the student
#
# > **About 75 minutes**, of which your computer works for about four; the first time it also trains two
# > teachers, for another three. Two processor cores are enough; a network is not needed. You should
# > know what a layer is made of (notebook 02) and what the soft loss is (notebook 03).
#
# When you reach the end of this page you will have
#
# - tried every way to keep three of six layers, and seen how much of the choice training leaves over,
# - built a student and accounted for every one of its tensors, and for every one that is gone,
# - shown that a student of all layers *is* its teacher, to six decimals of KL,
# - measured what half the layers save in parameters, bytes and time, beside what the paper says,
# - made a student narrower, and seen why that is another kind of operation,
# - watched a student lose its layers' likeness, its answers and its words, and get them back.

# %% tags=["setup"]
import warnings

warnings.filterwarnings("ignore")

import copy
import tempfile
import time
from itertools import combinations
from statistics import median

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    TrainerCallback,
)
from transformers.utils import logging

from course_utils import machine, prepared
from course_utils.classroom import check, claim
from course_utils.classroom import student_figures as figures
from course_utils.classroom.hand import near
from course_utils.classroom.lines import Panel, lines_figure
from course_utils.classroom.plots import show, use_style
from course_utils.classroom.quiz import quiz
from course_utils.data.encoding import encode
from course_utils.data.masking import MaskBatch
from course_utils.data.tasks import load_task
from course_utils.distill.cache import teacher_signals
from course_utils.distill.losses import hard_cross_entropy, hidden_cosine, soft_kl
from course_utils.distill.trainer import Recipe, train
from course_utils.measure.accuracy import bootstrap
from course_utils.measure.probing import cka, layer_features
from course_utils.measure.size import parameters, size_mb
from course_utils.models import anatomy
from course_utils.models.mlm import head_sees_only, top_guesses
from course_utils.models.student import layer_map, plan_student, student_from_teacher

logging.set_verbosity_error()
logging.disable_progress_bar()
use_style()


# %% tags=["nbval-ignore-output"]
machine.use_all_cores()
device = machine.describe().device
small = machine.profile() == "smoke"
print(machine.describe())

# %% [markdown]
# ## Which layers?
#
# The student of this course, like DistilBERT, is not born empty. It takes its teacher's embeddings,
# its teacher's head, and some of its teacher's layers, with their weights. Twelve layers, six places:
# there are 924 ways to choose. Four of them have been tried most.

# %% tags=["slide-maps"]
maps = {
    "every other": tuple(range(0, 12, 2)),
    "the original's": layer_map(12, 6),
    "the first six": tuple(range(6)),
    "the last six": tuple(range(6, 12)),
}
show(
    figures.maps_figure(12, maps),
    alt="Four rows of twelve boxes, six of them filled: 0 2 4 6 8 10 for every other layer, 0 2 4 7 9 11 "
    "for the original, 0 to 5 for the first six, and 6 to 11 for the last six.",
)

# %% [markdown]
# The paper speaks of "one layer out of two" (Sanh et al. 2019, section 3). The authors' code has 0,
# 2, 4, 7, 9, 11, and people have asked ever since where the 7 comes from. The paper gives no reason.
# Arithmetic offers one: it is what you get when you spread six layers evenly from the first to the
# last, and round.
#
# ### Exercise: spread the layers
#
# > Difficulty: easy · about 8 minutes
#
# Layers are counted from 0. The student's first layer is the teacher's first, its last the teacher's
# last; those between stand at equal distances, rounded to the nearest layer. With one layer, it is
# the first.


# %% tags=["slide-spread-layers"]
def spread_layers(n_teacher, n_student):
    """The teacher's layers that a student of `n_student` layers keeps, a tuple."""
    # solution
    if n_student == 1:
        return (0,)
    return tuple(round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student))


# %%
check.spread_layers(spread_layers)


# %% tags=["solution"]
def spread_layers_answer(n_teacher, n_student):
    if n_student == 1:
        return (0,)  # there is no step from first to last
    step = (n_teacher - 1) / (n_student - 1)
    return tuple(round(i * step) for i in range(n_student))


check.spread_layers(spread_layers_answer)

# %% [markdown]
# Does the choice matter? On a teacher of six layers we can try them *all*: there are 20 ways to keep
# three. The teacher is MiniLM, fine-tuned on PyDocs as in notebook 00. Its texts are cut to 24 tokens
# here, to save your time.

# %%
folder = prepared.pydocs_teacher(say=lambda line: None)
tokenizer = AutoTokenizer.from_pretrained(folder)
teacher = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
task = load_task("pydocs", say=lambda line: None, progress=False)
N_TEST = {"smoke": 48, "cpu": 400, "gpu": 2400}[machine.profile()]
test = encode(tokenizer, task.test["text"][:N_TEST], task.test["label"][:N_TEST], max_length=24)
wanted = teacher_signals(teacher, test, progress=False)["teacher_logits"].argmax(1)  # (N,)

# %% [markdown]
# What do we ask? Not whether a student is right, but whether it is its teacher's student:
# **agreement** is the share of texts that both put into the same class. It needs no labels. Like
# every share that was counted on some texts, it comes with an interval.
#
# ### Exercise: agreement, with its interval
#
# > Difficulty: medium · about 10 minutes
#
# Return three numbers from 0 to 1: the share *p*, and the ends of its 95 % interval, 1.96 [*standard
# errors*](../docs/glossary.md#standard-error) below and above. The standard error of a share of *N* texts is √(*p* (1 − *p*) / *N*).


# %%
def agreement_interval(student_logits, teacher_logits):
    """(share, low, high) for logits (N, C)."""
    # solution
    same = student_logits.argmax(-1) == teacher_logits.argmax(-1)
    share = same.float().mean().item()
    error = 1.96 * (share * (1 - share) / len(same)) ** 0.5
    return share, share - error, share + error


# %%
check.agreement_interval(agreement_interval)


# %% tags=["solution"]
def agreement_interval_answer(student_logits, teacher_logits):
    same = student_logits.argmax(-1) == teacher_logits.argmax(-1)  # (N,)
    share = same.double().mean().item()
    error = 1.96 * (share * (1 - share) / len(same)) ** 0.5
    return share, share - error, share + error


check.agreement_interval(agreement_interval_answer)

# %% [markdown]
# The library's intervals are drawn by resampling the texts (notebook 00); for shares that are not
# close to 0 or 1 they are the same. Now all twenty, before any training. At *step 0* nothing has been
# learned: we measure the cut alone.


# %%
def classes(student):
    """The class that the student gives each test text, (N,)."""
    return teacher_signals(student, test, progress=False)["teacher_logits"].argmax(1)


def agreement(student):
    return (classes(student) == wanted).float().mean().item()


# %%
answers = {
    layers: classes(student_from_teacher(teacher, layers=layers))
    for layers in combinations(range(6), 3)
}
at_start = {layers: (said == wanted).float().mean().item() for layers, said in answers.items()}

# %% tags=["slide-choices"]
choices = {
    "every other": (0, 2, 4),
    "both ends": layer_map(6, 3),
    "the first": (0, 1, 2),
    "the last": (3, 4, 5),
}
intervals = {layers: (share, *bootstrap(share, N_TEST)) for layers, share in at_start.items()}
show(
    figures.choices_figure(6, intervals, {layers: name for name, layers in choices.items()}),
    alt="Twenty rows, one for each choice of three layers of six, by agreement with the teacher. The ten "
    "choices that keep the last layer are on top, spread over some fifteen points; the ten "
    "without it share one low value.",
)

# %%
with_last = [share for layers, share in at_start.items() if 5 in layers]
without = [share for layers, share in at_start.items() if 5 not in layers]
top_class = [said.bincount().max().item() / N_TEST for k, said in answers.items() if 5 not in k]
claim("each choice with the last layer beats each without", small or min(with_last) > max(without))
claim("without it, nine texts of ten get one and the same class", small or min(top_class) > 0.9)

# %% [markdown]
# Two groups, far apart, and one layer makes the difference. Pooler and classifier were trained on
# what the *last* layer hands them. What any other layer hands over means nothing to them, so they say
# the same to everybody. Within the upper group most neighbours overlap; do not read a ranking into
# it.
#
# But a student is not used at step 0. It is trained, and the head with it. We take the four choices
# with names and distil each for 200 short steps: the soft loss alone, no hidden states to match, so
# that no map is favoured. The [*seed*](../docs/glossary.md#seed) decides in which order the texts come; nothing else is left to
# chance.

# %%
MARKS = (0, 1, 2) if small else (0, 50, 200)
SEEDS, BATCH = range(2 if small else 3), 16
n_train = MARKS[-1] * BATCH  # each text is read once
rows = encode(tokenizer, task.train["text"][:n_train], max_length=24)
rows = rows.with_columns(**teacher_signals(teacher, rows, progress=False))


# %%
class Watch(TrainerCallback):
    """Agreement with the teacher at the steps in MARKS."""

    def __init__(self, student):
        self.seen = [agreement(student)]

    def on_step_end(self, args, state, control, *, model, **kwargs):
        if state.global_step in MARKS:
            self.seen.append(agreement(model))


def distil(student, seed, **changes):
    """Agreement at each mark, while the student is trained on what the teacher says."""
    settings = {"learning_rate": 2e-4, "freeze_words": True, "alpha": 0.0, "temperature": 2.0}
    recipe = Recipe(epochs=1, batch_size=BATCH, seed=seed, **settings | changes)
    watch = Watch(student)
    train(student, rows, recipe, progress=False, callbacks=[watch])
    return watch.seen


# %%
measured = {}
for name, layers in choices.items():
    students = [student_from_teacher(teacher, layers=layers) for _ in SEEDS]
    seen = [distil(student, seed) for seed, student in zip(SEEDS, students)]
    measured[name] = np.array(seen)  # (seeds, marks)
    if name == "both ends":
        after = students[0]  # we shall look into this one

# %% tags=["slide-repair"]
show(
    figures.repair_figure(MARKS, measured),
    alt="On the left, agreement by training step for four choices of layers: far apart at step 0, closer "
    "at the last. On the right, each seed at the last step, with intervals: the two maps that are spread "
    "lie above the two whose layers are side by side.",
)


# %% tags=["nbval-ignore-output"]
def print_marks(name, seen):
    mean, half = figures.over_seeds(100 * seen)
    print(f"{name:>12}", *(f"{m:7.1f} ± {h:.1f}" for m, h in zip(mean, half)))


print("agreement in %, at steps", *MARKS)
for name, seen in measured.items():
    print_marks(name, seen)

# %%
first, last = (np.array([seen[:, k].mean() for seen in measured.values()]) for k in (0, -1))
claim(
    "after training, best and worst choice are less than two thirds as far apart",
    small or np.ptp(last) < 2 / 3 * np.ptp(first),
)
claim("every choice ends above all twenty starts", small or last.min() > max(at_start.values()))

# %% [markdown]
# Is what is left of the difference real? Seed by seed the four have seen the same texts in the same
# order, so we may compare them [*in pairs*](../docs/glossary.md#paired-comparison): the difference for each seed, and the interval of its
# mean. If that holds zero, three seeds cannot tell the two apart.

# %% tags=["nbval-ignore-output", "slide-pairs"]
other, ends, first, last = (seen[:, -1] for seen in measured.values())
spread, beside = (other + ends) / 2, (first + last) / 2
pairs = {"both ends − every other": ends - other, "the first − the last": first - last}
pairs["spread − side by side"] = spread - beside
for name, points in pairs.items():
    mean, half = figures.over_seeds(100 * points)
    noise = "(inside the noise)" if abs(mean) < half else ""
    print(f"{name:24}{mean:+5.1f} ± {half:.1f} points", noise)

# %%
claim("spread maps end ahead of side by side", small or spread.mean() > beside.mean())

# %% [markdown]
# Before training, the last layer decided. Afterwards *every other*, which lacks it, has nearly caught up: a
# head learns quickly to read another layer. What is left is that a student should have a bit of
# everything its teacher does, early and late. Which of the two spread maps is better? Their difference
# is about as large as its interval: three seeds may hint, they do not prove. (And three pairs are three
# chances to be fooled.)
#
# In the paper's ablation (table 4) the start from the teacher's weights is worth 3.69 points of GLUE
# against a random one, more than any of its losses. *That* the student inherits matters more than
# *which* layers.
#
# ## A student whose every weight is accounted for
#
# Inheriting is copying by name. A `state_dict` maps names to tensors, and a layer is known by the
# number in its name. In the student that number is another one.
#
# ### Exercise: copy by name
#
# > Difficulty: medium · about 12 minutes
#
# `weights` is the teacher's `state_dict`, with names such as `encoder.layer.7.output.dense.bias`. The
# student's layer *i* is the teacher's `layers[i]`. What does not belong to a layer keeps its name.


# %%
def copy_layers(weights, layers):
    """The student's weights by name."""
    # solution
    copied = {}
    for name, weight in weights.items():
        pieces = name.split(".")
        if pieces[:2] == ["encoder", "layer"]:
            if int(pieces[2]) not in layers:
                continue
            pieces[2] = str(layers.index(int(pieces[2])))
        copied[".".join(pieces)] = weight
    return copied


# %%
check.copy_layers(copy_layers)


# %% tags=["solution"]
def copy_layers_answer(weights, layers):
    copied = {}
    for name, weight in weights.items():
        pieces = name.split(".")
        if pieces[:2] == ["encoder", "layer"]:
            if int(pieces[2]) not in layers:
                continue  # this layer goes
            pieces[2] = str(layers.index(int(pieces[2])))
        copied[".".join(pieces)] = weight
    return copied


check.copy_layers(copy_layers_answer)

# %% [markdown]
# What can go wrong is what nobody looks at: a tensor that found no partner and stayed random, or one
# that was never asked for. So the library makes a *plan* first. Every tensor of the student is
# copied, folded, narrowed or new; every tensor of the teacher is used or dropped. Here is the plan
# for the real thing, BERT-base with both of its heads, 12 → 6 layers. It needs names and shapes, no
# weights, so the teacher is built on the *meta* device, where tensors have no content.

# %% tags=["slide-plan"]
with torch.device("meta"):
    bert_base = BertForPreTraining(BertConfig())
plan = plan_student(bert_base, layers=6, keep_token_types=False)
print(plan)

# %%
ours = [*plan.copied, *plan.folded, *plan.narrowed, *plan.new]
used = {*plan.copied.values(), *plan.narrowed.values()}.union(*plan.folded.values())
claim("every tensor of the student is in one place", sorted(ours) == sorted(plan.student_sizes))
claim(
    "every tensor of the teacher is used or dropped, and none is both",
    used | {*plan.dropped} == {*plan.teacher_sizes} and not used & {*plan.dropped},
)
claim("nothing is new: this student has no random number in it", not plan.new)

# %% [markdown]
# Tensors that are shared are counted once: the decoder is the table of words, and of its own has one
# bias per word. Then read what is dropped: six layers; the pooler and the head for next-sentence
# prediction, which served a task that DistilBERT gave up (notebook 02). And what is [*folded*](../docs/glossary.md#folded-token-types) are the
# token types.
#
# ### What becomes of the token types?
#
# Every token of BERT is told whether it belongs to the first or the second text: one of two vectors
# is added to it. DistilBERT has no such table. Leave it out, as the original script does, and every
# sum in the embeddings is off by one vector. But that vector is a constant!
#
# ### Exercise: fold the token types
#
# > Difficulty: easy · about 5 minutes


# %%
def fold_types(positions, token_types):
    """Positions (P, H) with which a model without token types (2, H) reads single texts as before."""
    # solution
    return positions + token_types[0]


# %%
check.fold_types(fold_types)


# %% tags=["solution"]
def fold_types_answer(positions, token_types):
    return positions + token_types[0]  # every token of a single text has type 0


check.fold_types(fold_types_answer)

# %% [markdown]
# Now the tests that such a copy has to pass. First: keep *all* layers, and the student must be its
# teacher. Its hidden states are equal, and the KL between the two is 0.

# %%
probes = load_task("probes", say=lambda line: None)
batch = tokenizer(probes.test["text"][:16], padding=True, return_tensors="pt")
whole = student_from_teacher(teacher, layers=6)
with torch.inference_mode():
    ours, theirs = (m(**batch, output_hidden_states=True) for m in (whole, teacher))
claim("a student of all layers: KL below 1e-6", soft_kl(ours.logits, theirs.logits).max() < 1e-6)
claim("and all hidden states are equal", all(map(near, ours.hidden_states, theirs.hidden_states)))

# %% [markdown]
# Second: with and without token types, as a `BertModel` and as a `DistilBertModel`, we get the same
# student. The teacher is another MiniLM here, one that guesses hidden words.

# %%
guesser_folder = prepared.masked_lm_teacher(say=lambda line: None)
guesser = BertForMaskedLM.from_pretrained(guesser_folder, dtype=torch.float32).eval()
kinds = [student_from_teacher(guesser, layers=3, keep_token_types=keep) for keep in (True, False)]
print(*(type(student).__name__ for student in kinds))

# %%
single = {name: batch[name] for name in ("input_ids", "attention_mask")}
with torch.inference_mode():
    ours, theirs = (student(**single, output_hidden_states=True) for student in kinds)
claim("on single texts, all hidden states agree", all(map(near, ours[1], theirs[1])))
pair = tokenizer("What is summed?", "The rows.", return_tensors="pt")
with torch.inference_mode():
    ours, theirs = (student.base_model(**pair).last_hidden_state for student in (kinds[0], guesser))
    pair.pop("token_type_ids")
    without = kinds[1].base_model(**pair).last_hidden_state
claim(
    "on a pair of texts they do not: one of them has lost the difference", not near(ours, without)
)

# %% [markdown]
# Third: the head that guesses is *tied*, its decoder is the table of word embeddings (notebook 02).
# In the student it must be that again, one tensor with two names, or training would pull the two
# apart.

# %%
for student in kinds:
    words, decoder = student.get_input_embeddings(), student.get_output_embeddings()
    claim(
        f"{type(student).__name__}: decoder and embeddings are one", words.weight is decoder.weight
    )

# %% [markdown]
# And what would dropping row 0 have cost? We keep all six layers, take the row off the positions
# again, and look at the KL of the guesses, over all tokens of our sentences.

# %% tags=["nbval-ignore-output", "slide-fold"]
folded = student_from_teacher(guesser, layers=6, keep_token_types=False)
dropped = copy.deepcopy(folded)
row = guesser.bert.embeddings.token_type_embeddings.weight[0]
with torch.inference_mode():
    dropped.distilbert.embeddings.position_embeddings.weight -= row
    real = single["attention_mask"].bool()
    logits = [model(**single).logits[real] for model in (guesser, folded, dropped)]
kl_folded, kl_dropped = (soft_kl(other, logits[0]).mean().abs().item() for other in logits[1:])
print(f"KL per token: folded {kl_folded:.0e}, dropped {kl_dropped:.3f} nats")

# %%
claim("folded, the student of all layers is its teacher again", kl_folded < 1e-6)
claim("dropped, it is not", kl_dropped > 1000 * kl_folded)

# %% [markdown]
# DistilBERT was trained long enough to get over it. But why begin with a fault that an addition
# avoids, and that hides every other fault from you? *A student of all layers must have a KL of 0* is
# a test worth having. With a vector missing it fails, for a reason that you have learned to ignore.
#
# ## The real size
#
# Now BERT-base. Its weights would be a download of 440 MB; size and speed do not depend on them, so
# we take random ones. How large is a student with half the layers?
#
# ### Exercise: count the student
#
# > Difficulty: medium · about 12 minutes
#
# The teacher is a BERT with two token types and a pooler; the student has neither, and fewer layers.
# Feed-forwards are four times as wide as the hidden state. Return the student's parameters and its
# share of the teacher's.


# %%
def student_size(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    """(parameters of the student, their share of the teacher's), without heads."""
    # solution
    h = hidden_size
    layer = 4 * (h * h + h) + (4 * h * h + 4 * h) + (4 * h * h + h) + 4 * h
    student = (n_words + n_positions) * h + 2 * h + student_layers * layer
    pooler = h * h + h
    teacher = (n_words + n_positions + 2) * h + 2 * h + teacher_layers * layer + pooler
    return student, student / teacher


# %%
check.student_size(student_size)


# %% tags=["solution"]
def student_size_answer(n_words, n_positions, teacher_layers, student_layers, hidden_size):
    def linear(m, n):
        return m * n + n

    h, norm = hidden_size, 2 * hidden_size
    layer = 4 * linear(h, h) + linear(h, 4 * h) + linear(4 * h, h) + 2 * norm
    tables = (n_words + n_positions) * h + norm
    student = tables + student_layers * layer
    teacher = tables + 2 * h + teacher_layers * layer + linear(h, h)
    return student, student / teacher


check.student_size(student_size_answer)

# %% [markdown]
# By formula; and now by counting, in models that we build. Beside the student of the paper stand two
# that are *narrower* as well: hidden states of 384 and 256 numbers instead of 768.

# %%
torch.manual_seed(0)
models = {"BERT-base": BertModel(BertConfig()).eval()}
for name, hidden in (("6 × 768", None), ("6 × 384", 384), ("6 × 256", 256)):
    models[name] = student_from_teacher(
        models["BERT-base"], layers=6, hidden=hidden, keep_token_types=False
    )
{name: f"{parameters(model):,}" for name, model in models.items()}

# %%
base, student = models["BERT-base"], models["6 × 768"]
claim("BERT-base has 109.5 million", round(parameters(base) / 1e6, 1) == 109.5)
claim("its student with 6 layers has 66.4 million", round(parameters(student) / 1e6, 1) == 66.4)

# %% [markdown]
# Bytes on disk follow: four for each parameter. Time does not, so it is measured. Each model gets the
# same batch, turn by turn, and we take the median. One text of 32 tokens, then 32 of them.


# %%
def seconds(models, batch, turns):
    """The median time of each model for this batch, by name."""
    times = {name: [] for name in models}
    with torch.inference_mode():
        for _ in range(turns + 1):  # the first one warms up
            for name, model in models.items():
                began = time.perf_counter()
                model(**batch)
                times[name].append(time.perf_counter() - began)
    return {name: median(taken[1:]) for name, taken in times.items()}


def texts(n):
    return {"input_ids": torch.randint(1000, 30000, (n, 32)), "attention_mask": torch.ones(n, 32)}


# %%
one = seconds(models, texts(1), 2 if small else 15)
many = seconds(models, texts(32), 1 if small else 3)
with tempfile.TemporaryDirectory() as scratch:
    for name, model in models.items():
        model.save_pretrained(f"{scratch}/{name}")
    megabytes = {name: size_mb(f"{scratch}/{name}") for name in models}

# %% tags=["nbval-ignore-output"]
print(f"{'':12}{'parameters':>12}{'on disk':>10}{'1 text':>10}{'32 texts':>11}")
for name, model in models.items():
    print(
        f"{name:12}{parameters(model) / 1e6:10.1f} M{megabytes[name]:7.0f} MB"
        f"{1000 * one[name]:7.1f} ms{1000 * many[name]:8.0f} ms"
    )

# %% [markdown]
# The paper's numbers (table 3 and section 3): 110 against 66 million parameters, *40 % smaller*; 668
# against 410 seconds for one pass over a data set on a Xeon, one text at a time, *60 % faster*. That
# is 1.63 times as fast, or 61 % of the time.

# %% tags=["slide-savings"]
left = {
    "parameters": parameters(student) / parameters(base),
    "bytes on disk": megabytes["6 × 768"] / megabytes["BERT-base"],
    "time, 1 text": one["6 × 768"] / one["BERT-base"],
    "time, 32 texts": many["6 × 768"] / many["BERT-base"],
}
show(
    figures.savings_figure(left, {"parameters": 66 / 110, "time, 1 text": 410 / 668}),
    alt="Four bars of what is left of the teacher when half the layers go: about 61 per cent of parameters "
    "and bytes, about half of the time for one text and for thirty-two. The paper's marks stand at 60 per "
    "cent for parameters and 61 for the time of one text.",
)

# %%
claim("parameters: between 60 and 61 % are left", 0.60 < left["parameters"] < 0.61)
claim("one text: less than 65 % of the time is left", small or left["time, 1 text"] < 0.65)
claim("32 texts: less than 65 %", small or left["time, 32 texts"] < 0.65)

# %% [markdown]
# **Half the layers is not half the parameters**, and the reason is the dictionary: 23.4 million
# numbers that no layer owns. Half the layers *is* about half the time here. The paper measured
# another machine, other texts and other code, and we do not know what else its seconds hold: do not
# carry a ratio from one machine to another. Measure it.

# %% tags=["slide-widths"]
counts = {}
for name, model in models.items():
    amounts = anatomy.count(model.config)
    words = amounts["word embeddings"]
    layers = amounts["attention"] + amounts["feed-forward"] + amounts["layer norms"]
    rest = sum(amounts.values()) - words - layers
    counts[name] = {"word embeddings": words, "layers": layers, "everything else": rest}
show(
    figures.widths_figure(counts),
    alt="Stacked bars in millions of parameters. BERT-base: 23 in word embeddings, 85 in layers. Six layers "
    "of 768: the same 23, and 43 in layers. Six layers of 384: 12 and 11. Six layers of 256: 8 and 5.",
)

# %%
words, layers = counts["6 × 768"]["word embeddings"], counts["6 × 768"]["layers"]
narrow = counts["6 × 384"]
claim("half the width: half the dictionary", narrow["word embeddings"] * 2 == words)
claim("and about a quarter of the layers", 0.24 < narrow["layers"] / layers < 0.26)
claim("so less than a quarter of BERT-base is left", sum(narrow.values()) < 109.5e6 / 4)

# %% [markdown]
# Width is what the dictionary pays for once and a layer pays for twice: its matrices are as wide as
# they are high. Why then does anybody keep 768?
#
# ## Narrower
#
# Because a narrow student cannot inherit. A layer that goes leaves the others as they were. A
# coordinate that goes is missing in *every* matrix: each sum runs over fewer products, each LayerNorm
# takes its mean over fewer numbers. Nothing that comes out is what it was.
#
# How much is lost can be seen in the word embeddings, as they are our own teacher's. Of 384
# coordinates we keep *k*: the first ones ([*truncation*](../docs/glossary.md#truncation-of-width)), or the best directions that there are, by a
# [*singular value decomposition*](../docs/glossary.md#singular-value-decomposition) (SVD). The share of the sum of squares that survives is called the
# [*energy kept*](../docs/glossary.md#energy). No *k* directions keep more than those of the SVD (Eckart and Young 1936).

# %%
table = guesser.get_input_embeddings().weight.detach()  # (V, H)
squares = torch.linalg.eigvalsh(table.T @ table).flip(0)  # squared singular values, largest first
svd = squares.cumsum(0) / squares.sum()
corner = table.square().sum(0).cumsum(0) / table.square().sum()
kept = [24, 48, 96, 192, 288, 384]
energy = {"best directions (SVD)": svd, "first coordinates": corner}
panel = Panel(
    kept,
    {name: [100 * shares[k - 1].item() for k in kept] for name, shares in energy.items()},
    "numbers kept per word, of 384",
    "energy kept, %",
    ylim=(0, 105),
)

# %%
show(
    lines_figure("How much of a word's vector survives?", panel),
    alt="Two lines up to 100 per cent over the numbers kept per word. The first coordinates grow in "
    "proportion. The best directions lie above them: a quarter of them keep more than half.",
)

# %%
claim("half of the coordinates keep about half", 0.4 < corner[191] < 0.6)
claim("half of the directions keep about four fifths", 0.75 < svd[191] < 0.85)

# %% [markdown]
# The SVD keeps more, and it is tempting to stop here. **The warning**: energy is not understanding.
# The best directions are *mixtures* of coordinates, and LayerNorm, which stands behind every part of a
# layer, scales coordinate by coordinate. A rotated stream does not fit the scales. And what is best for
# the words need not be best for any layer above them. Truncation keeps fewer numbers, but it can keep
# the *same* coordinates everywhere, as Xu and others (2024) do. The library takes the first ones.
#
# What is such a start worth? We make three layers of our teacher half as wide, and start a second one
# from random numbers, with the same shapes. Here the words must be trained, too.

# %%
plan = plan_student(teacher, layers=3, hidden=192)
print(len(plan.copied), "tensor copied whole,", len(plan.narrowed), "narrowed")


def narrow_student(inherit, seed):
    student = student_from_teacher(teacher, layers=3, hidden=192)
    torch.manual_seed(seed)
    return student if inherit else type(student)(student.config)


# %%
halves = {}
for name, inherit in (("truncated", True), ("random", False)):
    students = [narrow_student(inherit, seed) for seed in SEEDS]
    seen = [distil(student, seed, freeze_words=False) for seed, student in zip(SEEDS, students)]
    halves[name] = np.array(seen)

# %% tags=["nbval-ignore-output", "slide-narrow"]
print("agreement in %, at steps", *MARKS)
for name, seen in {"full width": measured["both ends"], **halves}.items():
    print_marks(name, seen)

# %%
wide, truncated, fresh = (seen.mean(0) for seen in (measured["both ends"], *halves.values()))
claim("at step 0 the truncated one is far below full width", small or truncated[0] < wide[0] - 0.1)
claim("trained as long, it is still behind", small or truncated[-1] < wide[-1])
claim("but ahead of the random one", small or truncated[-1] > fresh[-1])

# %% [markdown]
# A truncated student knows next to nothing at first, and learns faster than one that starts from
# nothing: what it inherited was not useless, only out of joint. Students of a quarter of BERT's size
# exist and are good (TinyBERT, MiniLM); their authors paid for it with long training on much text,
# and with losses that look at more than logits. Narrower is for those who have time. We stay with
# fewer layers.
#
# ## What it lost, and what it has back
#
# We look into one student, the one that keeps both ends, before and after its 200 steps. Which of the
# teacher's layers does each of its layers resemble? *CKA* (notebook 02) compares two layers by the
# texts that lie close together in them.

# %%
before = student_from_teacher(teacher, layers=choices["both ends"])
some = encode(tokenizer, task.test["text"][: N_TEST // 2], max_length=24)
its_teacher, cut, distilled = (
    np.moveaxis(layer_features(model, some, progress=False), 1, 0)  # (layers, N, H)
    for model in (teacher, before, after)
)
alike = {
    moment: np.array([[cka(x, y) for y in its_teacher] for x in student])
    for moment, student in (("cut, not trained", cut), ("distilled", distilled))
}

# %% tags=["slide-likeness"]
show(
    figures.likeness_figure(alike),
    alt="Two maps of likeness, student's layers against the teacher's. In both, the embeddings and the first "
    "layer are the teacher's own or nearly. Before training the second and third layer resemble early and "
    "middle layers of the teacher most; afterwards, later ones, and the last resembles the last.",
)

# %%
cut, distilled = alike.values()
claim("before: embeddings and layer 1 are the teacher's own", min(cut[0, 0], cut[1, 1]) > 0.99)
claim("after: the last layer is closer to the teacher's last", small or distilled[3, 6] > cut[3, 6])
claim(
    "layer 2 stands for a later layer than before", small or distilled[2].argmax() > cut[2].argmax()
)

# %% [markdown]
# The first layers had nothing to lose: their input is what it always was. The damage grows with every
# gap in the chain. Training brought the last layer back towards the teacher's last, and its neighbour
# up with it: three layers have spread over the depth of six. Nobody had asked for that. The student
# was asked for the teacher's *answers* alone. (Notebook 00 did ask: its hidden loss matches
# nearly these pairs, every second layer.)
#
# Last, words. The teacher that guesses gets a student of three layers. It learns with the losses of
# notebook 03, the triple loss of DistilBERT: 5 · soft + 2 · masked LM + 1 · cosine, at T = 2. To save
# time we take the soft loss where words are hidden, not at every token as the original does. This is
# the whole loop.

# %%
N_READ = {"smoke": 96, "cpu": 4000, "gpu": 24000}[machine.profile()]
corpus = encode(tokenizer, task.train["text"][:N_READ], max_length=48)
pupil = student_from_teacher(guesser, layers=3).to(device)
cut_pupil = copy.deepcopy(pupil)
guesser.to(device)
pupil.get_input_embeddings().requires_grad_(False)  # the decoder is tied to it
batches = DataLoader(corpus, 16, shuffle=True, collate_fn=MaskBatch(tokenizer, seed=0))
optimizer = torch.optim.AdamW([w for w in pupil.parameters() if w.requires_grad], lr=5e-4)
slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, len(batches))
fast = torch.autocast(device, getattr(torch, machine.describe().dtype))


# %%
def guess(model, batch, counted):
    """Logits (N, V) where `counted`, and the last hidden states (B, S, H)."""
    with fast, head_sees_only(model, counted):
        outputs = model(**batch, output_hidden_states=True)
    return outputs.logits.float(), outputs.hidden_states[-1].float()


# %%
torch.manual_seed(0)
curve = {"soft": [], "masked LM": [], "1 − cosine": []}
for batch in batches:
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    labels = batch.pop("labels")
    counted, real = labels != -100, batch["attention_mask"].bool()
    with torch.no_grad():
        teacher_logits, teacher_hidden = guess(guesser, batch, counted)
    logits, hidden = guess(pupil, batch, counted)
    soft = soft_kl(logits, teacher_logits, temperature=2.0).mean()
    masked_lm = hard_cross_entropy(logits, labels[counted]).mean()
    cosine = hidden_cosine(hidden, teacher_hidden, counted=real)
    optimizer.zero_grad()
    (5 * soft + 2 * masked_lm + 1 * cosine).backward()
    optimizer.step()
    slower.step()
    for part, loss in zip(curve.values(), (soft, masked_lm, cosine)):
        part.append(loss.item())

# %%
sixth = len(batches) // 6
for name, part in curve.items():
    fell = np.mean(part[-sixth:]) < np.mean(part[:sixth])
    claim(f"{name}: lower in the last sixth of the steps than in the first", small or fell)

# %% [markdown]
# Side by side, on sentences of our own: what the teacher guesses, what is left of it after the cut,
# and what the student has back.

# %% tags=["slide-guesses"]
gaps = [
    "Returns [MASK] if the file exists, otherwise False.",
    "This [MASK] returns the sum of its arguments.",
    "Returns the sum of the elements along the given [MASK].",
    "If the matrix is singular, an [MASK] is raised.",
    "The default [MASK] is None.",
    "Plot the points as a [MASK] with a thin line.",
]
guessers = {"teacher": guesser, "cut": cut_pupil, "distilled": pupil}
first_guess = {
    name: [top_guesses(model, tokenizer, gap)[0][0] for gap in gaps]
    for name, model in guessers.items()
}
show(
    figures.side_by_side(first_guess, gaps),
    alt="A table of first guesses for six gaps by three models. After the cut all guesses but one are others than the "
    "teacher's, and improbable. After distillation most of them are the teacher's own words again.",
)

# %%
words = {name: [word for word, _ in column] for name, column in first_guess.items()}
shared = [sum(a == b for a, b in zip(words[k], words["teacher"])) for k in ("cut", "distilled")]
claim("distilling gave gaps back to the teacher's word", small or shared[1] > shared[0])

# %% [markdown]
# A sum is taken along an *axis*, not along *elements*. Where the teacher is wrong, the student learns
# that as well: what it said before was another word. Six sentences are an illustration. The measurement uses texts that neither has read:
# on which share of hidden words does the student's first guess equal its teacher's?

# %%
unread = encode(tokenizer, task.test["text"][: N_TEST // 2], max_length=48)
masked = list(DataLoader(unread, 32, collate_fn=MaskBatch(tokenizer, seed=1)))


@torch.inference_mode()
def first_words(model):
    words = []
    for batch in masked:
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        counted = batch.pop("labels") != -100
        words.append(guess(model, batch, counted)[0].argmax(-1))
    return torch.cat(words)


# %% tags=["nbval-ignore-output"]
its_words = first_words(guesser)
same = {
    name: (first_words(guessers[name]) == its_words).float().mean().item()
    for name in ("cut", "distilled")
}
for name, share in same.items():
    low, high = bootstrap(share, len(its_words))
    print(
        f"{name:>10}: the teacher's word in {share:.0%} of {len(its_words)} gaps ({low:.0%} to {high:.0%})"
    )

# %%
claim(
    "distilling gave back words that the cut had taken",
    small or same["distilled"] > same["cut"] + 0.1,
)

# %% [markdown]
# A few hundred steps, on two cores. DistilBERT's authors let eight V100 work for about 90 hours. The
# next notebook does it as one should: a longer training, over all positions, that can be interrupted
# and resumed.
#
# ## What to take away
#
# 1. At step 0 the last layer decides; after training, maps that are spread are ahead. Measure it, with seeds.
# 2. Copy by name, and account for everything: copied, folded, narrowed, new, dropped.
# 3. A student of all layers must have a KL of 0 to its teacher. Fold token type 0 into the positions, or it has not.
# 4. Half the layers: about half the time, and 61 % of the parameters, for the dictionary stays.
# 5. Less width saves in the dictionary and twice in each layer, but nothing fits any more: it costs training.
#
# ## Three questions
#
# Read a question, then answer it in a cell of your own: `quiz.half_of_what("a")`.

# %%
quiz.half_of_what()

# %%
quiz.why_fold_the_types()

# %%
quiz.which_layers_then()

# %% [markdown]
# ## To read
#
# - Sanh, Debut, Chaumond, Wolf (2019), *DistilBERT*: section 3 is the student, table 4 the ablation.
# - Turc, Chang, Lee, Toutanova (2019), *Well-Read Students Learn Better*: narrow and shallow ones, pretrained first.
# - Jiao and others (2020), *TinyBERT*; Wang and others (2020), *MiniLM*: what a narrow student is taught instead.
# - Xu and others (2024), *Initializing Models with Larger Ones*: taking a corner of every matrix.
