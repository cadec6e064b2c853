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
# # 06 · Distilling for a task
#
# > **About 90 minutes**, of which your computer works for about seven; the first time it also trains a
# > model that guesses words, for another two. Two processor cores are enough; a network is not needed. You should
# > know the soft loss (notebook 03) and where a student's layers come from (notebook 04).
#
# When you reach the end of this page you will have
#
# - answered the question that every reader asks first: *was it the distillation?*
# - seen how the answer changes with the number of labels,
# - swept T and alpha, let a search choose rate and layers, and watched a searched test set lie,
# - measured six remedies against overfitting, each with its interval,
# - found out whether teacher and student are as right as they are sure, and where they disagree,
# - typed sentences of your own and seen both models answer, and met `course distill` for your own table.

# %% tags=["setup"]
import warnings

warnings.filterwarnings("ignore")

from itertools import pairwise
from math import ceil

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed
from transformers.utils import logging

from course_utils import machine, prepared
from course_utils.classroom import check, claim
from course_utils.classroom import task_figures as figures
from course_utils.classroom.plots import show, use_style
from course_utils.classroom.quiz import quiz
from course_utils.classroom.side_by_side import compare_while_typing, sentences_figure
from course_utils.data.augment import mask_and_fill, word_dropout
from course_utils.data.encoding import EncodedTexts, encode
from course_utils.data.sources import find_model
from course_utils.data.tasks import load_task
from course_utils.distill.adversarial import train_adversarially
from course_utils.distill.cache import teacher_signals
from course_utils.distill.search import search
from course_utils.distill.trainer import Recipe, train
from course_utils.measure.accuracy import bootstrap, over_seeds_and_texts
from course_utils.measure.by_class import by_class, by_length
from course_utils.measure.calibration import calibration, fitted_temperature
from course_utils.measure.disagreement import disagreements, outcome_table
from course_utils.models.classifier import TorchClassifier
from course_utils.models.mlm import load_masked_lm
from course_utils.models.student import matched_layers, student_from_teacher

logging.set_verbosity_error()
logging.disable_progress_bar()
use_style()

# %% tags=["nbval-ignore-output"]
machine.use_all_cores()
small = machine.profile() == "smoke"
print(machine.describe())

# %% [markdown]
# ## Texts, and not one of them twice
#
# The task is PyDocs, as in notebook 00: which of eight libraries documents itself like this? We pretend
# to be poor. There are a few labelled texts, more texts that nobody has labelled, a [*dev*](../docs/glossary.md#dev-set) set to choose
# by, and a *test* set to report. Texts are cut to 24 tokens, to save your time.

# %%
SIZES = {
    "smoke": {"labels": (16, 64, 96), "unlabelled": 64, "dev": 64, "test": 64, "steps": 4},
    "cpu": {"labels": (120, 480, 1920), "unlabelled": 1440, "dev": 320, "test": 960, "steps": 64},
    "gpu": {"labels": (240, 960, 5760), "unlabelled": 5760, "dev": 800, "test": 2400, "steps": 360},
}
size = SIZES[machine.profile()]
FEW, N, MANY = size["labels"]
STEPS, BATCH, SEEDS = size["steps"], 16, range(2 if small else 3)

# %%
task = load_task("pydocs", say=lambda line: None, progress=False)
model_folder = find_model(say=lambda line: None).path
tokenizer = AutoTokenizer.from_pretrained(model_folder, model_max_length=128)


def take(split, n, start=0):
    """`n` rows of a split, drawn at random: a dict of `text` and `label`."""
    rows = getattr(task, split)
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[order[start : start + n].tolist()]


def read(rows, known=True):
    """The rows as token ids; without labels if nobody is to know them."""
    return encode(tokenizer, rows["text"], rows["label"] if known else None, max_length=24)


# %% tags=["slide-texts"]
labelled, dev = read(take("train", N)), read(take("dev", size["dev"]))
unlabelled = read(take("train", size["unlabelled"], start=MANY), known=False)
test_rows = take("test", size["test"])
test = read(test_rows)
for name, texts in (
    ("labelled", labelled),
    ("dev", dev),
    ("test", test),
    ("unlabelled", unlabelled),
):
    print(f"{name:>10}: {len(texts)} texts")

# %% [markdown]
# The first fault in a project happens here, before any model: a text that stands in train *and* in test.
# The model need not understand it; it has seen the answer. PyDocs is split by a hash of the text, so
# that this cannot happen. Your own table is not.
#
# ### Exercise: a clean train set
#
# > Difficulty: easy · about 8 minutes
#
# Two texts are the same if they differ in case or white space alone.


# %%
def clean_train(train, test):
    """The texts of `train` that are not in `test`, each once, in their order and as they are."""

    # solution
    def key(text):
        return " ".join(text.lower().split())

    seen = {key(text) for text in test}
    kept = []
    for text in train:
        if key(text) not in seen:
            kept.append(text)
            seen.add(key(text))
    return kept


# %%
check.clean_train(clean_train)


# %% tags=["solution"]
def clean_train_answer(train, test):
    def key(text):
        return " ".join(text.lower().split())

    seen = {key(text) for text in test}
    kept = []
    for text in train:
        if key(text) not in seen:
            kept.append(text)  # the text, not its key
            seen.add(key(text))
    return kept


check.clean_train(clean_train_answer)

# %% [markdown]
# ## A teacher that knows no more than we do
#
# Who teaches? We could take the teacher of notebook 00, which has read several times as many labels as
# we have now. If it taught our students, they would get the other labels as a present, and we should
# call that distillation. There are cases like this: somebody else's model, an API. But if the labels are
# yours, the teacher has the same ones. So we fine-tune a new one, on our labelled texts and no others.


# %%
def fine_tuned(texts, steps):
    """MiniLM with a new head, which learns ten times as fast as the six layers below it."""
    names = {"id2label": dict(enumerate(task.labels)), "num_labels": len(task.labels)}
    set_seed(0)  # of the head's first weights
    model = AutoModelForSequenceClassification.from_pretrained(
        model_folder, dtype=torch.float32, **names
    )
    epochs = steps / ceil(len(texts) / BATCH)
    recipe = Recipe(
        epochs, learning_rate=1e-4, head_factor=10.0, batch_size=BATCH, freeze_words=True
    )
    train(model, texts, recipe, progress=False)
    return model


teacher = fine_tuned(labelled, 2 * STEPS)


# %% [markdown]
# It reads every text once, and what it says is [*cached*](../docs/glossary.md#cached-signals): for a task the inputs never change, so why
# compute a teacher's answer again in each epoch? Three things can go wrong with a cache, and none of them
# raises an error.
#
# ### Exercise: a cache
#
# > Difficulty: medium · about 12 minutes
#
# Batches come in some order of the loader's own. Each is a pair: the numbers of its texts, and their ids.


# %%
def cache_logits(teacher, batches, n_texts):
    """The teacher's logits, (n_texts, C): row i belongs to text i."""
    # solution
    teacher.eval()
    logits = None
    with torch.no_grad():
        for rows, ids in batches:
            said = teacher(ids)
            if logits is None:
                logits = torch.empty(n_texts, said.shape[-1])
            logits[rows] = said
    return logits


# %%
check.cache_logits(cache_logits)


# %% tags=["solution"]
def cache_logits_answer(teacher, batches, n_texts):
    teacher.eval()  # no dropout in what is kept
    logits = None
    with torch.no_grad():
        for rows, ids in batches:
            said = teacher(ids)  # (B, C)
            if logits is None:
                logits = torch.empty(n_texts, said.shape[-1])
            logits[rows] = said  # each row where its text stands
    return logits


check.cache_logits(cache_logits_answer)


# %% [markdown]
# The library's `teacher_signals` does it, and for the hidden states, too. How wrong can a cache be? We
# shuffle its rows and ask how often teacher and label still agree.

# %%
signals = teacher_signals(teacher, labelled, hidden_layers=matched_layers(6, 3), progress=False)
logits = signals["teacher_logits"]


def share_right(logits, texts):
    return (logits.argmax(1) == texts.columns["labels"]).float().mean().item()


mixed_up = logits[torch.randperm(N, generator=torch.Generator().manual_seed(0))]
claim(
    "in its own rows, the teacher knows most of its labels",
    small or share_right(logits, labelled) > 0.7,
)
claim(
    "in shuffled rows, it is right like one who guesses",
    small or share_right(mixed_up, labelled) < 0.25,
)

# %% [markdown]
# ## Was it the distillation?
#
# A student of three layers reaches some accuracy. Why? It may be the labels, the weights that it
# inherited, the teacher's doubts, or more texts. Six students tell these apart. Each differs from one
# above it in one thing:
#
# 1. **from scratch**: random weights, labels alone;
# 2. **hard**: all it can inherit, the words, three layers and the head; labels alone (alpha = 1; *alpha* is the weight of the hard loss);
# 3. **soft**: the same, the teacher's logits alone (alpha = 0);
# 4. **both**: half and half;
# 5. **hidden states**: both, and the vectors of [CLS] are matched;
# 6. **unlabelled texts**: as number 4, and the teacher also answers for texts that nobody has labelled.
#
# The last one has more texts. If it also trained for longer, we should not know which of the two had
# helped. So all take the same number of steps.
#
# ### Exercise: equal steps
#
# > Difficulty: easy · about 5 minutes
#
# `Recipe` counts in epochs, and takes fractions. The last batch of an epoch may not be full.


# %%
def epochs_for(n_texts, batch_size, steps):
    """How many epochs of `n_texts` texts are exactly `steps` steps?"""
    # solution
    return steps / ceil(n_texts / batch_size)


# %%
check.epochs_for(epochs_for)


# %% tags=["solution"]
def epochs_for_answer(n_texts, batch_size, steps):
    return steps / ceil(n_texts / batch_size)  # a batch that is not full is a step, too


check.epochs_for(epochs_for_answer)

# %% [markdown]
# A batch now holds texts with and without a label. What is its loss?
#
# ### Exercise: the loss of a mixed batch
#
# > Difficulty: medium · about 15 minutes
#
# Per text: alpha · cross-entropy + (1 − alpha) · T² · KL(teacher ‖ student), both sides softened by T. Without
# a label (−100) there is the soft part alone, with weight 1. Return the mean over all texts.


# %% tags=["slide-partly-labelled-loss"]
def partly_labelled_loss(student_logits, teacher_logits, labels, alpha, temperature):
    """A scalar, for logits (N, C) and labels (N,)."""
    # solution
    log_q = (student_logits / temperature).log_softmax(-1)
    log_p = (teacher_logits / temperature).log_softmax(-1)
    soft = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)
    hard = torch.nn.functional.cross_entropy(student_logits, labels, reduction="none")
    alphas = torch.where(labels == -100, 0.0, alpha)
    return (alphas * hard + (1 - alphas) * soft).mean()


# %%
check.partly_labelled_loss(partly_labelled_loss)


# %% tags=["solution"]
def partly_labelled_loss_answer(student_logits, teacher_logits, labels, alpha, temperature):
    log_q = (student_logits / temperature).log_softmax(-1)  # (N, C)
    log_p = (teacher_logits / temperature).log_softmax(-1)
    soft = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)  # (N,)
    # cross_entropy gives 0 where the label is -100
    hard = torch.nn.functional.cross_entropy(student_logits, labels, reduction="none")
    alphas = torch.where(labels == -100, 0.0, alpha)
    return (alphas * hard + (1 - alphas) * soft).mean()


check.partly_labelled_loss(partly_labelled_loss_answer)


# %% [markdown]
# Now the six, three seeds each. A seed decides the order of the texts and, from scratch, the weights.
# An interval has to answer two questions at once: what would other seeds have given, and what other test
# texts? `over_seeds_and_texts` adds up both. We compare two students text by text, on the same ones, so that
# how hard a text is plays no part.


# %%
def joined(first, second):
    """Texts of both, with the columns that both have."""
    shared = first.columns.keys() & second.columns.keys()
    columns = {k: torch.cat([first.columns[k], second.columns[k]]) for k in shared}
    return EncodedTexts(first.input_ids + second.input_ids, **columns)


def told(model, texts):
    """The texts with what `model` says of them."""
    return texts.with_columns(**teacher_signals(model, texts, progress=False))


def distil(model, rows, seed, scratch=False, trainer=train, **changes):
    """A student of three of `model`'s layers, after STEPS steps."""
    student = student_from_teacher(model, layers=3)
    if scratch:
        torch.manual_seed(seed)
        student = type(student)(student.config)
    settings = {
        "learning_rate": 5e-4,
        "freeze_words": not scratch,
        "alpha": 0.5,
        "temperature": 2.0,
    }
    epochs = STEPS / ceil(len(rows) / BATCH)
    recipe = Recipe(epochs, batch_size=BATCH, seed=seed, **settings | changes)
    trainer(student, rows, recipe, progress=False)
    return student


def predict(model, texts=test):
    return teacher_signals(model, texts, progress=False)["teacher_logits"]


def taught(model, rows, **options):
    """What students of `model`, one per seed, say of the test texts, (seeds, N, C)."""
    return torch.stack([predict(distil(model, rows, seed, **options)) for seed in SEEDS])


# %%
softly = labelled.with_columns(teacher_logits=logits)
with_hidden = labelled.with_columns(**signals)
with_more = joined(softly, told(teacher, unlabelled))
variants = {
    "from scratch": (labelled, {"scratch": True}),
    "hard": (labelled, {}),
    "soft": (softly, {"alpha": 0.0}),
    "both": (softly, {}),
    "both, hidden states": (with_hidden, {"beta": 1.0}),
    "both, unlabelled texts": (with_more, {}),
}
said = {
    name: taught(teacher, rows, **options) for name, (rows, options) in variants.items()
}  # (seeds, N, C) each

# %% tags=["slide-six-students"]
teacher_says = predict(teacher)


def right(said):
    """100 for each test text that is right, else 0: (seeds, N), or (N,) for one model."""
    return 100 * (said.argmax(-1) == test.columns["labels"]).float().numpy()


def agrees(said):
    return 100 * (said.argmax(-1) == teacher_says.argmax(-1)).float().numpy()


panels = {
    "right, %": {name: right(each) for name, each in said.items()},
    "teacher's class, %": {name: agrees(each) for name, each in said.items()},
}
show(
    figures.rows_figure("Was it the distillation?", panels),
    alt="Six students in rows, with intervals, by accuracy and by agreement with their teacher. The one from "
    "scratch lies far below all others. Those who learn from its answers agree with it more than the hard one.",
)


# %% tags=["nbval-ignore-output"]
def print_lead(name, points):
    """The mean of differences (seeds, N), its interval, and what to make of it."""
    mean, half = over_seeds_and_texts(points)
    verdict = "outside the interval" if abs(mean) > half else "inside: not shown"
    print(f"{name:34}{mean:+6.1f} ± {half:4.1f} points   {verdict}")


accuracy, agreement = panels.values()
names = list(variants)
print(f"the teacher: {right(teacher_says).mean():.1f} % right\n")
for before, name in [*pairwise(names[:5]), ("both", names[5]), ("hard", names[5])]:
    print(f"{name} against {before}")
    print_lead("  right", accuracy[name] - accuracy[before])
    print_lead("  the teacher's class", agreement[name] - agreement[before])

# %%
inherits = accuracy["hard"] - accuracy["from scratch"]
mean, half = over_seeds_and_texts(inherits)
claim("layers against scratch: outside the interval", small or mean > half)
claim("and by more than ten points", small or mean > 10)
closer = agreement[names[5]].mean() - agreement["hard"].mean()
claim("answers for unlabelled texts: closer to the teacher than by labels", small or closer > 0)

# %% [markdown]
# Read the verdicts, and resist the temptation to read the means alone.
#
# - **What it inherits**, words, layers and head, is worth most by far. Nothing else on this page comes near. (The
#   student from scratch has learned next to nothing in so few steps.)
# - **Soft instead of hard, on the same texts**: the student gives its teacher's class more often. That need not
#   make it right more often: a student that copies well also copies mistakes. Where the line says *inside*, it
#   is not shown here, whatever the means look like. It does not say that there is nothing.
# - **Unlabelled texts**: the fair comparison is with *both*, which differs in nothing else. Against *hard* two
#   things have changed, the loss and the texts, and *soft* is closer to the teacher without any new text.
#
# Three seeds and a thousand test texts see differences of some points, not of half a point. Whoever
# reports half a point from one seed reports the seed.
#
# ## Few labels, many labels
#
# The same at three sizes. Each size has a teacher of its own, with the same labels as its students. The
# unlabelled texts are the same for all, and all students take the same number of steps. Beside them stands the case that we had put aside:
# a teacher that is *not* yours. The large teacher, with all its labels, answers for those who have few;
# its students begin with its layers, which is part of the present.

# %%
few, many = read(take("train", FEW)), read(take("train", MANY))
few_teacher, expert = fine_tuned(few, STEPS), fine_tuned(many, 3 * STEPS)

# %%
few_more = joined(told(few_teacher, few), told(few_teacher, unlabelled))
expert_more = told(expert, unlabelled)
large = {
    n: taught(expert, joined(told(expert, texts), expert_more))
    for n, texts in ((FEW, few), (N, labelled), (MANY, many))
}
hard = {FEW: taught(few_teacher, few), N: said["hard"], MANY: taught(expert, many)}
more = {FEW: taught(few_teacher, few_more), N: said["both, unlabelled texts"]}
more[MANY] = large[MANY]  # here the large teacher is their own

# %% tags=["slide-few-labels"]
of_teachers = [right(predict(model)).mean() for model in (few_teacher, teacher, expert)]
students = {"hard": hard, "unlabelled texts": more, "the large teacher": large}
lines = {
    name: np.stack([right(each[n]) for n in (FEW, N, MANY)]) for name, each in students.items()
}  # (sizes, seeds, N)
show(
    figures.few_labels_figure(list(large), lines, of_teachers),
    alt="Accuracy over the number of labelled texts, three sizes on a logarithmic axis, for three students "
    "with intervals and their teachers. Three lines rise with the labels. Students of the large teacher "
    "are far above the others where labels are few.",
)

# %% tags=["nbval-ignore-output", "slide-few-labels-leads"]
for row, n in enumerate(large):
    print(f"{n} labels")
    for name in list(lines)[1:]:
        print_lead(f"  {name} against hard", lines[name][row] - lines["hard"][row])

# %%
claim("more labels, better teachers", small or of_teachers[0] < of_teachers[1] < of_teachers[2])
labels_add = lines["hard"][-1].mean() - lines["hard"][0].mean()
claim("more labels, better students", small or labels_add > 0)
gain = lines["the large teacher"] - lines["hard"]  # (sizes, seeds, N)
mean, half = over_seeds_and_texts(gain[0])
claim("fewest labels: a better teacher helps, outside the interval", small or mean > half)
answered = lines["unlabelled texts"] - lines["hard"]
claim("and so do unlabelled texts, with a teacher of few labels", small or answered[0].mean() > 0)
claim(
    "both, more than where labels are many",
    small or min(gain[0].mean(), answered[0].mean()) > gain[-1].mean(),
)

# %% [markdown]
# Two lessons. **A student is bounded by its teacher**: one that has seen few labels can pass on no more
# than it has, however many texts it is asked about. And distillation **pays most where labels are few**:
# there the hard student learns its few texts by heart, and every text that the teacher answers for keeps it
# from that. A teacher that has had many labels adds what it knows. Where you have the labels yourself,
# they are a good teacher already.
#
# ## T and alpha
#
# Two numbers that every paper sets and few explain. We sweep them on a grid, look at *dev*, and write
# into the title how far each number may be trusted.

# %% tags=["slide-grid"]
temperatures, alphas = (1.0, 2.0, 4.0), (0.0, 0.5, 0.9)
grid = np.zeros((len(temperatures), len(alphas)))
for row, column in np.ndindex(*grid.shape):
    settings = {"temperature": temperatures[row], "alpha": alphas[column]}
    grid[row, column] = 100 * share_right(predict(distil(teacher, softly, 0, **settings), dev), dev)
low, high = (100 * end for end in bootstrap(grid.mean() / 100, len(dev)))
show(
    figures.grid_figure(temperatures, alphas, grid, (high - low) / 2),
    alt="A heat map of accuracy on dev for three temperatures and three values of alpha. The title gives "
    "half of an interval, which is large compared with the differences between neighbours.",
)

# %%
claim("best and worst of the grid: their intervals overlap", small or np.ptp(grid) < high - low)

# %% [markdown]
# The bold number is the largest; somebody has to be. With these few texts the grid cannot tell its cells
# apart. That is a result, too: T and alpha are not where your week should go. Take T = 2 and alpha = 0.5,
# and label more texts.
#
# ## A proper search, and a warning
#
# Learning rate and depth matter more. A grid over them spends most of its time on settings that were
# hopeless after an epoch. A [*search*](../docs/glossary.md#hyperparameter-search) proposes the next trial from those before it, and *prunes* a trial
# that lags behind the others. The library's `search` asks Optuna, by way of
# `Trainer.hyperparameter_search`; it is given train and dev, and has no place for test.


# %%
def make_student(layers):
    return student_from_teacher(teacher, layers=layers)


base = Recipe(epochs=1 if small else 2, learning_rate=2e-4, batch_size=BATCH, freeze_words=True)
space = {"learning_rate": (1e-5, 2e-3), "layers": [2, 3, 4]}
found = search(make_student, softly, dev, base, space, n_trials=3 if small else 8, progress=False)

# %%
show(
    figures.trials_figure(found.trials),
    alt="Accuracy on dev over the learning rate, a mark per trial with its number of layers "
    "beside it. Crosses are trials that were ended early.",
)

# %% tags=["nbval-ignore-output"]
early = sum(trial["state"] == "pruned" for trial in found.trials)
print(f"{len(found.trials)} trials, {early} of them ended early")
print(f"found: rate {found.recipe.learning_rate:.1e}, {found.student['layers']} layers")

# %%
rates = [trial["params"]["learning_rate"] for trial in found.trials]
claim("the largest rate tried has not won", small or found.recipe.learning_rate < max(rates))

# %% [markdown]
# With `progress=True` a bar counts the trials. Now the warning. *Why* has the function no place for the
# test set? Here are forty candidates. Each is our student with its eight logits mixed a little
# differently: some are better, some worse, none by design. We have a *small* test set, 60 texts, and
# choose the best candidate on it. Then we look at the texts that were not used for choosing.

# %% tags=["slide-luck"]
chance = np.random.default_rng(0)
mixtures = np.eye(8) + 0.25 * chance.standard_normal((40, 8, 8))  # forty heads
candidates = np.einsum("nc,kcd->knd", said["both"][0].numpy(), mixtures)  # (40, N, 8)
hits = candidates.argmax(-1) == test.columns["labels"].numpy()  # (40, N)


def leads(searched):
    """How far each candidate is above their average, on the searched texts and on the others."""
    fresh = np.setdiff1d(np.arange(len(test)), searched)
    small_set, others = (100 * hits[:, rows].mean(1) for rows in (searched, fresh))
    return small_set - small_set.mean(), others - others.mean()


draws = [
    leads(chance.choice(len(test), min(60, len(test) // 2), replace=False)) for _ in range(200)
]
show(
    figures.luck_figure(*draws[0]),
    alt="Forty candidates by their lead over the average on the small test set and on fresh texts. The best of "
    "the search lies far to the right; an arrow shows how far below the diagonal it is.",
)

# %% tags=["nbval-ignore-output"]
on_small = np.array([searched.max() for searched, _ in draws])
on_fresh = np.array([fresh[searched.argmax()] for searched, fresh in draws])
print(f"200 small test sets: the best of 40 leads by {on_small.mean():.1f} points there,")
print(f"and by {on_fresh.mean():.1f} points on the texts that were not searched")

# %%
claim("in at least 8 of 10 draws the lead shrinks", small or np.mean(on_fresh < on_small) > 0.8)
claim("on average, half of it or more is gone", small or on_fresh.mean() < on_small.mean() / 2)

# %% [markdown]
# The best of many is good *and* lucky, and only the first of the two comes along. No training was needed
# to show it, and no bad will: looking forty times is enough. So choose by dev, and look at test once.
#
# ### Exercise: choose, then report
#
# > Difficulty: easy · about 8 minutes
#
# Each run has its accuracy after every epoch, on dev and on test. Among ties take the first.


# %%
def choose_run(runs):
    """(name of the run, epoch from 0, the accuracy to report) for {name: {"dev": …, "test": …}}."""
    # solution
    name = max(runs, key=lambda name: max(runs[name]["dev"]))
    epoch = runs[name]["dev"].index(max(runs[name]["dev"]))
    return name, epoch, runs[name]["test"][epoch]


# %%
check.choose_run(choose_run)


# %% tags=["solution"]
def choose_run_answer(runs):
    name = max(runs, key=lambda name: max(runs[name]["dev"]))  # the best epoch of each run
    epoch = runs[name]["dev"].index(max(runs[name]["dev"]))
    return name, epoch, runs[name]["test"][epoch]  # whatever it is


check.choose_run(choose_run_answer)

# %% [markdown]
# ## Too few texts: what helps?
#
# With few labels a student reads the same texts over and over, until it knows them by heart. There is a
# long list of remedies. We measure six, one at a time, against the *hard* student of the fewest labels:
#
# - [**early stopping**](../docs/glossary.md#early-stopping): keep the epoch that was best on dev (which costs labels, too);
# - [**weight decay**](../docs/glossary.md#weight-decay): pull all weights towards zero, ten times as hard as usual;
# - [**dropout**](../docs/glossary.md#dropout): strike out a tenth of all activations;
# - **words dropped**: new texts in which words are hidden; the teacher says what it thinks of them;
# - **words replaced**: the same, but a masked LM fills the gaps with words that fit ([*mask-and-fill*](../docs/glossary.md#mask-and-fill));
# - [**FGM**](../docs/glossary.md#fgm): move the word vectors to where the loss is larger, and learn from these as well.
#
# The masked LM is the one of notebook 02. It proposes words; the labels of such texts are nobody's, so
# again it is the teacher that answers.

# %%
guesser = load_masked_lm(prepared.masked_lm_teacher(say=lambda line: None))
hide = {"mask_id": tokenizer.mask_token_id}
dropped = [row for k in range(3) for row in word_dropout(few.input_ids, 0.25, seed=k, **hide)]
replaced = mask_and_fill(guesser, tokenizer, few.input_ids, share=0.25, n=3)

# %% [markdown]
# What does a filled text look like? One of our own sentences, three times:

# %% tags=["nbval-ignore-output"]
mine = encode(tokenizer, ["Returns the sorted labels of all rows that hold no missing value."])
for ids in mask_and_fill(guesser, tokenizer, mine.input_ids, share=0.25, n=3):
    print(tokenizer.decode(ids, skip_special_tokens=True))


# %%
def relabelled(rows):
    """The few labelled texts and new ones, with the teacher's opinion of them all."""
    new = EncodedTexts(rows, labels=torch.full((len(rows),), -100))
    return told(few_teacher, joined(few, new))


def stopping_early(student, rows, recipe, progress):
    train(student, rows, recipe, dev=dev, patience=3, progress=progress)


remedies = {
    "early stopping": (few, {"trainer": stopping_early}),
    "weight decay": (few, {"weight_decay": 0.1}),
    "dropout": (few, {"dropout": 0.1}),
    "words dropped": (relabelled(dropped), {}),
    "words replaced": (relabelled(replaced), {}),
    "FGM": (few, {"trainer": train_adversarially}),
}

# %%
none = lines["hard"][0]  # (seeds, N)
gains = {
    name: right(taught(few_teacher, rows, **options)) - none
    for name, (rows, options) in remedies.items()
}
gains["unlabelled texts"] = lines["unlabelled texts"][0] - none

# %%
show(
    figures.rows_figure(
        "What helps where labels are few?", {"gain over no remedy, points": gains}, line=0
    ),
    alt="Seven remedies in rows: the gain in accuracy over no remedy for each seed, with intervals, and a line "
    "at zero. Early stopping, weight decay and dropout lie near the line; texts with words dropped or "
    "replaced, FGM and unlabelled texts to the right of it.",
)

# %% tags=["nbval-ignore-output"]
for name, points in gains.items():
    print_lead(name, points)

# %%
gain = {name: points.mean() for name, points in gains.items()}
held_back = [gain.pop(name) for name in ("early stopping", "weight decay", "dropout")]
claim(
    "texts, real or made, help more than holding back",
    small or np.mean(list(gain.values())) > np.mean(held_back),
)
claim(
    "no remedy makes up for the labels that are missing", small or max(gain.values()) < labels_add
)

# %% [markdown]
# The last line is the unlabelled texts from above, for comparison. There are two kinds of remedy. Early
# stopping, weight decay and dropout *hold the student back* while it reads the same few texts again. The
# others give it *something new to read*: texts with words hidden or replaced, texts moved to where it errs, or
# other texts. Here the second kind helps more on average, and none makes up for the labels that are missing.
# Where a bar crosses zero, three seeds have not shown that the remedy helps *here*. It may help elsewhere:
# dropout was made for models that train from nothing and for long; weight decay of this size moves next
# to nothing in so few steps. Measure before you believe a list.
#
# ## As right as it is sure?
#
# A classifier also says how sure it is. If you send the unsure texts to a person, that number must mean
# something: of the texts where it says 0.8, eight in ten should be right. The [*expected calibration
# error*](../docs/glossary.md#expected-calibration-error) (ECE) is how far off that is on average.
#
# ### Exercise: the calibration error
#
# > Difficulty: medium · about 15 minutes
#
# Put the texts into bins of equal width by the largest probability. ECE is the mean over all texts of
# their bin's |share right − mean confidence|.


# %%
def calibration_error(probs, labels, n_bins):
    """A number from 0 to 1, for probabilities (N, C) and labels (N,)."""
    # solution
    confidence, predicted = probs.max(-1)
    right = (predicted == labels).to(confidence)
    places = (confidence * n_bins).ceil().clamp(1, n_bins).long() - 1
    gaps = torch.zeros(n_bins).to(confidence).index_add(0, places, right - confidence)
    return (gaps.abs().sum() / len(labels)).item()


# %%
check.calibration_error(calibration_error)


# %% tags=["solution"]
def calibration_error_answer(probs, labels, n_bins):
    confidence, predicted = probs.max(-1)  # (N,)
    right = (predicted == labels).to(confidence)
    places = (confidence * n_bins).ceil().clamp(1, n_bins).long() - 1
    # n/N · |mean right - mean confidence| is |sum of (right - confidence)| / N
    gaps = torch.zeros(n_bins).to(confidence).index_add(0, places, right - confidence)
    return (gaps.abs().sum() / len(labels)).item()


check.calibration_error(calibration_error_answer)

# %% [markdown]
# We look at the large teacher, at a student of it that had all labels and the unlabelled texts, and
# at one that has read the fewest labels over and over, hard.

# %% tags=["slide-reliability"]
student = distil(expert, joined(told(expert, many), expert_more), 0)
overfed = distil(few_teacher, few, 0)
labels = test.columns["labels"].numpy()
trio = {"teacher": expert, "student": student, "few, hard labels": overfed}
answers = {name: predict(model) for name, model in trio.items()}


def calibrated(logits):
    return calibration(logits.softmax(-1).numpy(), labels, n_bins=10)


measured = {name: calibrated(each) for name, each in answers.items()}
show(
    figures.reliability_figure(measured),
    alt="Three reliability figures: how often each model is right over how sure it is. The student of few hard "
    "labels lies far below the diagonal: it is much surer than it is right.",
)

# %%
warmth = {
    name: fitted_temperature(predict(model, dev).numpy(), dev.columns["labels"].numpy())
    for name, model in trio.items()
}
cooled = {name: calibrated(each / warmth[name]) for name, each in answers.items()}

# %% tags=["nbval-ignore-output", "slide-ece"]
for name in trio:
    was, now = measured[name].ece, cooled[name].ece
    print(f"{name:>18}: ECE {was:.2f}, with T = {warmth[name]:.2f} {now:.2f}")

# %%
name = "few, hard labels"
claim("few hard labels: too sure of itself, T above 1", small or warmth[name] > 1)
claim("one number repairs more than half of it", small or cooled[name].ece < measured[name].ece / 2)
claim(
    "and not one answer changes",
    torch.equal((answers[name] / warmth[name]).argmax(-1), answers[name].argmax(-1)),
)

# %% [markdown]
# [*Temperature scaling*](../docs/glossary.md#temperature-scaling) divides all logits by one number, fitted on dev (Guo and others 2017). It is the
# cheapest repair there is: no answer changes, only how sure the model says it is.
#
# ## Where it loses
#
# One accuracy hides eight. Which classes did the student lose, and is it the long texts?

# %%
both_say = answers["teacher"].numpy(), answers["student"].numpy()
words = [len(text.split()) for text in test_rows["text"]]
classes = zip(*(by_class(each, labels, task.labels) for each in both_say))
bins = zip(*(by_length(words, each.argmax(1) == labels) for each in both_say))
groups = {
    "by class (recall)": [(t["name"], t["recall"], s["recall"]) for t, s in classes],
    "by length, in words": [
        (f"{t['shortest']}–{t['longest']}", t["accuracy"], s["accuracy"]) for t, s in bins
    ],
}
show(
    figures.groups_figure(groups),
    alt="Two charts of teacher and student side by side: recall in each of the eight libraries, and accuracy "
    "in four groups of texts by their length in words. The classes differ more from each other than the "
    "student from its teacher.",
)

# %% tags=["nbval-ignore-output"]
table = outcome_table(labels, *both_say)
print({name: round(number, 3) for name, number in table.items()})

# %%
recalls = np.array([[t, s] for _, t, s in groups["by class (recall)"]])
claim(
    "classes differ more than the two models do",
    small or np.ptp(recalls[:, 0]) > np.abs(recalls[:, 0] - recalls[:, 1]).mean(),
)
largest = max(count for name, count in table.items() if name != "p")
claim("both right is the largest count", small or table["both_right"] == largest)

# %% [markdown]
# `p` is from [*McNemar's test*](../docs/glossary.md#mcnemars-test): it looks only at the texts that one alone gets right. (It is rounded: 0.0 is less
# than 0.0005.) So the student has lost something, and the figure says where. Counts are quick to read and easy to argue about. Now *read*: twenty texts about which the two are surest and do not agree.


# %% tags=["corpus-text"]
def print_disagreements(texts, labels, both_say, n):
    for each in disagreements(texts, labels, *both_say, task.labels, n=n):
        teacher, student = f"{each.teacher_prob:.2f}", f"{each.student_prob:.2f}"
        print(f"{each.label}: teacher {each.teacher} {teacher}, student {each.student} {student}")
        print("  ", each.text[:150])


print_disagreements(test_rows["text"], labels, both_say, n=20)

# %% [markdown]
# Those are on your machine only. The course's own *probes* can be printed.

# %% tags=["nbval-ignore-output"]
probes = load_task("probes", say=lambda line: None)
places = [task.labels.index(probes.labels[k]) for k in probes.test["label"]]
its_texts = probes.test["text"][:]
rows = encode(tokenizer, its_texts, max_length=24)
two = [predict(model, rows).numpy() for model in (expert, student)]
print_disagreements(its_texts, places, two, n=5)

# %% [markdown]
# How many of them would you have got right? Often the two answers are both sensible, and the label is one
# of them. A student that differs there has lost nothing. The counts above say that this is not all.
#
# ## Your own sentences
#
# Change them and run the cell. A row per sentence, a column per model.

# %%
my_sentences = [
    "Returns the eigenvalues of a symmetric matrix in ascending order.",
    "Move all parameters and buffers to the device.",
    "Draw a legend outside of the axes, on the right.",
    "Fill missing values with the last valid observation.",
    "Fit the model, then predict a class for each sample.",
]
pair = [TorchClassifier.of(trio[name], tokenizer, name=name) for name in ("teacher", "student")]
show(
    sentences_figure(pair, my_sentences),
    alt="Five sentences in rows, teacher and student in columns: in each cell the library that the model chose, "
    "and its probability as a shade of blue.",
)

# %% [markdown]
# With a running kernel, type below; the table follows every letter. (In a page without a kernel, the
# figure above stands for it.) Watch where a single word turns one of the two and not the other.

# %% tags=["nbval-ignore-output", "slide-type"]
compare_while_typing(pair, my_sentences)

# %% [markdown]
# ## On your own table
#
# Everything on this page is one command. It looks at the data first and says what it found (duplicates,
# texts in both splits, labels that the teacher doubts), trains, distils, exports, and measures. The
# course's reviews are such a table:
#
# ```bash
# course distill --data data/reviews --text text --label label --out my_model
# course predict my_model "The plot is thin, but what a cast!"
# course predict my_model --file in.csv --text text --out out.csv
# ```
#
# `my_model/` then holds the student for Transformers (`config.json`, `model.safetensors` and the tokenizer),
# `model.onnx` with 8-bit weights, which needs no PyTorch to run, `labels.txt`, a model card in `README.md`,
# `report.html` and `results.json` with every number and its interval, and `suspects.csv`: the texts whose
# labels you should look at. Budgets are options: `--budget-mb 12 --budget-ms 5`.
#
# ## What to take away
#
# 1. A distilled student proves nothing without its control: the same layers, the same steps, labels alone.
# 2. Count the labels that your teacher has read. They are part of the student's education.
# 3. A difference inside its interval is not a finding. Say so, in both directions.
# 4. Choose by dev, look at test once; the best of forty is lucky.
# 5. Ask how sure it is, class by class, and read where it differs. One accuracy hides all of that.
#
# ## Three questions
#
# Read a question, then answer it in a cell of your own: `quiz.best_of_forty("a")`.

# %%
quiz.was_it_the_distillation()

# %%
quiz.best_of_forty()

# %%
quiz.sure_and_right()

# %% [markdown]
# ## To read
#
# - Hinton, Vinyals, Dean (2015), *Distilling the Knowledge in a Neural Network*: section 2 is the loss.
# - Turc, Chang, Lee, Toutanova (2019), *Well-Read Students Learn Better*: what unlabelled texts are worth.
# - Guo, Pleiss, Sun, Weinberger (2017), *On Calibration of Modern Neural Networks*: ECE and temperature.
# - Miyato, Dai, Goodfellow (2017), *Adversarial Training Methods for Semi-Supervised Text Classification*: FGM.
# - Dodge and others (2020), *Fine-Tuning Pretrained Language Models*: seeds, early stopping, luck.
