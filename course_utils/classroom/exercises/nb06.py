"""Notebook 06, Distilling for a task: splits, the cache, the loss, equal steps, ECE, choosing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.classroom.checks import exercise

# Clean splits


def _splits() -> Iterator[tuple[list[str], list[str]]]:
    yield ["Sort the rows.", "Draw a line.", "A new array."], ["Draw a line.", "Add two."]
    yield (
        ["Close it.", "Move to  the device.", "Open it.", "close it.", "Open it.", "Read all."],
        ["move to the device.", "Write all."],
    )
    yield (
        ["b c", "a  b", "c", "A b", "B C", "a b c", "d"],
        ["C", "e", "E", "a b c\n"],
    )


def _key(text: str) -> str:
    return " ".join(text.lower().split())


def _kept(
    train: list[str],
    test: list[str],
    *,
    key: Callable[[str], str] = _key,
    across: bool = True,
    within: bool = True,
) -> list[str]:
    """The texts to train on, right by default; each option is a place to go wrong."""
    seen = {key(text) for text in test} if across else set()
    kept = []
    for text in train:
        if key(text) not in seen:
            kept.append(text)
        if within:
            seen.add(key(text))
    return kept


@exercise(
    cases=_splits,
    hints=(
        "Two questions for each text of train: is it in test, and have you kept it already? Both "
        "are answered by one set of texts that are taken.",
        "“Draw  a line.” and “draw a line.” are the same text for a model. Compare not the texts, "
        'but a key that is equal for both: " ".join(text.lower().split()).',
        "seen = the keys of test. Go through train: if a text's key is not in seen, keep the text "
        "and add its key. Never touch test: a test set that changes compares with nothing.",
    ),
)
def clean_train(train: list[str], test: list[str]) -> list[str]:
    """The texts of `train` that are not in `test`, each once, in their order and as they are.

    Texts that differ in case and white space alone are the same.
    """
    return _kept(train, test)


@clean_train.mistake(
    "You look for duplicates inside train, and texts that are also in *test* stay in train. The "
    "model has then seen the answer: its test score is partly memory."
)
def duplicates_across_the_splits(train, test):
    return _kept(train, test, across=False)


@clean_train.mistake(
    "What is in test has gone, but a text that stands in train twice is still there twice: it "
    "counts double, and a dev set cut from train later would share it."
)
def duplicates_within_train(train, test):
    return _kept(train, test, within=False)


@clean_train.mistake(
    "You compare the texts letter by letter. “close it.” and “Close it.”, or two spaces for one, "
    "give the model the same tokens, and count as different for you."
)
def letter_by_letter(train, test):
    return _kept(train, test, key=str)


@clean_train.mistake(
    "The right texts are left, but changed: you return the keys by which they were compared. "
    "Compare keys, keep the texts as they are."
)
def returns_the_keys(train, test):
    return [_key(text) for text in _kept(train, test)]


@clean_train.mistake(
    "The right texts are left, in another order. Labels and the teacher's cached signals go row by "
    "row: a set of Python has no order to rely on."
)
def order_lost(train, test):
    return sorted(_kept(train, test))


@clean_train.mistake(
    "You took the shared texts out of test. Then every cleaning makes another test set, and no two "
    "results can be compared. Clean train."
)
def cleans_test(train, test):
    return _kept(test, train)


# The cache


def _one_hot(logits: Tensor) -> Tensor:
    return F.one_hot(logits.argmax(-1), logits.shape[-1]).float()


class _Teacher(nn.Module):
    """A classifier of token ids whose dropout is drawn from a generator of its own.

    So what it says in training mode is noise, and yet the same for whoever asks it the same.
    """

    def __init__(self, n_classes: int, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(50, n_classes, generator=generator))
        self.generator = torch.Generator().manual_seed(seed + 1)

    def forward(self, input_ids: Tensor) -> Tensor:
        vectors = self.table[input_ids]  # (B, S, C)
        if self.training:
            keep = torch.rand(vectors.shape, generator=self.generator) < 0.7
            vectors = vectors * keep / 0.7
        return vectors.sum(1)


Batch = tuple[list[int], Tensor]


def _batches_to_cache() -> Iterator[tuple[nn.Module, list[Batch], int]]:
    for seed, n_classes, orders in (
        (0, 2, ([2, 0], [1, 3])),
        (1, 3, ([4, 1, 0], [5, 2, 3], [6])),
    ):
        generator = torch.Generator().manual_seed(seed)
        batches = [
            (rows, torch.randint(0, 50, (len(rows), 3 + k), generator=generator))
            for k, rows in enumerate(orders)
        ]
        yield _Teacher(n_classes, seed).train(), batches, sum(map(len, orders))


def _cached(
    teacher: nn.Module,
    batches: list[Batch],
    n_texts: int,
    *,
    mode: bool = False,
    gradient: bool = False,
    place: str = "by row",
    keep: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> Tensor:
    """The teacher's logits, right by default; each option is a place to go wrong."""
    teacher.train(mode)
    with torch.set_grad_enabled(gradient):
        said = torch.cat([keep(teacher(ids)) for _, ids in batches])  # (N, C)
        rows = torch.tensor([row for numbers, _ in batches for row in numbers])
        if place == "as they came":
            return said
        return said[rows] if place == "the other way" else said[rows.argsort()]


@exercise(
    cases=_batches_to_cache,
    tolerance=1e-5,
    hints=(
        "Make room first: torch.empty(n_texts, n_classes). Each batch says in `rows` which texts "
        "it holds: these are the rows where its logits belong.",
        "logits[rows] = teacher(ids) puts a batch in its place. And before the loop: in which mode "
        "is this teacher? A fine-tuned one may still be in training mode.",
        "teacher.eval() switches dropout off, torch.no_grad() keeps no graph. What is kept are "
        "logits, not probabilities: T comes later.",
    ),
)
def cache_logits(teacher: nn.Module, batches: list[Batch], n_texts: int) -> Tensor:
    """The teacher's logits, (n_texts, C): row i belongs to text i, whatever batch it came in.

    A batch is (rows, ids): the numbers of its texts, and their token ids (B, S).
    """
    return _cached(teacher, batches, n_texts)


@cache_logits.mistake(
    "You keep the logits in the order in which the batches came. Batches of like length are "
    "shuffled: row i is now another text's, and the student learns noise without any error "
    "message. Each batch says in `rows` where its logits belong."
)
def rows_as_they_came(teacher, batches, n_texts):
    return _cached(teacher, batches, n_texts, place="as they came")


@cache_logits.mistake(
    "You turned the order round once too often: said[rows] asks which text stands where, and the "
    "question is where each text belongs: logits[rows] = said."
)
def order_the_other_way(teacher, batches, n_texts):
    return _cached(teacher, batches, n_texts, place="the other way")


@cache_logits.mistake(
    "The teacher is in training mode: dropout is on, and what you keep is one draw of its noise, "
    "frozen for the whole training. teacher.eval() before you ask."
)
def dropout_on(teacher, batches, n_texts):
    return _cached(teacher, batches, n_texts, mode=True)


@cache_logits.mistake(
    "Two faults: the teacher's dropout is on (teacher.eval()), and the rows are in the order of "
    "the batches (logits[rows] = …)."
)
def dropout_on_and_rows_as_they_came(teacher, batches, n_texts):
    return _cached(teacher, batches, n_texts, mode=True, place="as they came")


@cache_logits.mistake(
    "The numbers are right, but they hang on the teacher's graph: every batch's activations stay "
    "in memory, and a loss would train the teacher, too. Ask under torch.no_grad()."
)
def graph_kept(teacher, batches, n_texts):
    return _cached(teacher, batches, n_texts, gradient=True)


@cache_logits.mistake(
    "You keep probabilities. From these no temperature can be applied any more as it should: "
    "softmax(logits / T) needs logits."
)
def probabilities_kept(teacher, batches, n_texts):
    return _cached(teacher, batches, n_texts, keep=lambda logits: logits.softmax(-1))


@cache_logits.mistake(
    "You keep the teacher's class and throw its doubts away. What it says of the *other* classes "
    "is what the student is here for: keep the logits."
)
def classes_kept(teacher, batches, n_texts):
    return _cached(teacher, batches, n_texts, keep=_one_hot)


# The loss of a mixed batch


def _mixed_batches() -> Iterator[tuple[Tensor, Tensor, Tensor, float, float]]:
    for seed, labels, alpha, temperature in (
        (0, [1, -100], 0.3, 2.0),
        (1, [2, 0, -100, 1, -100], 0.8, 4.0),
        (2, [0, 1, 2], 0.1, 1.5),
    ):
        generator = torch.Generator().manual_seed(seed)
        student = torch.randn(len(labels), 3, generator=generator)
        teacher = 2 * torch.randn(len(labels), 3, generator=generator)
        yield student, teacher, torch.tensor(labels), alpha, temperature


def _loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    alpha: float,
    temperature: float,
    *,
    power: float = 2,
    softened: bool = True,
    unlabelled: str = "soft alone",
    reverse: bool = False,
    total: bool = False,
) -> Tensor:
    """The loss, right by default; each option is a place to go wrong."""
    log_q = F.log_softmax(student / temperature, dim=-1)
    log_p = F.log_softmax(teacher / (temperature if softened else 1.0), dim=-1)
    if reverse:
        log_p, log_q = log_q, log_p
    soft = (log_p.exp() * (log_p - log_q)).sum(-1) * temperature**power  # (N,)
    known = labels != -100
    hard = F.cross_entropy(student, labels.clamp(min=0), reduction="none")  # (N,)
    if unlabelled == "class 0":
        known = torch.ones_like(known)
    alphas = alpha * known
    rest = 1 - (alpha if unlabelled == "part of soft" else alphas)
    losses = alphas * hard + rest * soft
    if unlabelled == "left out":
        return losses[known].mean()
    return losses.sum() if total else losses.mean()


@exercise(
    cases=_mixed_batches,
    tolerance=1e-5,
    hints=(
        "Every text has a soft loss, for the teacher has an opinion of each. Only a text whose "
        "label is not -100 has a hard one. Compute both per text, without a mean.",
        "F.cross_entropy(…, reduction='none', ignore_index=-100) is 0 where there is no label. The "
        "soft loss is T² · KL(teacher ‖ student), both sides divided by T, the sum over classes.",
        "Let alpha be a tensor: torch.where(labels == -100, 0.0, alpha). Then "
        "(alphas * hard + (1 - alphas) * soft).mean() over all texts.",
    ),
)
def partly_labelled_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """alpha · hard + (1 - alpha) · soft, the mean over all texts; without a label soft · 1."""
    return _loss(student_logits, teacher_logits, labels, alpha, temperature)


@partly_labelled_loss.mistake(
    "The factor T² is missing: without it the soft loss shrinks as T grows, and what looks like "
    "the influence of T is that of another alpha."
)
def no_t_squared(student_logits, teacher_logits, labels, alpha, temperature):
    return _loss(student_logits, teacher_logits, labels, alpha, temperature, power=0)


@partly_labelled_loss.mistake(
    "Your alpha is the wrong way round: in this course alpha weighs the *hard* loss, and 1 - alpha "
    "the soft one. Papers and libraries differ; read it up before you compare."
)
def alpha_the_other_way(student_logits, teacher_logits, labels, alpha, temperature):
    return _loss(student_logits, teacher_logits, labels, 1 - alpha, temperature)


@partly_labelled_loss.mistake(
    "Texts without a label (-100) are counted in the hard loss as if they were of class 0: you "
    "teach it that whatever nobody has labelled is the first class."
)
def unlabelled_as_class_0(student_logits, teacher_logits, labels, alpha, temperature):
    return _loss(student_logits, teacher_logits, labels, alpha, temperature, unlabelled="class 0")


@partly_labelled_loss.mistake(
    "A text without a label has its soft loss with weight 1 - alpha, and nothing for the rest: it "
    "counts less than the others. It has no hard loss to share with: give it weight 1."
)
def unlabelled_count_less(student_logits, teacher_logits, labels, alpha, temperature):
    return _loss(
        student_logits, teacher_logits, labels, alpha, temperature, unlabelled="part of soft"
    )


@partly_labelled_loss.mistake(
    "You leave the texts without a label out altogether. They are what the teacher is for: it has "
    "an opinion of each, and the soft loss needs no label."
)
def unlabelled_left_out(student_logits, teacher_logits, labels, alpha, temperature):
    return _loss(student_logits, teacher_logits, labels, alpha, temperature, unlabelled="left out")


@partly_labelled_loss.mistake(
    "You divide only the student's logits by T. A student equal to its teacher would then have a "
    "loss, and learn to be T times as loud. Both sides are softened."
)
def one_side_softened(student_logits, teacher_logits, labels, alpha, temperature):
    return _loss(student_logits, teacher_logits, labels, alpha, temperature, softened=False)


@partly_labelled_loss.mistake(
    "Your KL is KL(student ‖ teacher). That can be wanted, but the usual one is "
    "KL(teacher ‖ student): the sum of p · (log p - log q) with p the teacher's."
)
def kl_the_other_way(student_logits, teacher_logits, labels, alpha, temperature):
    return _loss(student_logits, teacher_logits, labels, alpha, temperature, reverse=True)


@partly_labelled_loss.mistake(
    "You return the sum over the texts. It grows with the batch, and the learning rate with it. "
    "Return the mean."
)
def sum_for_mean(student_logits, teacher_logits, labels, alpha, temperature):
    return _loss(student_logits, teacher_logits, labels, alpha, temperature, total=True)


# Equal steps


def _trainings() -> Iterator[tuple[int, int, int]]:
    yield from [(64, 32, 10), (100, 32, 60), (480, 16, 45), (1920, 32, 60), (20, 32, 5)]


@exercise(
    cases=_trainings,
    hints=(
        "One epoch reads all texts once. How many steps of `batch_size` texts does that take? The "
        "last one may not be full.",
        "100 texts in batches of 32 are 4 steps: 32, 32, 32 and 4. math.ceil rounds up.",
        "epochs = steps / steps of one epoch. It need not be a whole number.",
    ),
)
def epochs_for(n_texts: int, batch_size: int, steps: int) -> float:
    """The number of epochs in which a training on `n_texts` takes exactly `steps` steps."""
    return steps / math.ceil(n_texts / batch_size)


@epochs_for.mistake(
    "The same number of epochs for all: a training on ten times the texts takes ten times the "
    "steps. What you then compare is how long they trained."
)
def equal_epochs(n_texts, batch_size, steps):
    return float(steps)


@epochs_for.mistake(
    "You count the last batch of an epoch only as far as it is full. It is a step like any other: "
    "100 texts in batches of 32 are 4 steps, not 3.125."
)
def part_of_a_step(n_texts, batch_size, steps):
    return steps * batch_size / n_texts


@epochs_for.mistake(
    "You leave the last batch of an epoch out where it is not full. Here it is read, and is a step "
    "like any other: round up, not down."
)
def rounds_down(n_texts, batch_size, steps):
    return steps / max(1, n_texts // batch_size)


@epochs_for.mistake(
    "You return whole epochs. Then the steps are equal only by accident; `Recipe` takes a fraction."
)
def whole_epochs(n_texts, batch_size, steps):
    return float(math.ceil(steps / math.ceil(n_texts / batch_size)))


@epochs_for.mistake("You have it upside down: that is the steps per epoch over the steps.")
def upside_down(n_texts, batch_size, steps):
    return math.ceil(n_texts / batch_size) / steps


# Calibration


def _believed() -> Iterator[tuple[Tensor, Tensor, int]]:
    yield (
        torch.tensor([[0.95, 0.05], [0.9, 0.1], [0.38, 0.62], [0.41, 0.59], [0.77, 0.23]]),
        torch.tensor([0, 1, 1, 0, 0]),
        5,
    )
    for seed, n_texts, n_bins in ((0, 40, 10), (1, 200, 15)):
        generator = torch.Generator().manual_seed(seed)
        probs = (2 * torch.randn(n_texts, 4, generator=generator)).softmax(-1)
        yield probs, torch.randint(0, 4, (n_texts,), generator=generator), n_bins


def _ece(
    probs: Tensor,
    labels: Tensor,
    n_bins: int,
    *,
    weight: str = "texts",
    signed: bool = False,
    believed: Callable[[Tensor, Tensor], Tensor] = lambda probs, labels: probs.max(-1).values,
    binned: bool = True,
) -> float:
    """The calibration error, right by default; each option is a place to go wrong."""
    confidence = believed(probs, labels).double()  # (N,)
    right = (probs.argmax(-1) == labels).double()
    if not binned:
        return (right - confidence).abs().mean().item()
    which = (confidence * n_bins).ceil().clamp(1, n_bins).long() - 1
    gaps, shares = [], []
    for k in range(n_bins):
        inside = which == k
        if inside.any():
            gap = (right[inside].mean() - confidence[inside].mean()).item()
            gaps.append(gap if signed else abs(gap))
            shares.append(inside.double().mean().item())
    if weight == "largest":
        return max(gaps)
    if weight == "bins":
        return sum(gaps) / len(gaps)
    if weight == "all bins":
        return sum(gaps) / n_bins
    return abs(sum(gap * share for gap, share in zip(gaps, shares, strict=True)))


@exercise(
    cases=_believed,
    tolerance=1e-5,
    hints=(
        "Confidence is the probability of the chosen class, probs.max(-1). Sort the texts into "
        "n_bins bins of equal width by it. In each: how confident on average, how often right?",
        "The number of a text's bin, from 0: (confidence * n_bins).ceil() - 1. A bin's gap is "
        "|share of right texts - mean confidence|. Skip the empty ones.",
        "ECE = the sum over bins of gap · (texts in the bin / all texts). A bin with one text must "
        "not weigh as much as one with a hundred.",
    ),
)
def calibration_error(probs: Tensor, labels: Tensor, n_bins: int) -> float:
    """The expected calibration error of probabilities (N, C), bins of equal width from 0 to 1."""
    return _ece(probs, labels, n_bins)


@calibration_error.mistake(
    "Every bin weighs the same in your mean. A bin with two texts in it, all noise, counts as much "
    "as one with two hundred: weigh each gap by its share of the texts."
)
def bins_not_weighed(probs, labels, n_bins):
    return _ece(probs, labels, n_bins, weight="bins")


@calibration_error.mistake(
    "You add the gaps up and divide by the number of all bins, the empty ones too. Weigh each gap "
    "by its share of the texts; the shares add up to 1 by themselves."
)
def divided_by_all_bins(probs, labels, n_bins):
    return _ece(probs, labels, n_bins, weight="all bins")


@calibration_error.mistake(
    "You return the largest gap. That is the *maximum* calibration error (MCE); the expected one "
    "is the mean, weighed by texts."
)
def largest_gap(probs, labels, n_bins):
    return _ece(probs, labels, n_bins, weight="largest")


@calibration_error.mistake(
    "Your gaps have a sign, and cancel: a model too sure in one bin and too shy in another would "
    "look perfect. Take the absolute value in each bin."
)
def gaps_cancel(probs, labels, n_bins):
    return _ece(probs, labels, n_bins, signed=True)


@calibration_error.mistake(
    "Your confidence is the probability of the *label*. A model does not know the label: what it "
    "claims is the probability of the class it chose, probs.max(-1)."
)
def confidence_in_the_label(probs, labels, n_bins):
    return _ece(
        probs,
        labels,
        n_bins,
        believed=lambda probs, labels: probs.gather(-1, labels[:, None])[:, 0],
    )


@calibration_error.mistake(
    "You compare text by text, without bins. A text is right or not, 1 or 0, and who says 0.7 is "
    "always off by 0.3 or 0.7. Only among many texts can 7 of 10 be right."
)
def without_bins(probs, labels, n_bins):
    return _ece(probs, labels, n_bins, binned=False)


# Choosing

Run = dict[str, list[float]]


def _runs() -> Iterator[tuple[dict[str, Run]]]:
    yield (
        {
            "small rate": {"dev": [0.50, 0.61, 0.60], "test": [0.52, 0.58, 0.63]},
            "large rate": {"dev": [0.55, 0.59, 0.58], "test": [0.56, 0.66, 0.60]},
        },
    )
    yield (
        {
            "a": {"dev": [0.70, 0.69, 0.71], "test": [0.72, 0.75, 0.68]},
            "b": {"dev": [0.60, 0.74, 0.72], "test": [0.65, 0.69, 0.71]},
            "c": {"dev": [0.66, 0.68, 0.73], "test": [0.64, 0.76, 0.70]},
        },
    )
    yield ({"only": {"dev": [0.4, 0.8, 0.7, 0.6], "test": [0.5, 0.6, 0.8, 0.7]}},)


def _chosen(
    runs: dict[str, Run], *, by: str = "dev", report: str = "test", epoch: str = "best"
) -> tuple[str, int, float]:
    """The choice, right by default; each option is a place to go wrong."""

    def at(run: Run) -> int:
        return len(run[by]) - 1 if epoch == "last" else run[by].index(max(run[by]))

    name = max(runs, key=lambda name: runs[name][by][at(runs[name])])
    return name, at(runs[name]), runs[name][report][at(runs[name])]


@exercise(
    cases=_runs,
    hints=(
        "Which of the two columns may you look at while you choose, and which only once, at the "
        "end?",
        "Go over all runs and all epochs, and find the largest *dev* accuracy. It belongs to one "
        "run and one epoch.",
        "Report the test accuracy of that run at that epoch, whatever it is. If there are ties, "
        "take the first.",
    ),
)
def choose_run(runs: dict[str, Run]) -> tuple[str, int, float]:
    """(name of the run, epoch from 0, its test accuracy): chosen as one may choose.

    A run has its accuracy after every epoch on two sets, "dev" and "test".
    """
    return _chosen(runs)


@choose_run.mistake(
    "You searched on the test set: run and epoch are those with the largest *test* accuracy. The "
    "best of many is lucky as well as good, and on fresh texts the luck is gone. Choose by dev."
)
def test_set_searched(runs):
    return _chosen(runs, by="test")


@choose_run.mistake(
    "You choose by dev and report dev. That number was the best of many, so it is too good. Report "
    "the test accuracy of what you have chosen."
)
def dev_reported(runs):
    return _chosen(runs, report="dev")


@choose_run.mistake(
    "You take the accuracy after the last epoch. The best one may have passed: that is what early "
    "stopping is for. Look at all epochs of a run, on dev."
)
def the_last_epoch(runs):
    return _chosen(runs, epoch="last")


@choose_run.mistake(
    "The run is chosen by dev, but then you take the epoch with its best *test* accuracy. That is "
    "searching on the test set all the same."
)
def epoch_by_test(runs):
    name, *_ = _chosen(runs)
    scores = runs[name]["test"]
    return name, scores.index(max(scores)), max(scores)


@choose_run.mistake(
    "You choose by the mean of dev and test. Half a look at the test set is a look."
)
def mean_of_both(runs):
    means = {
        name: run | {"mean": [(d + t) / 2 for d, t in zip(run["dev"], run["test"], strict=True)]}
        for name, run in runs.items()
    }
    return _chosen(means, by="mean")


@choose_run.mistake("Epochs are counted from 0 here; yours is one too many.")
def counts_from_one(runs):
    name, epoch, accuracy = _chosen(runs)
    return name, epoch + 1, accuracy
