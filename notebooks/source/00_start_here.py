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
# # 00 · Start here: shrink a real BERT
#
# > **About 45 minutes**, of which your computer works for about two. Two processor cores are
# > enough; a network is not needed. You should be able to read Python; nothing else is assumed.
#
# When you reach the end of this page you will have
#
# - looked at a pretrained BERT and seen where its millions of numbers sit,
# - trained it for a task, and made a student of it with half as many layers,
# - measured what the student lost and what it gained,
# - typed sentences of your own into both and found some on which they disagree.
#
# Every number on this page was measured by the code above it, on the machine that ran it. Run the
# page from the top with *Run → Run All Cells*, or cell by cell with Shift+Enter, which we recommend.

# %% tags=["setup"]
import warnings

warnings.filterwarnings("ignore")

import copy
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed
from transformers.utils import logging

from course_utils import machine
from course_utils.classroom import check, claim, show_source
from course_utils.classroom.plots import COLOURS, show, use_style
from course_utils.classroom.quiz import quiz
from course_utils.classroom.widgets import answers, probabilities, type_and_compare
from course_utils.data.encoding import encode
from course_utils.data.sources import find_model
from course_utils.data.tasks import load_task
from course_utils.distill.cache import teacher_signals
from course_utils.distill.trainer import Recipe, train
from course_utils.measure.accuracy import score
from course_utils.models.classifier import TorchClassifier
from course_utils.models.student import matched_layers, student_from_teacher

logging.set_verbosity_error()
logging.disable_progress_bar()
use_style()
started = time.perf_counter()

# %% [markdown]
# ## Your machine
#
# The course looks at your computer once and chooses its sizes by it. `cpu` is the profile of a
# laptop, `gpu` that of a graphics card; the cells are the same in both.

# %% tags=["nbval-ignore-output"]
machine.use_all_cores()
print(machine.describe())
print("profile:", machine.profile())

# %% [markdown]
# If something is missing, `course doctor` in a terminal says what, and what to do about it. (Outside of
# Colab, `source .venv/bin/activate` makes the command known there.)
#
# ## A real BERT
#
# [*BERT*](../docs/glossary.md#bert) is a network that reads a text and gives every word a vector that depends on the words
# around it. Ours is called MiniLM. It was trained on a billion pairs of sentences, its weights came
# to your disk with the course's packages, and the course checks their fingerprint before it uses
# them. We put a new, untrained [*head*](../docs/glossary.md#head-of-a-model) on top: eight outputs, one for each answer it will have to
# choose from.

# %%
TASK_LABELS = 8
model_folder = find_model(say=lambda line: None).path
tokenizer = AutoTokenizer.from_pretrained(model_folder, model_max_length=128)
set_seed(0)
teacher = AutoModelForSequenceClassification.from_pretrained(
    model_folder, num_labels=TASK_LABELS, dtype=torch.float32
)
print(type(teacher).__name__, "with", teacher.config.num_hidden_layers, "layers")
print(f"{teacher.num_parameters():,} parameters")

# %% [markdown]
# Where do these [*parameters*](../docs/glossary.md#parameter) sit? We add them up by the part they belong to.

# %%
parts = {"words": 0, "positions and types": 0}
parts |= {f"layer {k}": 0 for k in range(teacher.config.num_hidden_layers)}
parts |= {"pooler and head": 0}
for name, weight in teacher.named_parameters():
    if "word_embeddings" in name:
        part = "words"
    elif "embeddings" in name:
        part = "positions and types"
    elif "encoder.layer" in name:
        part = f"layer {name.split('.')[3]}"
    else:
        part = "pooler and head"
    parts[part] += weight.numel()
{part: f"{count / 1e6:.2f} M" for part, count in parts.items()}

# %% tags=["slide-parameters"]
fig, ax = plt.subplots(figsize=(8, 3.4))
ax.barh(list(parts), [count / 1e6 for count in parts.values()], color=COLOURS["blue"])
ax.invert_yaxis()
ax.set_xlabel("parameters, millions")
ax.set_title("Where do the parameters sit?")
show(
    fig,
    alt="Bar chart: the word embeddings hold about half of the parameters, "
    "each of the six layers about a twelfth, everything else next to nothing.",
)

# %%
claim(
    "the word embeddings hold more than all six layers together",
    parts["words"] > sum(count for part, count in parts.items() if "layer" in part),
)

# %% [markdown]
# More than half of this model is a dictionary: one vector of 384 numbers for each of 30 522 word
# pieces. Remember this figure. It says what removing layers can do, and what it cannot: it makes
# the model *faster*, because layers are where the arithmetic is, but not half as *large*. For size
# we shall need other tools, and the course has a chapter for each.
#
# ## A task with shades
#
# Which library documents itself like this?
#
# > *Return the indices that would put the values in ascending order along the given axis.*
#
# A Python installation is full of English: the docstrings of its packages. The course reads them
# (about eighty thousand paragraphs on most machines), hides the names of the libraries, and asks a
# model which of eight libraries a paragraph comes from. We call the task [**PyDocs**](../docs/glossary.md#pydocs). We chose it
# because its classes shade into one another. NumPy's prose is close to SciPy's, and PyTorch copied
# some of NumPy's functions together with their descriptions. An honest answer is often "numpy, or
# perhaps torch", and that *perhaps* turns out to be worth a lot.
#
# On this machine's first run the next cell reads for up to a minute, and says nothing meanwhile.

# %%
N_TRAIN, N_TEST = {"smoke": (128, 128), "cpu": (2400, 800), "gpu": (14400, 3200)}[machine.profile()]
task = load_task("pydocs", progress=False)
print(
    f"{len(task.train):,} texts to train on, {len(task.test):,} to test; "
    f"here we use {N_TRAIN:,} and {N_TEST:,}"
)

# %% tags=["slide-labels"]
print(*task.labels, sep=", ")
claim(
    "every class has the same number of training texts",
    len(set(np.bincount(task.train["label"]))) == 1,
)

# %% [markdown]
# We may not print other people's documentation in a page that we hand out, so the examples that you
# see come from a small set that was written for the course, the [*probes*](../docs/glossary.md#probes-sentences). `second` is another
# library that the sentence might plausibly be about.

# %%
probes = load_task("probes", say=lambda line: None)
for text, label in list(zip(probes.test["text"], probes.test["label"]))[::25]:
    print(f"{probes.labels[label]:>13}  {text}")

# %% [markdown]
# The next cell shows three real paragraphs, on your machine only. Read them. Could *you* tell?

# %% tags=["corpus-text"]
for text, label in list(zip(task.test["text"], task.test["label"]))[:3]:
    print(f"{task.labels[label]:>13}  {text}\n")

# %% [markdown]
# ## The teacher
#
# To [*fine-tune*](../docs/glossary.md#fine-tuning) is to go on training a pretrained model on the labels of a task. The model that
# results is our [**teacher**](../docs/glossary.md#teacher). Texts become [*token ids*](../docs/glossary.md#token-id) first: numbers of word pieces.

# %%
teacher.config.id2label = dict(enumerate(task.labels))
train_texts = encode(tokenizer, task.train["text"][:N_TRAIN], task.train["label"][:N_TRAIN])
test_texts, test_labels = task.test["text"][:N_TEST], np.array(task.test["label"][:N_TEST])
" ".join(tokenizer.tokenize(probes.test["text"][0]))

# %% tags=["nbval-ignore-output"]
teacher_log = train(teacher, train_texts, Recipe(epochs=2, learning_rate=1e-4))

# %%
claim(
    "the teacher's loss fell",
    machine.profile() == "smoke" or float(teacher_log[-1]["loss"]) < float(teacher_log[0]["loss"]),
)

# %% tags=["nbval-ignore-output", "slide-teacher"]
teacher_model = TorchClassifier.of(teacher, tokenizer, name="teacher")
teacher_logits = teacher_model.predict(test_texts)
teacher_score = score(teacher_logits, test_labels)
print(
    f"teacher: {teacher_score['accuracy']:.1%} right "
    f"(95 % interval {teacher_score['accuracy_low']:.1%} to {teacher_score['accuracy_high']:.1%})"
)

# %% [markdown]
# Guessing would be right for one text in eight. The [*interval*](../docs/glossary.md#interval) says how far the figure might move
# if we had drawn other test texts: never read an accuracy without one.

# %%
claim(
    "the teacher is right at least three times as often as a guess",
    teacher_score["accuracy"] >= 3 / 8 or machine.profile() == "smoke",
)

# %% [markdown]
# ## The student
#
# A [**student**](../docs/glossary.md#student) is a smaller model that learns from the teacher. We do not start it from nothing: it
# takes over the teacher's embeddings, three of the teacher's six layers, and its head. This is how
# DistilBERT was made from BERT. The whole function fits on a screen:

# %%
show_source(student_from_teacher)

# %% tags=["slide-student"]
student = student_from_teacher(teacher, layers=3)
print(f"teacher {teacher.num_parameters():,} parameters, {teacher.config.num_hidden_layers} layers")
print(f"student {student.num_parameters():,} parameters, {student.config.num_hidden_layers} layers")

# %% [markdown]
# Half the layers, but more than three quarters of the parameters: the dictionary again. How good is
# a model from which three of six layers have been cut out?

# %% tags=["nbval-ignore-output", "slide-cut"]
cut = TorchClassifier.of(copy.deepcopy(student), tokenizer, name="cut, untrained")
cut_score = score(cut.predict(test_texts), test_labels, teacher_logits=teacher_logits)
print(f"after the cut: {cut_score['accuracy']:.1%} right")

# %%
claim(
    "cutting layers out does damage",
    cut_score["accuracy"] < teacher_score["accuracy"] or machine.profile() == "smoke",
)

# %% [markdown]
# ## Distillation
#
# Now the student learns. A label is one word. The teacher says more. Here is what it believes of the
# three probes about which it is least sure:

# %% tags=["nbval-ignore-output", "slide-unsure"]
unsure = np.sort(probabilities(teacher_model, probes.test["text"]), axis=1)[:, -1].argsort()[:3]
for i in unsure.tolist():
    beliefs = probabilities(teacher_model, [probes.test["text"][i]])[0]
    top = [f"{task.labels[c]} {beliefs[c]:.2f}" for c in beliefs.argsort()[::-1][:3]]
    print(f"label {probes.labels[probes.test['label'][i]]}; teacher {', '.join(top)}, …")
    print(f"   {probes.test['text'][i]}")

# %% [markdown]
# The teacher also says which other answers are *nearly right*. Hinton and his co-authors called this
# [**dark knowledge**](../docs/glossary.md#dark-knowledge), and [*distillation*](../docs/glossary.md#distillation) is training a student on it. The teacher reads every text
# once, and we keep what it says.

# %%
signals = teacher_signals(teacher, train_texts, hidden_layers=matched_layers(6, 3), progress=False)
{name: tuple(tensor.shape[1:]) for name, tensor in signals.items()}

# %% [markdown]
# For each text there are eight [*logits*](../docs/glossary.md#logits) (numbers that a [*softmax*](../docs/glossary.md#softmax) turns into probabilities) and three
# vectors from inside the teacher, which the student's three layers are to imitate. The loss is a sum
# of three parts. [*`alpha`*](../docs/glossary.md#alpha) weighs the [**hard**](../docs/glossary.md#hard-loss) loss, the distance to the labels; the rest of the weight
# is on the [**soft**](../docs/glossary.md#soft-loss) loss, the distance to the teacher's probabilities at [*temperature*](../docs/glossary.md#temperature) 2; `beta` weighs
# the [**hidden**](../docs/glossary.md#hidden-loss) loss, the distance to the teacher's vectors. Notebook 03 takes each of them apart.

# %% tags=["nbval-ignore-output"]
learn = Recipe(
    epochs=4, learning_rate=2e-4, freeze_words=True, alpha=0.2, temperature=2.0, beta=1.0
)
student_log = train(student, train_texts.with_columns(**signals), learn)

# %%
claim(
    "the student's loss fell",
    machine.profile() == "smoke" or float(student_log[-1]["loss"]) < float(student_log[0]["loss"]),
)

# %% tags=["slide-loss"]
fig, ax = plt.subplots(figsize=(8, 3.2))
ax.plot(
    [entry["step"] for entry in student_log],
    [float(entry["loss"]) for entry in student_log],
    marker="o",
    color=COLOURS["vermillion"],
)
ax.set_xlabel("optimizer step (32 texts each)")
ax.set_ylabel("loss")
ax.set_ylim(bottom=0)
ax.set_title("Does the student come nearer to its teacher?")
show(fig, alt="Line chart: the student's distillation loss falls steeply at first, then slowly.")

# %% [markdown]
# ## What it lost, and what it gained

# %% tags=["nbval-ignore-output", "slide-kept"]
student_model = TorchClassifier.of(student, tokenizer, name="student")
student_logits = student_model.predict(test_texts)
student_score = score(student_logits, test_labels, teacher_logits=teacher_logits)
print(
    f"teacher {teacher_score['accuracy']:.1%}, student {student_score['accuracy']:.1%} right; "
    f"the student keeps {student_score['accuracy'] / teacher_score['accuracy']:.1%}"
)

# %%
claim(
    "the student keeps at least nine tenths of its teacher's accuracy",
    student_score["accuracy"] >= 0.9 * teacher_score["accuracy"] or machine.profile() == "smoke",
)
claim(
    "distillation repaired the cut",
    student_score["accuracy"] > cut_score["accuracy"] or machine.profile() == "smoke",
)

# %% [markdown]
# And the gain? We time both on the same texts, one after the other, in turns.


# %%
def milliseconds_per_text(classifier, texts):
    batch = classifier.encode(texts)
    before = time.perf_counter()
    classifier.logits(batch)
    return 1000 * (time.perf_counter() - before) / len(texts)


times = {model.name: [] for model in (teacher_model, student_model)}
for start in range(0, 32 * (1 if machine.profile() == "smoke" else 12), 32):
    for model in (teacher_model, student_model):
        times[model.name].append(milliseconds_per_text(model, test_texts[start : start + 32]))

# %% tags=["nbval-ignore-output", "slide-times"]
teacher_ms, student_ms = (float(np.median(times[name])) for name in ("teacher", "student"))
print(
    f"teacher {teacher_ms:.2f} ms per text, student {student_ms:.2f} ms: "
    f"{teacher_ms / student_ms:.2f} times as fast"
)

# %%
claim("the student is faster than its teacher", student_ms < teacher_ms)

# %% [markdown]
# Half the layers is close to half the time. That is the first step of this course. The command
# `course run` goes on from here: it trains both models on the whole task, writes the student's
# weights as 8-bit integers, and puts size, speed and accuracy of everything into one table.
#
# ## Exercise: how often do they agree?
#
# > Difficulty: easy · about 10 minutes
#
# [*Accuracy*](../docs/glossary.md#accuracy) compares a model with the labels. [*Agreement*](../docs/glossary.md#agreement) compares it with its teacher: the share of
# texts for which both choose the same class, whether it is the right one or not. Write it. You are
# given two arrays of logits with one row per text and one column per class.


# %%
def agreement(teacher_logits, student_logits):
    # solution
    return float(np.mean(teacher_logits.argmax(axis=1) == student_logits.argmax(axis=1)))


# %%
check.agreement(agreement)

# %% [markdown]
# The check runs your function on cases you have not seen. It says one of three things: that there is
# nothing to check yet, with a hint; that it is right; or that it is wrong **and why**, because it
# knows the usual mistakes. Try one on purpose: compare the logits themselves instead of their argmax,
# and see what it says. `check.agreement.hint(2)` gives the next hint.


# %% tags=["solution"]
def agreement_answer(teacher_logits, student_logits):
    same_class = teacher_logits.argmax(axis=1) == student_logits.argmax(axis=1)
    return float(same_class.mean())


check.agreement(agreement_answer)

# %% [markdown]
# The course's own measurement gives the agreement, too. Is it higher or lower than the accuracy? Why
# can it be *higher*?

# %% tags=["nbval-ignore-output", "slide-agreement"]
print(f"student and labels:  {student_score['accuracy']:.1%}")
print(f"student and teacher: {student_score['agreement']:.1%}")

# %%
claim(
    "the student agrees with its teacher more often than with the labels",
    student_score["agreement"] > student_score["accuracy"] or machine.profile() == "smoke",
)

# %% [markdown]
# It learned from the teacher, mistakes included.
#
# ## Your own sentences
#
# Change the sentence and run the cell. Write it the way documentation is written.

# %% tags=["slide-answers"]
my_sentence = "Computes the eigenvalues of a symmetric matrix and returns them in ascending order."
fig = answers([teacher_model, student_model], my_sentence)
show(
    fig,
    alt="Bar chart: the probability that teacher and student give to each of the eight "
    "libraries for one sentence about eigenvalues.",
)

# %% [markdown]
# With a running kernel you can type below and press Enter. (In a page without a kernel, the figure
# above stands for it.)

# %% tags=["nbval-ignore-output"]
type_and_compare([teacher_model, student_model], my_sentence)

# %% [markdown]
# Where do they differ most? We let both read all of the course's probes, and measure for each the
# [*distance*](../docs/glossary.md#distance-between-answers) between their answers: half the sum of the absolute differences of the probabilities, 0
# for the same answer and 1 for answers that have nothing in common.

# %%
probe_texts = probes.test["text"][:]
both = [probabilities(model, probe_texts) for model in (teacher_model, student_model)]
distance = np.abs(both[0] - both[1]).sum(axis=1) / 2
claim("on most probes the two are closer than one half", np.median(distance) < 0.5)

# %% tags=["nbval-ignore-output"]
for i in distance.argsort()[::-1][:5].tolist():
    teacher_says, student_says = (task.labels[p[i].argmax()] for p in both)
    print(
        f"distance {distance[i]:.2f}  teacher {teacher_says}, student {student_says}, "
        f"written about {probes.labels[probes.test['label'][i]]}\n   {probe_texts[i]}"
    )

# %% [markdown]
# Read these five. In how many of them would *you* side with the student?

# %%
seconds = time.perf_counter() - started
claim("all of this took less than ten minutes", seconds < 600)

# %% [markdown]
# ## What to take away
#
# 1. A small BERT is half dictionary and half layers; cutting layers buys speed before it buys size.
# 2. A student starts from its teacher's layers. Cutting alone does damage; training repairs most of it.
# 3. A teacher's probabilities say more than a label: which wrong answers are nearly right.
# 4. The teacher reads each text once. What it says is kept, and costs nothing from then on.
# 5. Every gain is measured on the machine in front of you, with an interval, beside what it cost.
#
# ## Three questions
#
# Answer in the cell: put a letter between the brackets, as in `quiz.why_not_half("a")`, and run it.

# %%
quiz.why_not_half()

# %%
quiz.agreement_above_accuracy()

# %%
quiz.teacher_asked_once()

# %% [markdown]
# `from course_utils.classroom.progress import progress; progress()` in a cell, or `course progress` in a
# terminal, shows what you have solved so far, in all notebooks, and what is next.
#
# ## To read
#
# - Hinton, Vinyals, Dean (2015), *Distilling the Knowledge in a Neural Network*: six pages of idea.
# - Sanh, Debut, Chaumond, Wolf (2019), *DistilBERT*: a student with every second layer of BERT.
