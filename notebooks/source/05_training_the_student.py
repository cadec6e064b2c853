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
# # 05 · Training the student
#
# > **About 105 minutes**, of which your computer works for about four; the first time it also trains the
# > teacher, for another two. Two processor cores are enough; a network is not needed. You should know
# > the three parts of the loss (notebook 03) and where the student's weights come from (notebook 04).
#
# When you reach the end of this page you will have
#
# - packed a corpus into blocks without padding, and hidden words so that nobody ever sees the same gaps twice,
# - written DistilBERT's training loop in thirty lines, and found the trainer equal to it, and faster,
# - watched a student learn, and read its speed as a share of what the machine can do,
# - compared it with the same student without a teacher and the same teacher without its layers,
# - killed a training in the middle, carried on, and got the same weights to the last bit,
# - seen how the same run goes to two processes, to a GPU, and to a bill in dollars.

# %% tags=["setup"]
import warnings

warnings.filterwarnings("ignore")

import copy
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from torch.utils.data import DataLoader
from transformers import AutoTokenizer
from transformers.utils import logging

from course_utils import machine, pretraining
from course_utils.classroom import check, claim
from course_utils.classroom import training_figures as figures
from course_utils.classroom.dashboard import Dashboard
from course_utils.classroom.plots import show, use_style
from course_utils.classroom.quiz import quiz
from course_utils.data.blocks import to_blocks
from course_utils.data.corpus import read_corpus
from course_utils.data.masking import MaskedBlocks
from course_utils.data.sources import find_model
from course_utils.distill.checkpoints import find_trouble
from course_utils.distill.losses import hard_cross_entropy, hidden_cosine, soft_kl
from course_utils.distill.pretrain import PretrainRecipe, distil_mlm
from course_utils.measure.guessing import compare_guesses, guess, score_guesses
from course_utils.models.mlm import load_masked_lm, top_guesses
from course_utils.models.student import student_from_teacher
from course_utils.prepared import masked_lm_teacher
from course_utils.settings import read_settings

logging.set_verbosity_error()
logging.disable_progress_bar()
disable_progress_bar()
use_style()

# %% tags=["nbval-ignore-output"]
machine.use_all_cores()
device = machine.describe().device
small = machine.profile() == "smoke"
print(machine.describe())

# %% [markdown]
# ## Three sizes, one page
#
# The cells below are the same on a laptop and on a GPU; what differs is in this table. On two cores,
# MiniLM of six layers teaches three. On a GPU it is BERT-base of twelve, which teaches six, at full
# width, as DistilBERT was made. `smoke` is for those who test the page.

# %%
SIZES = {
    "smoke": {"teacher": "pydocs", "layers": 3, "length": 32, "batch": 4, "steps": 6, "asked": 16},
    "cpu": {
        "teacher": "pydocs",
        "layers": 3,
        "length": 64,
        "batch": 32,
        "steps": 120,
        "asked": 1536,
    },
    "gpu": {
        "teacher": "google-bert/bert-base-uncased",
        "layers": 6,
        "length": 128,
        "batch": 32,
        "steps": 2000,
        "asked": 1536,
    },
}
size = SIZES[machine.profile()]
ours = size["teacher"] == "pydocs"
folder = masked_lm_teacher(say=str) if ours else find_model(size["teacher"]).path
tokenizer = AutoTokenizer.from_pretrained(folder)
teacher = load_masked_lm(folder).to(device)

# %% [markdown]
# ## Text in blocks
#
# Notebook 02 read one text per row and filled the short rows with [PAD]. A model computes for every
# one of those, and learns from none. How many are there?

# %% tags=["nbval-ignore-output", "slide-padding"]
corpus = read_corpus("pydocs", say=str)
lengths = np.array([len(ids) for ids in tokenizer(corpus["text"][:3200])["input_ids"]])
rows = np.minimum(lengths, size["length"]).reshape(-1, 32)  # 100 batches of 32 texts
padding = 1 - rows.sum() / (32 * rows.max(1)).sum()
cut = 1 - np.minimum(lengths, size["length"]).sum() / lengths.sum()
print(
    f"padded rows: {padding:.0%} of all places hold [PAD], and {cut:.0%} of the tokens are cut off"
)

# %%
claim("of a batch of padded texts, at least a third is padding", small or padding > 1 / 3)

# %% [markdown]
# So we pour all documents into one stream, with [SEP] between them, and cut it into [*blocks*](../docs/glossary.md#block-of-text) of equal
# length. Nothing is padded. A long document goes on in the next block, and all that is lost is what
# fills no block at the very end.
#
# ### Exercise: blocks
#
# > Difficulty: medium · about 12 minutes
#
# A document is a list of ids. A block is [CLS], then `length` − 2 ids of the stream, then [SEP].


# %%
def to_blocks_by_hand(documents, length, cls, sep):
    """Lists of `length` ids: [CLS] t t [SEP] t … [SEP]. Only the last, unfinished one is lost."""
    # solution
    stream = []
    for document in documents:
        stream += [sep] * bool(stream) + document
    room = length - 2
    whole = len(stream) // room
    return [[cls, *stream[k * room : (k + 1) * room], sep] for k in range(whole)]


# %%
check.to_blocks_by_hand(to_blocks_by_hand)


# %% tags=["solution"]
def to_blocks_by_hand_answer(documents, length, cls, sep):
    stream = []
    for document in documents:
        if stream:
            stream.append(sep)  # between documents, not after the last
        stream += document
    room = length - 2  # [CLS] and [SEP] stand around it
    starts = range(0, len(stream) - room + 1, room)
    return [[cls, *stream[k : k + room], sep] for k in starts]


check.to_blocks_by_hand(to_blocks_by_hand_answer)

# %% [markdown]
# The library's `to_blocks` does the same (it only leaves out a [SEP] that would open a block) for corpora that are larger than your memory: the blocks lie
# in a file on disk that is read where it lies (an Arrow file, by the library Datasets), and they are made once.
# It says what it has kept; a packing that drops text silently is a common fault.

# %% tags=["nbval-ignore-output"]
options = {"length": size["length"]}
blocks = to_blocks(corpus, tokenizer, **options)
unread = to_blocks(read_corpus("pydocs", split="dev", say=str), tokenizer, **options)

# %%
block = blocks[0]["input_ids"]
claim("a block begins with [CLS]", block[0] == tokenizer.cls_token_id)
claim("and ends with [SEP]", block[-1] == tokenizer.sep_token_id)
claim("no token is [PAD]", tokenizer.pad_token_id not in np.unique(blocks[:1000]["input_ids"]))

# %% [markdown]
# `read_corpus` also takes a text file, a folder of them, `wikitext2` where you have a mirror, and
# `wikipedia` or `bookcorpus`, which stream from the Hub and are never on your disk as a whole.
#
# ## Hidden words
#
# Of the tokens in a block, 15 % are *chosen*. The model is asked for these, and for no others. Of the
# chosen, 80 % become [MASK], 10 % become some other token, and 10 % stay as they are. The last two
# look odd. They are there because texts in use hold no [MASK]: a model that trusts every token which
# is not [MASK] would stop looking at them.
#
# ### Exercise: 80, 10, 10
#
# > Difficulty: medium · about 15 minutes
#
# `ids` are (B, S). `special` is a tuple of ids that are never chosen and never drawn, and `mask_id` is
# one of them. Labels are the old ids where a token was chosen, and −100 elsewhere. Draw all random
# numbers from `generator`.


# %%
def mask_tokens_by_hand(ids, special, mask_id, vocab_size, share, generator):
    """(masked ids, labels): of the chosen, 80 % become [MASK], 10 % a random token, 10 % stay."""
    # solution
    special = torch.tensor(special)
    chosen = torch.rand(ids.shape, generator=generator) < share
    chosen &= ~torch.isin(ids, special)
    fate = torch.rand(ids.shape, generator=generator)
    ordinary = torch.arange(vocab_size)
    ordinary = ordinary[~torch.isin(ordinary, special)]
    drawn = ordinary[torch.randint(len(ordinary), ids.shape, generator=generator)]
    masked = torch.where(chosen & (fate < 0.9), drawn, ids)
    masked = torch.where(chosen & (fate < 0.8), mask_id, masked)
    return masked, torch.where(chosen, ids, -100)


# %%
check.mask_tokens_by_hand(mask_tokens_by_hand)


# %% tags=["solution"]
def mask_tokens_by_hand_answer(ids, special, mask_id, vocab_size, share, generator):
    special = torch.tensor(special)
    chosen = torch.rand(ids.shape, generator=generator) < share  # (B, S)
    chosen &= ~torch.isin(ids, special)
    fate = torch.rand(ids.shape, generator=generator)
    ordinary = torch.arange(vocab_size)
    ordinary = ordinary[~torch.isin(ordinary, special)]
    drawn = ordinary[torch.randint(len(ordinary), ids.shape, generator=generator)]
    masked = torch.where(chosen & (fate < 0.9), drawn, ids)  # 90 % are replaced,
    masked = torch.where(chosen & (fate < 0.8), mask_id, masked)  # 80 % by [MASK]
    return masked, torch.where(chosen, ids, -100)


check.mask_tokens_by_hand(mask_tokens_by_hand_answer)

# %% [markdown]
# BERT's authors masked their corpus once, ten times over, and read each copy four times. RoBERTa's
# drew new masks every time a text was read: [*dynamic masking*](../docs/glossary.md#dynamic-masking). It costs nothing, and a text that is
# read ten times asks ten different questions. Here is one block of ours in three epochs.

# %%
story = (
    "The parser reads a file line by line and returns the first line that it cannot understand. "
    "If the file is empty, it returns nothing."
)
one = Dataset.from_dict({"input_ids": [tokenizer(story)["input_ids"]]})
shown = MaskedBlocks(one, tokenizer, seed=2)
epochs = {}
for epoch in range(3):
    shown.set_epoch(epoch)
    item = shown[0]
    seen = tokenizer.convert_ids_to_tokens(item["input_ids"].tolist())
    epochs[f"epoch {epoch}"] = (seen, (item["labels"] != -100).tolist())
show(
    figures.masking_figure(tokenizer.convert_ids_to_tokens(one[0]["input_ids"]), epochs),
    alt="A sentence about a parser, token by token, four times: as it is, and as the model reads it in three "
    "epochs. In each epoch other tokens are asked for; most of them are replaced by [MASK].",
)

# %% [markdown]
# Where does the chance come from? If from one generator that runs along with the training, then what
# is hidden in a block depends on all that was drawn before it: on the order of the batches, on the
# number of processes that load data, and on where a training was interrupted. None of that can be
# repeated. So we want a mask that is a function of three numbers: the **seed**, the [**epoch**](../docs/glossary.md#epoch), and the
# **number** of the block.
#
# ### Exercise: a mask that knows its place
#
# > Difficulty: medium · about 12 minutes


# %%
def masks_for(seed, epoch, number, length, share):
    """Which of the `length` tokens of block `number` are hidden in this epoch, (length,) bool."""
    # solution
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + number
    generator = torch.Generator().manual_seed(mixed)
    return torch.rand(length, generator=generator) < share


# %%
check.masks_for(masks_for)


# %% tags=["solution"]
def masks_for_answer(seed, epoch, number, length, share):
    # 1 + 0 + 0 and 0 + 1 + 0 must not meet: so no sum, but digits of a large base
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + number
    generator = torch.Generator().manual_seed(mixed)
    return torch.rand(length, generator=generator) < share


check.masks_for(masks_for_answer)

# %% [markdown]
# `MaskedBlocks` is the library's version; it mixes the three numbers with a hash, for whole batches at
# once. Read forwards, backwards, or by two workers, an item is the same.

# %%
masked = MaskedBlocks(blocks, tokenizer)
forwards = masked.__getitems__([0, 1, 2, 3])
backwards = masked.__getitems__([3, 2, 1, 0])[::-1]
by_workers = list(DataLoader(masked, 2, sampler=range(4), num_workers=2))
loaded = [ids for batch in by_workers for ids in batch["input_ids"]]
same = [
    torch.equal(a["input_ids"], b["input_ids"]) and torch.equal(a["input_ids"], c)
    for a, b, c in zip(forwards, backwards, loaded)
]
claim("an item does not depend on order or workers", all(same))
masked.set_epoch(1)
again = masked.__getitems__([0, 1, 2, 3])
claim(
    "in the next epoch every one of them is another",
    not any(map(lambda a, b: torch.equal(a["labels"], b["labels"]), forwards, again)),
)
masked.set_epoch(0)

# %% [markdown]
# ## The loop in thirty lines
#
# Everything that DistilBERT's training needs fits on a screen. Read it line by line; each is explained
# below.

# %%
dtype = getattr(torch, machine.describe().dtype)
fast = torch.autocast(device, dtype, enabled=dtype != torch.float32)
frozen = copy.deepcopy(teacher).to(dtype).eval().requires_grad_(False)


def train_by_hand(student, batches, recipe):
    """The loss of each step."""
    student.train()
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    betas, epsilon = recipe.betas, recipe.epsilon
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=recipe.learning_rate, betas=betas, eps=epsilon, weight_decay=0.0
    )
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, recipe.steps)
    losses = []
    for batch in islice(batches, recipe.steps):
        ids, labels = batch["input_ids"].to(device), batch["labels"].to(device)  # (B, S)
        at = labels != -100  # (B, S), N of them true
        with torch.no_grad():
            theirs = frozen(input_ids=ids, output_hidden_states=True)
        with fast:
            ours = student(input_ids=ids, output_hidden_states=True)
        soft = soft_kl(ours.logits[at], theirs.logits[at], temperature=2.0).mean()
        masked_lm = hard_cross_entropy(ours.logits[at], labels[at]).mean()
        cosine = hidden_cosine(ours.hidden_states[-1], theirs.hidden_states[-1])
        loss = 5 * soft + 2 * masked_lm + 1 * cosine
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), recipe.max_grad_norm)
        optimizer.step()
        slower.step()
        losses.append(loss.item())
    return losses


# %% [markdown]
# - **The teacher** is frozen, in eval mode, under `no_grad`, in the data type in which this machine is
#   fast. A teacher with dropout says something else each time it is asked.
# - **The student** trains without dropout: a small model that reads its corpus once does not overfit.
# - **β₂ = 0.98, ε = 10⁻⁶** are the original's: Adam forgets faster, for the gradients change faster.
# - **`at`** are the chosen tokens. Masked LM looks there and nowhere else. Here the soft loss does, too;
#   the original compares the two models at every token.
# - **The cosine** is over all tokens: it needs no label.
# - **Clipping at 5** caps the length of the gradient; at the start, it is often longer than that.
# - **The learning rate** falls in a straight line to 0. In longer runs it rises first (warm-up).
#
# ### Exercise: one step, nothing forgotten
#
# > Difficulty: medium · about 15 minutes
#
# Write one step with soft loss and masked LM, weights 1 and 1. Both models answer with `.logits`. They
# arrive in the wrong modes: the teacher in train mode, the student in eval mode.


# %% tags=["slide-training-step"]
def training_step(student, teacher, batch, optimizer, temperature):
    """The loss of one step: soft (with T²) + masked LM, means over the tokens with a label."""
    # solution
    student.train()
    teacher.eval()
    ids, labels = batch["input_ids"], batch["labels"]
    at = labels != -100  # (B, S), N of them true
    with torch.no_grad():
        target = teacher(input_ids=ids).logits[at]  # (N, V)
    logits = student(input_ids=ids).logits[at]  # (N, V)
    log_q = (logits / temperature).log_softmax(-1)
    p = (target / temperature).softmax(-1)
    soft = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    loss = soft + F.cross_entropy(logits, labels[at])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


# %%
check.training_step(training_step)


# %% tags=["solution"]
def training_step_answer(student, teacher, batch, optimizer, temperature):
    student.train()
    teacher.eval()
    ids, labels = batch["input_ids"], batch["labels"]
    at = labels != -100  # (B, S), N of them true
    with torch.no_grad():
        target = teacher(input_ids=ids).logits[at]  # (N, V)
    logits = student(input_ids=ids).logits[at]  # (N, V)
    log_q = (logits / temperature).log_softmax(-1)
    p = (target / temperature).softmax(-1)
    soft = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    loss = soft + F.cross_entropy(logits, labels[at])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


check.training_step(training_step_answer)

# %% [markdown]
# ## The same through a trainer
#
# `distil_mlm` is that loop on top of transformers' `Trainer`, which adds what a long training needs: logs,
# checkpoints, several processes, accumulation. A `PretrainRecipe` says how; what it leaves out is as in
# the original. If it is the same training, it must have the same losses, step by step, on the same
# batches. (The seed decides on their order. The loop by hand borrows it from a sampler with that seed.)

# %%
N = 3 if small else 8
eight = PretrainRecipe(steps=N, batch_size=8, learning_rate=5e-4, warmup=0.0, log_every=1)
start = student_from_teacher(teacher, layers=size["layers"])
order = SeedableRandomSampler(masked, data_seed=eight.seed)
batches = DataLoader(masked, eight.batch_size, sampler=order)

by_hand = copy.deepcopy(start)
began = time.perf_counter()
hand_losses = train_by_hand(by_hand, batches, eight)
hand_speed = N * 8 * size["length"] / (time.perf_counter() - began)

by_trainer = copy.deepcopy(start)
log = distil_mlm(by_trainer, teacher, masked, eight, progress=False)
trainer_losses = [line["total"] for line in log]

# %%
apart = max(abs(a - b) / b for a, b in zip(trainer_losses, hand_losses))
claim("step by step, the losses of loop and trainer are within 1 %", apart < 0.01)

# %% tags=["nbval-ignore-output"]
for step, pair in enumerate(zip(hand_losses, trainer_losses), start=1):
    print(f"step {step}   by hand {pair[0]:8.4f}   trainer {pair[1]:8.4f}")
trainer_speed = np.median([line["tokens_per_s"] for line in log])
print(f"tokens per second: by hand {hand_speed:,.0f}, trainer {trainer_speed:,.0f}")

# %% [markdown]
# The speed by hand is that of all steps together, the trainer's is the median of its steps. The last digits differ: where the machine computes in 16 bits, a sum in another order rounds
# otherwise. And the trainer is faster, for one reason above all. The loop computes logits over 30 522
# words for *every* token, and then looks at 15 % of them. The trainer picks the hidden states first and
# shows only those to the head, the student's and the teacher's. (`course bench mlm` measures that for
# BERT-base, beside the way the original did it.)
#
# ## Watching it learn
#
# Now the real run. While it goes, the dashboard shows the loss and its parts, the learning rate, the
# speed, and what the student makes of three sentences. On two cores it reads a tenth of the
# blocks once: as many steps as fit into a minute.

# %%
gaps = [
    "Returns the [MASK] of the elements along the given axis.",
    "If the file does not exist, an [MASK] is raised.",
    "The default [MASK] is None.",
]
recipe = PretrainRecipe(
    steps=size["steps"],
    batch_size=size["batch"],
    accumulation=2 if machine.profile() == "gpu" else 1,
    learning_rate=1e-3 if ours else 5e-4,
    temperature=2.0,
    soft=5.0,
    hard=2.0,
    cosine=1.0,
)
dashboard = Dashboard(tokenizer, gaps, every=max(1, size["steps"] // 3))

# %% tags=["nbval-ignore-output", "slide-train"]
student = copy.deepcopy(start)
logs = {}
logs["with its teacher"] = distil_mlm(
    student, teacher, masked, recipe, progress=False, callbacks=[dashboard]
)

# %% tags=["slide-dashboard"]
show(
    dashboard.figure(),
    alt="The dashboard at the end: the loss and its parts fall, fast at first; the learning rate rises and "
    "falls; tokens per second vary; and the guesses for three gaps become more probable, but not all fit.",
)

# %%
parts = ("total", "soft", "masked_lm", "cosine")
first, last = (logs["with its teacher"][k] for k in (0, -1))
for part in parts:
    claim(f"{part}: lower at the end than at the beginning", small or last[part] < first[part])

# %% [markdown]
# A line of the log holds all three parts and three numbers about speed. **Tokens per second** tell how
# long you will wait. The **share of padding** is 0, because of the blocks. [**MFU**](../docs/glossary.md#mfu), model FLOPs
# utilization, tells whether you wait for arithmetic: the operations that the two models need per second,
# as a share of what the machine does when it multiplies large matrices and nothing else. The rest
# goes into everything that is no matrix product: softmax, LayerNorm, moving numbers around, the
# optimizer.

# %% tags=["nbval-ignore-output", "slide-log-line"]
line = logs["with its teacher"][-1]
for name in (
    "step",
    "total",
    "soft",
    "masked_lm",
    "cosine",
    "tokens_per_s",
    "padding_share",
    "mfu",
):
    print(f"{name:>14}: {line[name]:,.3f}")

# %% [markdown]
# ## Was it the teacher?
#
# The loss fell. That proves little. Three questions are open, and each needs a [*control*](../docs/glossary.md#control): another
# student that differs in one thing.
#
# - Would it have learned as much from the text alone? **Without a teacher**: the same start, the same
#   blocks, the same masks, the same steps, and the masked-LM loss alone.
# - Did it need its teacher's weights? **Random start**: the same teacher; words, layers and head drawn anew.
# - Had it known it all before? **Untrained**: the student at step 0.

# %% tags=["nbval-ignore-output"]
alone = copy.deepcopy(start)
logs["without a teacher"] = distil_mlm(alone, None, masked, recipe, progress=False)

torch.manual_seed(0)
from_nothing = type(start)(start.config).to(device)
logs["random start"] = distil_mlm(from_nothing, teacher, masked, recipe, progress=False)

# %% tags=["slide-losses"]
show(
    figures.losses_figure(logs),
    alt="Three panels, one per part of the loss, and a line for each run that has it. Starting from random weights, all "
    "parts stay far above those of the student made of its teacher's layers.",
)

# %% [markdown]
# Their losses cannot be compared: they are made of different parts, on text they train on. So all are
# asked about the same hidden words of text that none of them has read. [**Perplexity**](../docs/glossary.md#perplexity) is exp(mean
# loss): 50 means as unsure as between 50 words that are equally likely. **Agreement** is the share of
# gaps where a student's first guess is its teacher's. The intervals come from resampling blocks:
# words in one block depend on each other.

# %%
questions = MaskedBlocks(unread.select(range(min(len(unread), size["asked"]))), tokenizer, seed=7)
models = {
    "teacher": teacher,
    "with its teacher": student,
    "without a teacher": alone,
    "random start": from_nothing,
    "untrained": start,
}
guesses = {name: guess(model, questions) for name, model in models.items()}
scores = {
    name: score_guesses(g, teacher=None if name == "teacher" else guesses["teacher"])
    for name, g in guesses.items()
}

# %% tags=["slide-controls"]
show(
    figures.controls_figure(scores),
    alt="Perplexity and agreement of five models with intervals. The teacher is best; the student with its "
    "teacher comes next, the same student without a teacher behind it; untrained and random start are far off.",
)

# %% [markdown]
# The intervals are wide for a reason that has nothing to do with the models: some blocks are harder
# than others, for all of them. But all were asked the same, so we may compare them in *pairs*, block by
# block, as notebook 04 did with seeds. What is left is the ratio of two perplexities, and it is known
# much better than either.

# %% tags=["nbval-ignore-output", "slide-leads"]
leads = {
    name: compare_guesses(guesses["with its teacher"], guesses[name], teacher=guesses["teacher"])
    for name in ("without a teacher", "random start", "untrained")
}
for name, lead in leads.items():
    ratio, *ends = (lead[f"perplexity_ratio{end}"] for end in ("", "_low", "_high"))
    gain = 100 * lead["agreement_gain"]
    print(
        f"against {name:>17}: perplexity × {ratio:.2f} ({ends[0]:.2f} to {ends[1]:.2f}),", end=" "
    )
    print(f"agreement {gain:+.1f} points")

# %%
for name, lead in leads.items():
    below, above = lead["perplexity_ratio_high"] < 1, lead["agreement_gain_low"] > 0
    claim(f"against {name}: a lower perplexity, outside the interval", small or below)
    claim(f"against {name}: a higher agreement, outside the interval", small or above)

# %% [markdown]
# For these trainings it was the teacher; and it was the inherited weights even more. (The intervals are over
# texts. Each student was trained once, and what other seeds would change is not in them.) In the paper's ablation, too, the random
# start cost most (−3.69 points of GLUE), more than any part of the loss. Be careful with the other
# comparison. *At equal steps* the
# taught student is ahead. It pays for that with the teacher's forward pass in every step, and a
# student without a teacher could have used that time for more text. And most of its loss pulls it to a
# teacher that has itself read only a part of this corpus, once. Given enough text and time, the one without
# a teacher may well overtake it. The original's teacher had seen forty epochs of everything.
#
# What did it learn in words? The guesses of the dashboard, once more, beside the teacher's. The
# student has become surer than at step 0, and of what its teacher says, right or wrong.

# %% tags=["nbval-ignore-output", "slide-guesses"]
for k, gap in enumerate(gaps):
    print(gap)
    said = {f"step {step}": words[k][0] for step, words in dashboard.seen.items()}
    for who, words in (said | {"teacher": top_guesses(teacher, tokenizer, gap)[0]}).items():
        print(f"{who:>12}:", ", ".join(f"{word} {prob:.0%}" for word, prob in words[:3]))

# %% [markdown]
# ## Larger batches than fit
#
# Memory bounds the batch. [*Accumulation*](../docs/glossary.md#gradient-accumulation) adds up the gradients of several small batches before the
# optimizer steps; the result must be that of one large batch. It is, if the losses are divided by the
# right number. Each small batch has its own number of hidden words. A mean of means gives the words
# of a batch with few of them more weight. For a long time most training code had this fault,
# Transformers until October 2024.
#
# ### Exercise: accumulate
#
# > Difficulty: hard · about 15 minutes
#
# The model answers with `.logits`, (B, S, V); the loss is the masked LM of all labels of the step.


# %% tags=["slide-accumulate"]
def accumulate(model, micro_batches, optimizer):
    """The masked-LM loss of one optimizer step made of several micro-batches, as of one batch."""
    # solution
    n = sum((batch["labels"] != -100).sum().item() for batch in micro_batches)
    optimizer.zero_grad()
    total = 0.0
    for batch in micro_batches:
        logits, labels = model(input_ids=batch["input_ids"]).logits, batch["labels"]
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / n
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


# %%
check.accumulate(accumulate)


# %% tags=["solution"]
def accumulate_answer(model, micro_batches, optimizer):
    n = sum((batch["labels"] != -100).sum().item() for batch in micro_batches)  # of the whole step
    optimizer.zero_grad()  # once, before the first
    total = 0.0
    for batch in micro_batches:
        logits, labels = model(input_ids=batch["input_ids"]).logits, batch["labels"]
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / n
        loss.backward()  # gradients add up
        total += loss.item()
    optimizer.step()  # once, after the last
    return total


check.accumulate(accumulate_answer)

# %%
shapes = {"1 × 32": (32, 1), "4 × 8": (8, 4)}
losses = {}
for name, (batch_size, accumulation) in shapes.items():
    short = replace(
        eight, steps=2 if small else 3, batch_size=batch_size, accumulation=accumulation
    )
    model = copy.deepcopy(start)
    losses[name] = [e["total"] for e in distil_mlm(model, teacher, masked, short, progress=False)]
apart = max(abs(a - b) / b for a, b in zip(*losses.values()))
claim("4 batches of 8 train like 1 of 32, within 1 %", apart < 0.01)

# %% [markdown]
# ## Killed, and carried on
#
# A training that takes days will be interrupted: a power cut, a full disk, Colab's clock. What must be
# on disk so that nothing is lost but minutes? The weights, and then all the rest that decides what
# happens next: the optimizer's averages, the learning rate's place on its line, the state of every
# random generator, the place in the data. Masks need nothing: they know their place.
#
# It must also *arrive* on disk. A process can die in the middle of writing. So a [*checkpoint*](../docs/glossary.md#checkpoint) is written
# into a hidden folder and renamed when it is complete: a renaming happens as a whole or not at all.
# With it goes a manifest, the hash of every file; a checkpoint that was damaged later is found out,
# named and skipped.
#
# Let us do it. A training in a process of its own, started as you would start it in a terminal:
# `course distill-mlm`, whose settings are in a file. We wait until it is past its middle. Then we kill
# it. It is not asked; it gets no chance to clean up.

# %%
work = Path(tempfile.mkdtemp())
STEPS = 12 if small else 30
settings = work / "settings.toml"
settings.write_text(f"""
teacher = "{size["teacher"]}"
layers = {size["layers"]}
length = {size["length"]}
held_out_blocks = 32
out = "{(work / "killed").as_posix()}"

[recipe]
steps = {STEPS}
batch_size = {size["batch"] // 2}
learning_rate = 5e-4
warmup = 0.2
log_every = 1
save_every = {STEPS // 6}
""")
command = [sys.executable, "-m", "course_utils", "distill-mlm", "--config", str(settings)]
print("course", *command[3:5], settings.name)

# %% tags=["nbval-ignore-output"]
with open(work / "progress.txt", "w") as progress:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=progress)
killed_at = 0
while killed_at < STEPS * 0.6 and process.poll() is None:
    time.sleep(0.05)
    said = (work / "progress.txt").read_text(errors="replace")
    killed_at = max([0, *map(int, re.findall(rf"\b(\d+)/{STEPS} ", said))])
process.kill()
process.wait()
checkpoints = work / "killed" / "checkpoints"
print(f"killed after step {killed_at}; on disk:", *sorted(p.name for p in checkpoints.iterdir()))

# %%
claim("the process did not end by itself", small or process.returncode != 0)
claim("it left a checkpoint", any(checkpoints.glob("checkpoint-*")))
claim("and no student", small or not (work / "killed" / "student").exists())

# %% [markdown]
# A name that begins with a dot is hidden. If there is one that begins with `.checkpoint`, we hit the
# process while it was writing: that folder is torn, never got its name, and the next run sweeps it
# away.

# %% [markdown]
# ### Exercise: where to go on
#
# > Difficulty: easy · about 8 minutes
#
# `find_trouble(path)` says in words what is wrong with a checkpoint, and `None` if it is whole. `folder`
# is a `Path`; checkpoints are called `checkpoint-` and the step.


# %%
def newest_valid(folder):
    """The path of the newest checkpoint in `folder` that is whole, None where there is none."""
    # solution
    whole = [path for path in folder.glob("checkpoint-*") if find_trouble(path) is None]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


# %%
check.newest_valid(newest_valid)


# %% tags=["solution"]
def newest_valid_answer(folder):
    whole = [path for path in folder.glob("checkpoint-*") if find_trouble(path) is None]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)  # as numbers


check.newest_valid(newest_valid_answer)

# %% [markdown]
# To carry on, start the same run again. Here we do it in this notebook: `pretraining.run` is what the
# command calls. Then once more from the beginning, in another folder, without a kill. Are the two
# students the same?

# %%
found = {path.name: find_trouble(path) for path in sorted(checkpoints.glob("checkpoint-*"))}
resumed_from = max(int(name.split("-")[1]) for name, trouble in found.items() if trouble is None)
config = read_settings(settings, pretraining.Pretraining)
resumed = pretraining.run(config, say=str, progress=False)
whole = pretraining.run(replace(config, out=str(work / "whole")), say=str, progress=False)
claim(
    "the resumed student has every bit of the one never stopped",
    resumed["student"] == whole["student"],
)

# %% tags=["slide-resume"]
before = [line for line in resumed["log"] if line["step"] <= resumed_from]
show(
    figures.resume_figure(
        before, resumed["log"], whole["log"], killed_at=killed_at, resumed_from=resumed_from
    ),
    alt="The loss of a run that was never stopped as a broad grey line. On it lies the run that was killed, and "
    "from its last checkpoint on the run that was resumed: the line does not show where.",
)

# %% [markdown]
# `resumed["student"]` is the hash of all weights. One wrong bit, one other mask, one step at another
# learning rate would have changed it. (Bit for bit holds on one machine with one number of threads.)
#
# **On Colab**, a session ends when it pleases Google, and its disk goes with it. Mount your Drive and
# give the run a folder there; after an interruption, run the same cells again:
#
# ```python
# from google.colab import drive
# drive.mount("/content/drive")
# student = copy.deepcopy(start)
# distil_mlm(student, teacher, masked, recipe, out="/content/drive/MyDrive/shrinking-bert")
# ```
#
# The tick `keep_on_drive` in the first cell of this page mounts it too: prepared teachers and your progress
# are then kept there.
#
# The `gpu` size of this page is made for at most 45 minutes on a T4, all three trainings together.
# That is planned from its arithmetic, not measured; `make gpu-results` measures it on the GPU you have.
# For curves beside the dashboard, install tensorboard (or wandb), say `out=` and `report_to="tensorboard"`
# (or `"wandb"`), and run `tensorboard --logdir` on the folder.
#
# ## From here to the real thing
#
# The settings file that you have just used is the whole interface. `configs/distilbert.toml` holds
# DistilBERT's own: Wikipedia and BookCorpus, twelve layers into six. Several processes, each with its
# share of every step, are one word more:
#
# ```bash
# course distill-mlm --config configs/pydocs.toml
# torchrun --nproc_per_node 2 -m course_utils distill-mlm --config configs/pydocs.toml
# ```
#
# The gradients are averaged by PyTorch's DDP, once per step, and the curve is that of one process with
# the same total batch. (Beware of `accelerate launch --cpu --num_processes 2`: it starts one process,
# without a word.) Out of memory? `find_batch_size = true` makes the batch a tenth
# smaller, again and again, until it fits.
#
# What would it take? `docs/full_run.md` plans it: tokens, operations, hours and dollars on a T4, an
# A100 and eight H100, and says of each number whether it was measured, computed or assumed.
#
# ## What to take away
#
# 1. Pack text into blocks; padding is work for nothing, and cutting is text thrown away. Print the share you keep.
# 2. A mask that depends on seed, epoch and number alone makes a training repeatable, in any order and after any stop.
# 3. Pick the hidden states before the head: logits over all words at every token are most of the memory and much of the time.
# 4. Without a control, a falling loss says nothing about the teacher.
# 5. A checkpoint holds everything that decides the next step, is renamed when it is whole, and proves it by its hashes.
#
# ## Three questions
#
# Read a question, then answer it in a cell of your own: `quiz.tokens_or_mfu("a")`.

# %%
quiz.tokens_or_mfu()

# %%
quiz.what_a_checkpoint_holds()

# %%
quiz.reading_a_perplexity()

# %% [markdown]
# ## To read
#
# - Sanh, Debut, Chaumond, Wolf (2019), *DistilBERT*: sections 3 and 4; the code is in their research projects.
# - Liu and others (2019), *RoBERTa*: section 4 on dynamic masking, large batches, and text without padding.
# - Chowdhery and others (2022), *PaLM*: appendix B defines MFU.
# - Izsak, Berchansky, Levy (2021), *How to Train BERT with an Academic Budget*: what one GPU day can do.
