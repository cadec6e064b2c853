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
# # 03 · The distillation loss
#
# > **About 95 minutes**, of which your computer works for about two (one more the first time, to train
# > a teacher). A network is not needed. You should know what a gradient is, and have seen notebook 00.
#
# When you reach the end of this page you will have
#
# - softened a teacher's answers with a temperature, and read the doubts of a real one,
# - computed entropy, cross-entropy and KL by hand, and seen what each direction of KL wants,
# - derived the gradient of the soft loss in four lines, and with it the factor T²,
# - averaged a loss so that neither padding nor batches change it,
# - taken DistilBERT's triple loss apart, and left out its parts one by one,
# - judged ten loss functions, of which eight are wrong.
#
# Every line of mathematics here is followed by a cell that checks it.

# %% tags=["setup"]
import warnings

warnings.filterwarnings("ignore")

import math
from dataclasses import replace

import pandas as pd
import torch
import torch.nn.functional as F
from torch.autograd import grad
from torch.autograd.functional import jacobian
from transformers.utils import logging

from course_utils import machine
from course_utils.classroom import check, claim, show_source
from course_utils.classroom import loss_figures as figures
from course_utils.classroom.fault_trials import TRIALS
from course_utils.classroom.faults import LOSSES
from course_utils.classroom.hand import legend, near
from course_utils.classroom.lines import Panel, lines_figure
from course_utils.classroom.plots import show, use_style
from course_utils.classroom.quiz import quiz
from course_utils.data.encoding import EncodedTexts, encode
from course_utils.data.sources import find_data
from course_utils.data.tasks import load_task
from course_utils.distill import losses as library
from course_utils.distill.cache import teacher_signals
from course_utils.distill.trainer import Recipe, train
from course_utils.models.classifier import TorchClassifier
from course_utils.models.student import matched_layers, student_from_teacher
from course_utils.prepared import pydocs_teacher

logging.set_verbosity_error()
logging.disable_progress_bar()
machine.use_all_cores()
use_style()
small = machine.profile() == "smoke"

# %% [markdown]
# ## From logits to beliefs
#
# The last layer of a classifier gives one number per class, the *logits*. They may have any size and
# sign. The *softmax* makes probabilities of them: exp makes them positive, dividing by the sum makes
# them add up to 1.

# %%
classes = ["numpy", "scipy", "torch"]
logits = torch.tensor([[4.0, 2.0, 1.0]])
legend(torch.cat([logits, logits.exp(), logits.softmax(-1)]), ["logit", "exp", "softmax"], classes)

# %% [markdown]
# Only differences count: the ratio of two probabilities is $e^{z_i - z_j}$. So we may add any number
# to all logits. We *should*, because exp is soon too large for the computer:

# %%
claim(
    "100 more on each logit changes nothing", near((logits + 100).softmax(-1), logits.softmax(-1))
)
large = torch.tensor([1000.0, 999.0])
print("exp(z) / sum:            ", large.exp() / large.exp().sum())
print("the largest taken off:   ", (large - 1000).exp() / (large - 1000).exp().sum())

# %% [markdown]
# The *temperature* T divides the logits before the softmax (Hinton, Vinyals and Dean 2015, eq. 1):
#
# $$p_i = \frac{e^{z_i/T}}{\sum_j e^{z_j/T}}, \qquad \frac{p_i}{p_j} = e^{(z_i-z_j)/T}$$

# %% tags=["slide-temperatures"]
temperatures = [0.25, 1.0, 2.0, 4.0, 20.0]
table = torch.cat([(logits / T).softmax(-1) for T in temperatures])
legend(table, [f"T={T:g}" for T in temperatures], classes)

# %%
claim("the order of the classes never changes", bool((table.diff(dim=1) < 0).all()))

# %% [markdown]
# Cold, the winner takes all. Hot, all classes become alike. T = 1 is how a model is trained on labels
# and used. Nothing is lost on the way: from any T you can go back to any other.
#
# ### Exercise: soften
#
# > Difficulty: easy · about 8 minutes
#
# Logits (..., C), a temperature; return probabilities. It must work for logits of 1000. Write it
# without `torch.softmax` if you can.


# %%
def soften(logits, temperature):
    # solution
    scaled = logits / temperature
    exponentials = (scaled - scaled.max(dim=-1, keepdim=True).values).exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


# %%
check.soften(soften)


# %% tags=["solution"]
def soften_answer(logits, temperature):
    scaled = logits / temperature
    exponentials = (scaled - scaled.max(dim=-1, keepdim=True).values).exp()  # the largest is 1
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


check.soften(soften_answer)

# %% [markdown]
# ## What a teacher says
#
# Our teacher is the one of notebook 00: MiniLM, trained to say which of eight Python libraries a
# paragraph of documentation is from. It now reads texts that it has not seen. The text of which the bars
# are drawn is ours, from the *probes*: sentences written for this course. The curves below them are means
# over PyDocs.

# %%
teacher = TorchClassifier(pydocs_teacher(say=lambda line: None), name="teacher")
task = load_task("pydocs", say=lambda line: None, progress=False)
N_TEXTS = {"smoke": 160, "cpu": 480, "gpu": 2800}[machine.profile()]
texts, labels = task.test["text"][:N_TEXTS], torch.tensor(task.test["label"][:N_TEXTS])
t = torch.from_numpy(teacher.predict(texts))  # (N, 8): the teacher's logits

# %% tags=["slide-temperature"]
probes = load_task("probes", say=lambda line: None)
doubtful = probes.test["text"][:]
print(doubtful[29])
one = torch.from_numpy(teacher.predict([doubtful[29]]))[0]  # (8,)
fig = figures.temperature_figure(one, t, task.labels, name="“Computes the exponential …”")
show(
    fig,
    alt="Bars of eight probabilities at four temperatures: at a quarter one class has nearly all, at "
    "20 all are nearly alike. Below, the mean entropy rises with T towards its maximum, and the "
    "share of the best one, two and three classes falls.",
)

# %% [markdown]
# Move T yourself, from 0.25 to 20. (In a page without a kernel, the figure stands for the slider.) At which T
# do *you* find that it says most?

# %%
figures.temperature_slider(one, t, task.labels, name="“Computes the exponential …”")

# %%
means = figures.softened(t, [1.0, 2.0, 20.0])
entropies, best = means["entropy"], means["top 1"]
claim("from T = 1 to T = 2 the entropy grows", entropies[1] > entropies[0])
claim("at T = 20 the best class has less than a quarter", small or best[2] < 0.25)

# %% [markdown]
# ### Hard and soft targets
#
# A [*hard target*](../docs/glossary.md#hard-target) is the number of a class: a label, or the teacher's first choice. A [*soft target*](../docs/glossary.md#soft-target) is a
# whole distribution. Read these sentences and make up your own before you look: which library, and which
# others could it be?

# %%
for k in (29, 31, 83):
    print(f"{k:2}  {doubtful[k]}")

# %% tags=["nbval-ignore-output", "slide-beliefs"]
beliefs = torch.from_numpy(teacher.predict(doubtful)).softmax(-1)
for k in (29, 31, 83):
    top = beliefs[k].topk(3)
    says = ", ".join(f"{task.labels[c]} {p:.2f}" for p, c in zip(top.values, top.indices.tolist()))
    print(f"{k:2}  written about {probes.labels[probes.test['label'][k]]}; the teacher: {says}")

# %% [markdown]
# On your machine, the next cell looks in PyDocs for the passages on which the teacher comes closest to *0.5 for
# one library, 0.3 for a second, 0.1 for a third*. Read them. Would you put it otherwise?

# %% tags=["corpus-text"]
p, order = t.softmax(-1).sort(descending=True)
unlike = (p[:, :3] - torch.tensor([0.5, 0.3, 0.1])).abs().sum(-1)
for k in unlike.argsort()[:3].tolist():
    says = [f"{task.labels[c]} {share:.2f}" for c, share in zip(order[k, :3].tolist(), p[k])]
    print(f"{', '.join(says)}; from {task.labels[labels[k]]}\n   {texts[k]}\n")

# %% [markdown]
# ### Is doubt knowledge?
#
# The teacher learned from labels with *one* right answer each. Hinton called what it knows beyond them
# **dark knowledge**. Is it knowledge, or noise? Whoever wrote the probes noted, for many of them, a second
# library that would be plausible too. The teacher has never seen that column. Of the seven libraries that
# a sentence is *not* about, where does it rank the second one?

# %%
folder = find_data("probes", say=lambda line: None).path
rows = pd.concat(
    pd.read_csv(folder / f"{s}.tsv", sep="\t", quoting=3) for s in ("train", "dev", "test")
)
rows = rows[rows["second"].notna()]
first, second = (torch.tensor(rows[c].map(task.labels.index).tolist()) for c in ("label", "second"))
others = torch.from_numpy(teacher.predict(rows["text"].tolist()))
others = others.scatter(1, first[:, None], -math.inf)  # (N, 8), the library itself left out
rank = 1 + (others > others.gather(1, second[:, None])).sum(-1)

# %% tags=["nbval-ignore-output"]
print(f"{len(rows)} sentences; mean rank {rank.float().mean():.2f}, by chance it would be 4")
print(f"first of the seven: {(rank == 1).float().mean():.0%}, by chance {1 / 7:.0%}")

# %%
claim(
    "the second library is ranked first twice as often as by chance",
    small or (rank == 1).float().mean() > 2 / 7,
)

# %% [markdown]
# It is knowledge. Averaged over many texts, the doubts draw a map of which libraries resemble each other: on
# the left the teacher's soft labels on PyDocs, on the right what the writer of the probes noted by hand.

# %% tags=["slide-map"]
noted = torch.zeros(8, 8).index_put((first, second), torch.ones(len(rows)), accumulate=True)
maps = {
    "the teacher's soft labels": figures.likeness(t.softmax(-1), labels),
    "the writer's second labels": noted / noted.sum(1, keepdim=True),
}
show(
    figures.likeness_figure(maps, task.labels),
    alt="Two maps of eight libraries by eight. Rows are a text's own library, columns the one it is "
    "taken for otherwise. In the teacher's, scikit-learn and scipy go to each other, and so do torch "
    "and transformers. In the writer's, too, transformers goes to torch most, and numpy to torch "
    "and scipy.",
)

# %%
off = ~torch.eye(8).bool()
ours, theirs = (m[off].argsort().argsort().double() for m in maps.values())
likeness = torch.corrcoef(torch.stack([ours, theirs]))[0, 1]
claim("the two maps are alike (rank correlation above 0.3)", small or likeness > 0.3)

# %% [markdown]
# ## Entropy, cross-entropy, KL
#
# The teacher says *p*, the student *q*. How far apart are they? We need three numbers.
#
# - [**Entropy**](../docs/glossary.md#entropy) $H(p) = -\sum p_i \ln p_i$: how unsure p is.
# - [**Cross-entropy**](../docs/glossary.md#cross-entropy) $CE(p, q) = -\sum p_i \ln q_i$: how surprised q is on average by what p draws.
# - [**KL divergence**](../docs/glossary.md#kl-divergence) $KL(p\,\|\,q) = \sum p_i \ln (p_i/q_i)$: what q pays for not being p.
#
# The unit is the [*nat*](../docs/glossary.md#nat), as the logarithm is the natural one. By hand, class by class, for three of them:

# %%
p, q = torch.tensor([0.1, 0.2, 0.7]), torch.tensor([0.2, 0.3, 0.5])
terms = torch.stack([p, q, -p * p.log(), -p * q.log(), p * (p / q).log()])
names = ["p", "q", "-p ln p", "-p ln q", "p ln p/q"]
legend(torch.cat([terms, terms.sum(1, keepdim=True)], 1), names, ["0", "1", "2", "sum"])

# %%
entropy, cross_entropy, kl = (-p * p.log()).sum(), (-p * q.log()).sum(), (p * (p / q).log()).sum()
print(
    f"CE {cross_entropy:.4f} = H {entropy:.4f} + KL {kl:.4f} nats; CE is {cross_entropy / math.log(2):.4f} bits"
)
claim("CE(p, q) = H(p) + KL(p‖q)", near(cross_entropy, entropy + kl))

# %% [markdown]
# In general: $-\sum p \ln q = -\sum p \ln p + \sum p \ln p - \sum p \ln q$, and the last two sums are the KL. A
# widely copied tutorial prints 0.61 for this cross-entropy. You can tell at sight that it is wrong: KL is never
# negative, so no student can get below H(p).

# %% tags=["slide-entropy"]
students = {"q = p": p, "q = [0.2, 0.3, 0.5]": q, "q = ⅓ each": torch.full((3,), 1 / 3)}
show(
    figures.entropy_figure(p, students),
    alt="Three bars of cross-entropy. All begin with the same piece of 0.8018 nats, the entropy of p. "
    "The rest, the KL, is 0 for q = p, 0.0851 for our q, 0.2968 for a third each.",
)

# %% [markdown]
# The first piece is the teacher's alone. It moves the value of the loss and never its gradient, so the
# student learns the same from both. KL has the better zero. Note PyTorch's order of arguments: the
# student's *log*-probs first, then the target.

# %%
z = q.log().requires_grad_()
by_kl = grad(F.kl_div(z.log_softmax(-1), p, reduction="sum"), z)[0]
by_ce = grad(-(p * z.log_softmax(-1)).sum(), z)[0]
claim("F.kl_div(log q, p) is KL(p‖q)", near(F.kl_div(q.log(), p, reduction="sum"), kl))
claim("KL and cross-entropy have one gradient", near(by_kl, by_ce))

# %% [markdown]
# ### Exercise: KL by hand
#
# > Difficulty: easy · about 8 minutes
#
# One KL per row, for p that may hold zeros.


# %%
def kl_divergence(p, q):
    # solution
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum(dim=-1)


# %%
check.kl_divergence(kl_divergence)


# %% tags=["solution"]
def kl_divergence_answer(p, q):
    return (torch.xlogy(p, p) - p * q.log()).sum(dim=-1)  # xlogy(0, 0) is 0


check.kl_divergence(kl_divergence_answer)

# %% [markdown]
# ### Two directions
#
# KL is not symmetric. [*Forward*](../docs/glossary.md#forward-and-reverse-kl), KL(p‖q), the teacher's p weighs: where p is large, q must not be small. *Reverse*,
# KL(q‖p), the student's own q weighs: where q is large, p must not be small. A student that can be p ends
# at p both ways. One that is too small has to choose. We fit one hump to a target of two.

# %%
x = torch.linspace(-8, 8, 801)
step = x[1] - x[0]


def hump(mean, log_width):
    return torch.exp(-0.5 * ((x - mean) / log_width.exp()) ** 2 - log_width) / math.sqrt(
        2 * math.pi
    )


target = 0.6 * hump(-2, torch.tensor(0.7).log()) + 0.4 * hump(2, torch.tensor(0.7).log())


# %%
def fitted(divergence):
    mean, log_width = torch.tensor(-1.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    optimizer = torch.optim.Adam([mean, log_width], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (divergence(target, hump(mean, log_width) + 1e-12).sum() * step).backward()
        optimizer.step()
    return mean.detach(), log_width.detach()


forward = fitted(lambda p, q: torch.xlogy(p, p) - p * q.log())
reverse = fitted(lambda p, q: q * (q.log() - (p + 1e-12).log()))

# %% tags=["slide-humps"]
fits = {"least KL(p‖q), forward": hump(*forward), "least KL(q‖p), reverse": hump(*reverse)}
show(
    figures.humps_figure(x, target, fits),
    alt="A target with a larger hump at -2 and a smaller one at 2. The forward fit is a broad hump "
    "over both with its top between them. The reverse fit sits on the larger hump and ignores the "
    "other.",
)

# %%
mean = (x * target).sum() * step
spread = ((x - mean) ** 2 * target).sum().mul(step).sqrt()
claim("forward: mean and width are those of the whole target", abs(forward[0] - mean) < 0.01)
claim("its width, too", abs(forward[1].exp() - spread) < 0.01)
claim("reverse: it sits on one hump", abs(reverse[0] + 2) < 0.05)

# %% [markdown]
# Forward *covers*, reverse *seeks a mode* (from another start it would have found the smaller hump). Distillation
# as Hinton wrote it is forward: the student is to keep the doubts. The reverse is used for text generators,
# where one good answer is enough; if you use it, say so.
#
# ## The gradient, in four lines
#
# Let $q = \text{softmax}(z/T)$ be the student's and $p = \text{softmax}(t/T)$ the teacher's probabilities, and
# $L = -\sum_j p_j \ln q_j$. How does $L$ change with a logit $z_i$ of the student?
#
# $$
# \begin{aligned}
# \ln q_j &= \frac{z_j}{T} - \ln \sum_k e^{z_k/T} && (1)\\
# \frac{\partial \ln q_j}{\partial z_i} &= \frac{1}{T}\,(\delta_{ij} - q_i) && (2)\\
# \frac{\partial L}{\partial z_i} &= -\sum_j p_j\,\frac{1}{T}\,(\delta_{ij} - q_i) && (3)\\
# &= \frac{1}{T}\Big(q_i \sum_j p_j - p_i\Big) = \frac{q_i - p_i}{T} && (4)
# \end{aligned}
# $$
#
# ($\delta_{ij}$ is 1 if $i = j$ and 0 otherwise; the last step uses $\sum_j p_j = 1$.) This is equation 2 of
# Hinton et al. Each line, checked against autograd:

# %%
T = 2.0
z, t3 = torch.tensor([1.0, 2.0, 0.5], requires_grad=True), torch.tensor([3.0, 0.5, 0.0])
log_q, p = (z / T).log_softmax(-1), (t3 / T).softmax(-1)
q = log_q.exp().detach()
slope = grad(-(p * log_q).sum(), z)[0]

# %% tags=["slide-lines"]
line_2 = (torch.eye(3) - q) / T  # row j, column i
claim("line 1", near(log_q, z / T - (z / T).exp().sum().log()))
claim("line 2", near(jacobian(lambda z: (z / T).log_softmax(-1), z), line_2))
claim("line 3", near(slope, -(p @ line_2)))
claim("line 4", near(slope, (q - p) / T))

# %%
legend(torch.stack([p, q, slope]), ["p", "q", "gradient"], classes)

# %% [markdown]
# Read it: where the student believes too little, the gradient is negative and the logit will rise. All
# numbers add up to 0. With T = 1 and a p of a single 1, it is the gradient of the ordinary cross-entropy.
#
# ## Why T²?
#
# T occurs twice. Once in front, 1/T, by the chain rule. And once hidden: as T grows, p and q both approach the
# uniform distribution, so their difference shrinks, too. How fast? With C classes and for large T,
#
# $$
# \begin{aligned}
# e^{z_i/T} &\approx 1 + \frac{z_i}{T} && (5)\\
# q_i &\approx \frac{1 + z_i/T}{C + \sum_j z_j/T} \approx \frac{1}{C}\Big(1 + \frac{z_i - \bar z}{T}\Big) && (6)\\
# T^2\,\frac{q_i - p_i}{T} &\approx \frac{(z_i - \bar z) - (t_i - \bar t)}{C} && (7)
# \end{aligned}
# $$
#
# with $\bar z$ and $\bar t$ the means over the classes (Hinton et al. assume them to be 0 for eq. 4). So the
# gradient shrinks like 1/T², and T² times it has a limit: the gradient of $\frac{1}{2C}\sum_i (z_i - t_i)^2$
# for centred logits. **At high T, distillation is logit matching.** The neglected terms are of order 1/T:

# %%
z, t3 = z.detach().double(), t3.double()  # at T = 1000 float32 would show its rounding
limit = ((z - z.mean()) - (t3 - t3.mean())) / 3


def relative_error(T):
    exact = T**2 * ((z / T).softmax(-1) - (t3 / T).softmax(-1)) / T
    return ((exact - limit).norm() / limit.norm()).item()


errors = {T: relative_error(T) for T in (1, 10, 100, 1000)}
for T, error in errors.items():
    print(f"T = {T:4}: relative error {error:.5f}, times T {error * T:.3f}")

# %%
claim(
    "ten times T, a tenth of the error", all(9 < errors[T] / errors[10 * T] < 11 for T in (10, 100))
)
matching = z.clone().requires_grad_()
squares = ((matching - matching.mean()) - (t3 - t3.mean())).square().sum() / (2 * 3)
claim("the limit is the gradient of logit matching", near(grad(squares, matching)[0], limit))

# %% [markdown]
# Now real logits: our teacher, and a student as it begins, with three of its six layers. For each of
# their texts we take the norm of the gradient.

# %%
student = TorchClassifier.of(
    student_from_teacher(teacher.model, layers=3), teacher.tokenizer, name="student"
)
s = torch.from_numpy(student.predict(texts))  # (N, 8)
grid = [1, 1.5, 2, 3, 4, 6, 8, 12, 20]


def mean_norm(s, t, T):
    """The mean norm of the gradient of the soft loss without T², by line (4)."""
    return (((s / T).softmax(-1) - (t / T).softmax(-1)) / T).norm(dim=-1).mean().item()


hard = (s.softmax(-1) - F.one_hot(labels, 8)).norm(dim=-1).mean().item()
lines = {
    "soft, without T²": [mean_norm(s, t, T) for T in grid],
    "soft, with T²": [T**2 * mean_norm(s, t, T) for T in grid],
    "hard": [hard for T in grid],
    "soft, with T², logits 4 times as large": [T**2 * mean_norm(4 * s, 4 * t, T) for T in grid],
}

# %% tags=["slide-t-squared"]
panel = Panel(grid, lines, "temperature T", "mean norm of the gradient", log="xy")
show(
    lines_figure("What is left of the soft gradient when T grows?", panel),
    alt="Gradient norms against T from 1 to 20 on logarithmic axes. Without T squared the soft "
    "gradient falls by more than two orders of magnitude; with it, it is nearly level, as the hard "
    "gradient is. With logits four times as large it first rises and then levels off.",
)

# %%
plain, scaled, _, sure = (torch.tensor(norms)[:7] for norms in lines.values())  # T from 1 to 8
swing, swing_scaled, swing_sure = ((v.max() / v.min()).item() for v in (plain, scaled, sure))
claim("T from 1 to 8: without T² the norm falls to less than a twentieth", small or swing > 20)
claim("with T² the largest is less than twice the smallest", small or swing_scaled < 2)
claim("with logits four times as large it varies more", small or swing_sure > 1.3 * swing_scaled)
claim(
    "without T², at T = 8 the hard gradient is over 50 times the soft one",
    small or hard > 50 * plain[6],
)

# %% tags=["nbval-ignore-output"]
print(
    f"largest norm by smallest, T from 1 to 8: {swing:.1f} without T², {swing_scaled:.2f} with T², ",
    end="",
)
print(f"{swing_sure:.2f} with T² and logits 4 times as large")

# %% [markdown]
# **That is what T² is for**: the mix of hard and soft loss stays what it was when you try another T. "Roughly",
# says Hinton (section 2), and rightly: line (7) is a limit. Models that are sure have large logits; at T = 1 both
# distributions are nearly hard, and the gradient is small where they agree on the class and large where they do
# not. Only when T is large against the logits is it level. And note that Adam divides by the size of the gradient:
# a soft loss *alone* trains nearly the same without T². The missing factor shows in the mix.
#
# ### Exercise: the soft loss
#
# > Difficulty: medium · about 12 minutes
#
# T² KL(teacher‖student), as a mean over N texts; logits (N, C).


# %%
def soft_loss(student_logits, teacher_logits, temperature):
    # solution
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    p = F.softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_q, p, reduction="batchmean")


# %%
check.soft_loss(soft_loss)


# %% tags=["solution"]
def soft_loss_answer(student_logits, teacher_logits, temperature):
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    log_p = F.log_softmax(teacher_logits / temperature, dim=-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1)  # (N,)
    return temperature**2 * kl.mean()


check.soft_loss(soft_loss_answer)

# %% [markdown]
# ### Hard and soft, mixed
#
# Labels are cheap and mostly right, so we keep them: **α · hard + (1 − α) · soft**. In this course α (`alpha`) is always
# the weight of the *hard* loss; elsewhere it is often the other one, so look. Hinton's advice is a small α. The
# hard loss is taken at T = 1, the T² belongs to the soft one.
#
# ### Exercise: the mix
#
# > Difficulty: easy · about 6 minutes
#
# Return α · hard + (1 − α) · soft, one number for N texts. Logits are (N, C), labels (N,).


# %%
def mixed_loss(student_logits, teacher_logits, labels, alpha, temperature):
    # solution
    hard = F.cross_entropy(student_logits, labels)
    soft = library.soft_kl(student_logits, teacher_logits, temperature=temperature).mean()
    return alpha * hard + (1 - alpha) * soft


# %%
check.mixed_loss(mixed_loss)


# %% tags=["solution"]
def mixed_loss_answer(student_logits, teacher_logits, labels, alpha, temperature):
    hard = F.cross_entropy(student_logits, labels)
    soft = soft_loss_answer(student_logits, teacher_logits, temperature)
    return alpha * hard + (1 - alpha) * soft


check.mixed_loss(mixed_loss_answer)

# %%
show_source(library.soft_kl)

# %% [markdown]
# ## A mean of what?
#
# For every position of every text there is a KL. What do we divide their sum by? PyTorch's reductions answer in
# three ways. Two texts, four tokens, a vocabulary of 1 000:

# %% tags=["slide-reductions"]
generator = torch.Generator().manual_seed(0)
s3, t4 = (torch.randn(2, 4, 1000, generator=generator) for _ in range(2))  # (B, S, V)
t4[1] = s3[1]  # of the second text the student knows all
log_q, p = s3.log_softmax(-1), t4.softmax(-1)
per_position = library.soft_kl(s3, t4)  # (B, S)
for reduction in ("sum", "batchmean", "mean"):
    value = F.kl_div(log_q, p, reduction=reduction)
    print(f"{reduction:>9}: {value:9.4f} = sum / {(per_position.sum() / value).round():.0f}")

# %% [markdown]
# `sum` grows with the batch. `batchmean` divides by the first axis alone: right for (N, C), four times too much
# for (B, S, V). `mean` divides by the classes as well, so the loss is a thousandth of what it should be (with
# BERT's vocabulary 1/30 522), and the soft loss all but vanishes from the mix. PyTorch itself warns that
# `mean` is not the KL. We want the sum over the vocabulary and **the mean over the positions that count**.
#
# Which ones count? Padding never does: it depends on who else is in the batch. And how do we average over
# batches? The mean of two means is not the mean, if the batches count different numbers of positions.

# %%
counted = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]).bool()
whole = library.mean_over_counted(per_position, counted)
halves = [library.mean_over_counted(kl, c) for kl, c in zip(per_position, counted)]
shares = [library.mean_over_counted(kl, c, n_counted=5) for kl, c in zip(per_position, counted)]
print(
    f"whole {whole:.4f}, mean of two means {sum(halves) / 2:.4f}, sum of two shares {sum(shares):.4f}"
)

# %% [markdown]
# So a step that is made of several batches has to know the number of all its positions beforehand: `n_counted`.
# (`transformers.Trainer` hands it over as `num_items_in_batch`.) Loss and gradient must not notice padding or
# splitting:


# %%
def loss_and_gradient(student, teacher, counted, parts):
    student = student.clone().requires_grad_()
    total = 0.0
    for rows in parts:
        kl = library.soft_kl(student[rows], teacher[rows], temperature=2.0)
        total = total + library.mean_over_counted(kl, counted[rows], n_counted=counted.sum())
    return total.detach(), grad(total, student)[0]


value, slopes = loss_and_gradient(s3, t4, counted, [[0, 1]])
padded = [F.pad(x, (0, 0, 0, 3), value=7.0) for x in (s3, t4)]
value_padded, slopes_padded = loss_and_gradient(*padded, F.pad(counted, (0, 3)), [[0, 1]])
value_split, slopes_split = loss_and_gradient(s3, t4, counted, [[0], [1]])

# %%
claim(
    "padding changes neither loss nor gradient",
    near(value, value_padded) and near(slopes, slopes_padded[:, :4]),
)
claim("and gets no gradient itself", not slopes_padded[:, 4:].any())
claim(
    "a batch split in two changes neither", near(value, value_split) and near(slopes, slopes_split)
)

# %% [markdown]
# ### Exercise: the mean over counted positions
#
# > Difficulty: medium · about 8 minutes
#
# `losses` and `counted` are (B, S). Where nothing counts, return 0. What is not counted may be infinite.


# %%
def counted_mean(losses, counted):
    # solution
    return losses[counted].sum() / counted.sum().clamp(min=1)


# %%
check.counted_mean(counted_mean)


# %% tags=["solution"]
def counted_mean_answer(losses, counted):
    chosen = losses[counted]  # selecting, not multiplying: 0 times infinity is NaN
    return chosen.sum() / max(len(chosen), 1)


check.counted_mean(counted_mean_answer)

# %% [markdown]
# ## What the insides can teach
#
# Logits are what a model says; hidden states are what it says it with. Two losses compare them token by token: the
# [**cosine**](../docs/glossary.md#cosine-loss) loss, 1 − cos(s, t), and the [**squared distance**](../docs/glossary.md#squared-distance), the mean of (s − t)². If the student is narrower, there
# must be a [*projection*](../docs/glossary.md#projection) in between, a linear map that is trained along (FitNets: Romero et al. 2015, eq. 3).
# What does each of them see? We change a teacher's hidden states in four ways and ask all three.

# %%
t_hidden = torch.randn(500, 8, generator=generator)  # (N, H)
rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
changed = {
    "nothing": t_hidden,
    "3 times": 3 * t_hidden,
    "plus 1": t_hidden + 1,
    "rotated": t_hidden @ rotation,
    "shuffled": t_hidden[torch.randperm(500, generator=generator)],
}


# %%
def best_projection(student, teacher):
    """The student's states after the linear map, with bias, that brings them nearest to the teacher's."""
    student = F.pad(student, (0, 1), value=1.0)
    return student @ torch.linalg.lstsq(student, teacher).solution


seen = [
    [
        library.hidden_cosine(s_hidden, t_hidden),
        library.hidden_mse(s_hidden, t_hidden),
        library.hidden_mse(best_projection(s_hidden, t_hidden), t_hidden),
    ]
    for s_hidden in changed.values()
]
legend(torch.tensor(seen), list(changed), ["cosine", "MSE", "MSE+map"])

# %% [markdown]
# The cosine cannot see lengths. The squared distance sees everything, a rotation included, although a rotated
# student knows just as much: the next layer could undo it. With a projection only what is *lost* is seen,
# here the shuffled tokens. That is fair, and it is lenient: the student's own head gets no such map.
#
# For vectors of one length the first two agree. With $\|s\| = \|t\| = \ell$,
# $\|s - t\|^2 = \|s\|^2 + \|t\|^2 - 2\,s \cdot t = 2\ell^2\,(1 - \cos)$. BERT's layers end in a LayerNorm, which makes lengths
# alike.

# %%
a, b = (
    2 * F.normalize(torch.randn(500, 8, generator=generator), dim=-1) for _ in range(2)
)  # ℓ = 2
claim(
    "at equal lengths, MSE = 2 ℓ² (1 − cos) / H",
    near(library.hidden_mse(a, b), 2 * 2**2 * library.hidden_cosine(a, b) / 8),
)

# %% [markdown]
# ### Exercise: the cosine loss
#
# > Difficulty: easy · about 8 minutes
#
# Hidden states (B, S, H), attention_mask (B, S); the mean over real tokens.


# %%
def cosine_loss(student_hidden, teacher_hidden, attention_mask):
    # solution
    distances = 1 - F.cosine_similarity(student_hidden, teacher_hidden, dim=-1)
    return distances[attention_mask.bool()].mean()


# %%
check.cosine_loss(cosine_loss)


# %% tags=["solution"]
def cosine_loss_answer(student_hidden, teacher_hidden, attention_mask):
    s, t = (F.normalize(hidden, dim=-1) for hidden in (student_hidden, teacher_hidden))
    return (1 - (s * t).sum(dim=-1))[attention_mask == 1].mean()


check.cosine_loss(cosine_loss_answer)

# %% [markdown]
# ## DistilBERT's triple loss
#
# DistilBERT was distilled on masked language modelling: both models read the same sentence with hidden words. The
# paper (Sanh et al. 2019, section 2) names three terms, the [*triple loss*](../docs/glossary.md#triple-loss). How they are put together, only the code says.
#
# | | the paper | the authors' code |
# |---|---|---|
# | soft | $L_{ce} = \sum t_i \log s_i$ (printed without the minus sign), a temperature | KL times T², T = 2, at **all** tokens but padding; weight 5 |
# | hard | the masked-language loss $L_{mlm}$ | cross-entropy at the chosen **15 %**; weight 2 |
# | hidden | a cosine loss that aligns directions | 1 − cos of the **last** layer, at all tokens but padding; weight 1 |
#
# The paper gives neither weights nor T nor positions. The authors named 5, 2, 1 when asked (transformers,
# issue 2013); a command in their README has a third for each, with which others failed (issue 3206). The
# library's `triple_loss` does what their code did. We run it on one sentence with two chosen words, one hidden and one
# left as it was, and ask autograd which tokens each term looks at.

# %%
tokens = ["[CLS]", "returns", "the", "[MASK]", "of", "values", "[SEP]", "[PAD]"]
attention_mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0]])
chosen = torch.tensor([[-100, -100, -100, 7, -100, 4, -100, -100]])
s_logits, t_logits = (
    torch.randn(1, 8, 11, generator=generator, requires_grad=True) for _ in range(2)
)
s_hidden, t_hidden = (
    torch.randn(1, 8, 6, generator=generator, requires_grad=True) for _ in range(2)
)
parts = library.triple_loss(
    s_logits, t_logits.detach(), chosen, s_hidden, t_hidden.detach(), attention_mask
)

# %% tags=["slide-looks"]
looks = {
    "soft": grad(parts.soft, s_logits, retain_graph=True)[0],
    "MLM": grad(parts.masked_lm, s_logits)[0],
    "cosine": grad(parts.cosine, s_hidden)[0],
}
legend(torch.cat([g.norm(dim=-1) for g in looks.values()]), list(looks), tokens)

# %%
weighed = 5 * parts.soft + 2 * parts.masked_lm + parts.cosine
claim("5 · soft + 2 · masked LM + 1 · cosine", near(parts.total, weighed))
claim(
    "the masked-language term looks at the chosen tokens alone",
    looks["MLM"][0].any(-1).nonzero().flatten().tolist() == [3, 5],
)

# %% [markdown]
# ### What is each part worth?
#
# In an [*ablation*](../docs/glossary.md#ablation), the paper left out one part at a time and gave the change in the mean over GLUE (Table 4). We do the same in
# the small: students of three layers, some hundred texts of PyDocs, two seconds each. Our parts are the soft loss, the
# hidden loss (squared distance of [CLS] vectors) and the hard loss. One number says nothing, so each student is
# trained three times, on other texts each time. We add the control that papers forget: labels alone.

# %%
N_EACH, SEEDS, N_JUDGED = {"smoke": (32, 2, 32), "cpu": (256, 3, 320), "gpu": (960, 5, 2800)}[
    machine.profile()
]
rows = task.train[: N_EACH * SEEDS]
pupils = encode(teacher.tokenizer, rows["text"], rows["label"], max_length=32)
signals = teacher_signals(teacher.model, pupils, hidden_layers=matched_layers(6, 3), progress=False)
judged = encode(teacher.tokenizer, task.test["text"][:N_JUDGED], max_length=48)
said = teacher_signals(teacher.model, judged, progress=False)["teacher_logits"]

# %%
full = Recipe(epochs=2, learning_rate=3e-4, batch_size=16, freeze_words=True, alpha=0.2, beta=1.0)
variants = {
    "all three": full,
    "without soft": replace(full, alpha=1.0),
    "without hidden": replace(full, beta=0.0),
    "without hard": replace(full, alpha=0.0),
    "labels alone": replace(full, alpha=1.0, beta=0.0),
    "random start": replace(full, freeze_words=False),
}


# %%
def distilled(name, seed):
    """A student's agreement with the teacher (per cent), and its mean KL to it (nats)."""
    torch.manual_seed(seed)
    student = student_from_teacher(teacher.model, layers=3)
    if name == "random start":
        student = type(student)(student.config)
    mine = range(seed * N_EACH, (seed + 1) * N_EACH)  # the seed's own texts
    lesson = EncodedTexts(
        [pupils.input_ids[k] for k in mine],
        labels=pupils.columns["labels"][mine],
        **{signal: values[mine] for signal, values in signals.items()},
    )
    train(student, lesson, replace(variants[name], seed=seed), progress=False)
    logits = teacher_signals(student, judged, progress=False)["teacher_logits"]
    agreement = 100 * (logits.argmax(-1) == said.argmax(-1)).float().mean()
    return agreement.item(), library.soft_kl(logits, said).mean().item()


results = {name: torch.tensor([distilled(name, k) for k in range(SEEDS)]) for name in variants}

# %% tags=["nbval-ignore-output"]
print("agreement with the teacher, per cent; KL to it, nats; one number per seed")
for name, numbers in results.items():
    agreement, distance = numbers.T.tolist()
    print(f"{name:>15}: ", *(f"{a:5.1f}" for a in agreement), "  ", *(f"{d:.3f}" for d in distance))

# %% tags=["slide-ablation"]
missed = {name: n - results["all three"] for name, n in results.items() if name != "all three"}
points = {name: difference[:, 0].tolist() for name, difference in missed.items()}
show(
    figures.ablation_figure(figures.TABLE_4, points, unit="points of agreement", lowest=-12),
    alt="Two bar charts. DistilBERT lost 2.96 points without the soft loss, 1.46 without the cosine, "
    "0.31 without masked language modelling, 3.69 from a random start. Ours, with a dot per seed: a "
    "random start costs by far the most, leaving out the soft loss or all but the labels some points; "
    "without the hidden or the hard loss the dots lie around zero.",
)

# %% [markdown]
# Is a difference more than chance? Per seed both students saw the same texts, so we take the differences seed by
# seed. Their mean has an interval, from Student's t for so few numbers.

# %% tags=["nbval-ignore-output", "slide-intervals"]
T_975 = {2: 12.71, 3: 4.30, 5: 2.78}[SEEDS]  # Student's t for so many seeds, two-sided 95 %
for name, differences in missed.items():
    reach = T_975 * differences.std(0) / math.sqrt(SEEDS)
    ends = torch.stack([differences.mean(0) - reach, differences.mean(0) + reach]).T.tolist()
    (a, b), (c, d) = ends
    clear = ["in the noise" if low <= 0 <= high else "clear" for low, high in ends]
    print(f"{name:>15}: agreement {a:+6.1f} to {b:+6.1f}, {clear[0]:12}", end="  ")
    print(f"KL {c:+.3f} to {d:+.3f}, {clear[1]}")

# %%
agreement, distance = ({name: n[:, k] for name, n in results.items()} for k in (0, 1))
claim(
    "a random start costs more than 15 points with every seed",
    small or (agreement["random start"] < agreement["all three"] - 15).all(),
)
claim(
    "without the soft loss, the KL to the teacher is larger by a third or more, with every seed",
    small or (distance["without soft"] > 4 / 3 * distance["all three"]).all(),
)

# %% [markdown]
# What can be said? A student should *start* from its teacher: ours, from random weights, had no chance in so few steps.
# And the soft loss brings it to its teacher's **probabilities**. The KL says so clearly; agreement, which counts texts,
# is a coarser measure, and three seeds may leave even that in the noise. Where an interval holds 0, the part may be
# worth something, and these runs do not show it. (Which parts is that here? And how many seeds would it take?) The paper
# gives no spread for its table, so whether 0.31 is more than chance cannot be told. And the two charts measure different
# things: GLUE after fine-tuning there, likeness to the teacher here.
#
# ## Spot the fault
#
# ### Exercise: ten losses
#
# > Difficulty: hard · about 20 minutes
#
# Ten ways to write α · hard + (1 − α) · T² · soft for tokens. Each gets the student's logits `s`, the teacher as
# its own training left it (dropout on), the `inputs` that the teacher reads, `labels` (−100 at padding), and a
# `mask` (True at real tokens). **Eight are wrong, two are right**, and all of them run. These are not made up: each
# fault was found in published tutorials, toolkits or their issues.

# %%
for loss in LOSSES.values():
    show_source(loss)

# %%
print("nothing", *TRIALS, sep="\n")

# %% [markdown]
# Return one of these lines for each letter. Where you are wrong, the check shows an input on which the loss
# betrays itself, or does not. You may begin with the letters that you are sure of.


# %%
def spot_the_fault(loss):
    """What is wrong with loss "A", …, "J"."""
    # solution
    return {
        "A": "T on one side only",
        "B": "mean over classes",
        "C": "nothing",
        "D": "teacher not frozen",
        "E": "padding counted",
        "F": "changes its input",
        "G": "nothing",
        "H": "softmax twice",
        "I": "KL the wrong way round",
        "J": "no T²",
    }[loss]


# %%
check.spot_the_fault(spot_the_fault)

# %% tags=["solution"]
ANSWERS = {
    "A": "T on one side only",  # t.softmax(-1): the teacher is not softened
    "B": "mean over classes",  # .mean() of (N, C) divides by C, too
    "C": "nothing",  # a cross-entropy: the KL and a constant
    "D": "teacher not frozen",  # neither eval() nor no_grad()
    "E": "padding counted",  # .mean() over all positions
    "F": "changes its input",  # s /= T: the hard loss sees s / T, and so does the caller
    "G": "nothing",  # log_target=True takes logs on both sides
    "H": "softmax twice",  # cross_entropy of probabilities
    "I": "KL the wrong way round",  # the student is the target
    "J": "no T²",
}


def spot_the_fault_answer(loss):
    return ANSWERS[loss]


check.spot_the_fault(spot_the_fault_answer)

# %% [markdown]
# None of the eight stops with an error. Most of them even train: the loss falls, the student learns something. That
# is why they live so long, and why a loss should be tested on inputs whose answer you know: a student equal to its
# teacher, a class nobody believes in, one more token of padding.
#
# ## What to take away
#
# 1. T divides the logits of both models. It changes no order, and shows which wrong answers are nearly right.
# 2. CE = H + KL: the teacher's entropy moves the loss, never the gradient. Forward KL keeps the doubts.
# 3. ∂L/∂z = (q − p)/T shrinks like 1/T²; T² keeps the mix steady, and at high T logits are matched.
# 4. Sum over classes, mean over the positions that count, counted over the whole step.
# 5. Cosine sees directions, MSE everything, a projection only what is lost. Ablations need seeds.
#
# ## Three questions
#
# Answer in the cell: put a letter between the brackets, as in `quiz.why_t_squared("a")`, and run it.

# %%
quiz.why_t_squared()

# %%
quiz.loss_stays_above_zero()

# %%
quiz.which_mean()

# %% [markdown]
# `from course_utils.classroom.progress import progress; progress()` shows what you have solved so far.
#
# ## To read
#
# - Hinton, Vinyals, Dean (2015), *Distilling the Knowledge in a Neural Network*: section 2 is this notebook.
# - Ba and Caruana (2014), *Do Deep Nets Really Need to be Deep?*: matching logits, before temperature.
# - Romero and others (2015), *FitNets*: hidden states with a projection.
# - Sanh and others (2019), *DistilBERT*: section 2 has the triple loss, Table 4 the ablation.
# - Kim and others (2021), *Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge
#   Distillation*: what T does between its limits.
