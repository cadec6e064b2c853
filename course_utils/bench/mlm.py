"""`course bench mlm`: a step of distilling BERT into DistilBERT, ours and the authors' way.

The authors' way is written here after what their code does: the logits of both models at every
position in float32, the hidden states of all layers, copies of what stands at attended positions,
AdamW from one weight to the next, and padded batches of texts that are about equally long. Ours is
`distil_mlm` with `kl_positions` "all", which is the same loss, or "masked".

Weights and token ids are random, and there is no dropout. All ways read texts of one list, as long
as PyDocs's are, and a batch has the same number of places for tokens; the authors' number of texts,
mostly short, would make them pay for more optimizer steps. A step is batch, forward, loss,
backward, clipping and optimizer. The first is not timed: in it the optimizer makes its state.

The memory is that of tensors at the peak of two further steps, less weights: both models, ours of
the teacher in a smaller data type, and 3 numbers in float32 for each weight of the student, its
gradient and AdamW's two moments. Left are activations, logits and copies. It is what torch has
asked for; what the C library keeps beyond that depends on the order of the sizes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from itertools import accumulate, pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from course_utils import machine

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from course_utils.models.mlm import MaskedLM

    Batch = dict[str, Tensor]


class Size(NamedTuple):
    """Of a batch, blocks and tokens in each; of the models, as in their configuration."""

    blocks: int
    length: int
    hidden_size: int
    teacher_layers: int
    student_layers: int
    vocab_size: int


SIZES = {
    "smoke": Size(4, 32, 64, 2, 1, 30522),
    "cpu": Size(8, 128, 768, 12, 6, 30522),
    "gpu": Size(32, 128, 768, 12, 6, 30522),
}
TINY = Size(2, 16, 64, 2, 1, 200)  # loads every library before anything is measured
WAYS = ("baseline", "all", "masked")
STEPS = 4  # that are timed
WEIGHTS = {"soft": 5.0, "masked_lm": 2.0, "cosine": 1.0}
TEMPERATURE = 2.0
PAD, CLS, SEP, MASK = SPECIAL = (0, 101, 102, 103)
MEDIAN_LENGTH, SPREAD = 28, 0.7  # tokens of a PyDocs text: a lognormal, and the std of its logs
BIN = 4  # so many lengths share batches, as in the authors' code


def rows(measured: dict[str, dict]) -> list[dict]:
    """One per way: its `name`, the `work`, `tokens_per_s` without padding, `peak_memory_mb`, both
    divided by the baseline's (`ratio`, `memory_ratio`), and `loss_difference`.

    That is |part - the baseline's| / the baseline's, the largest of the three parts of the loss; of
    `masked`, where the baseline looks at masked positions, too.
    """
    size, baseline = SIZES[machine.profile()], measured["baseline"]
    return [
        {
            "name": way,
            "work": f"{size.teacher_layers} -> {size.student_layers} layers of {size.hidden_size}, "
            f"batch {size.blocks} x {size.length}",
            "tokens_per_s": round(found["tokens_per_s"]),
            "ratio": round(found["tokens_per_s"] / baseline["tokens_per_s"], 2),
            "peak_memory_mb": round(found["peak_memory_mb"]),
            "memory_ratio": round(found["peak_memory_mb"] / baseline["peak_memory_mb"], 2),
            "loss_difference": float(f"{_difference(way, found, baseline):.1e}"),
        }
        for way, found in measured.items()
    ]


def _difference(way: str, found: dict, baseline: dict) -> float:
    positions = "masked" if way == "masked" else "all"
    expected = baseline["losses"][positions]
    return max(abs(found["losses"][positions][part] / expected[part] - 1) for part in expected)


def measure(way: str) -> dict:
    """The median `tokens_per_s` of a way's steps, its `peak_memory_mb`, and its `losses` in float32
    on two blocks before any training: for each choice of positions, the three parts.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    machine.use_all_cores()
    train, losses = (baseline, baseline_losses) if way == "baseline" else (ours, our_losses)
    train(*models(TINY), batches(TINY, way), way)
    size = SIZES[machine.profile()]
    teacher, student = models(size)
    texts = batches(size, way)
    ends = train(teacher, student, texts, way)
    tokens = [batch["attention_mask"].sum().item() for batch in texts]
    fresh = models(size)
    two = {name: ids[:2] for name, ids in batches(size, "masked")[0].items()}
    return {
        "tokens_per_s": median(
            n / (end - start) for n, (start, end) in zip(tokens[1:], pairwise(ends), strict=True)
        ),
        "peak_memory_mb": _peak_tensors_mb(lambda: train(*fresh, texts[:2], way))
        - _weights_mb(*fresh, way),
        "losses": {
            positions: losses(*models(size), two, positions)
            for positions in (("all", "masked") if way == "baseline" else (way,))
        },
    }


def _weights_mb(teacher: MaskedLM, student: MaskedLM, way: str) -> float:
    """10^6 bytes that training makes for weights: gradients, moments, ours of the teacher."""
    import torch

    copied = 0 if way == "baseline" else getattr(torch, machine.describe().dtype).itemsize
    return (3 * 4 * student.num_parameters() + copied * teacher.num_parameters()) / 1e6


def _peak_tensors_mb(work: Callable[[], object]) -> float:
    """10^6 bytes of tensors that are alive at the peak of `work`, beyond those before it."""
    import torch

    if machine.describe().device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes)) / 1e6


def models(size: Size) -> tuple[MaskedLM, MaskedLM]:
    """A teacher of random weights and the DistilBERT made from it, always the same two."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from course_utils.models.student import student_from_teacher

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.teacher_layers,
        num_attention_heads=size.hidden_size // 64,
        intermediate_size=4 * size.hidden_size,
        initializer_range=2 / size.hidden_size**0.5,  # logits of a standard deviation of 2
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    teacher = BertForMaskedLM(config).eval().to(machine.describe().device)
    return teacher, student_from_teacher(
        teacher, layers=size.student_layers, keep_token_types=False
    )


# --- texts ---


def batches(size: Size, way: str) -> list[Batch]:
    """One batch for each step: `input_ids`, `attention_mask` and `labels`, (B, S)."""
    import torch

    from course_utils.data.masking import mask_tokens

    generator = torch.Generator().manual_seed(0)
    texts = _texts(size, generator)
    made = (_padded if way == "baseline" else _packed)(texts, size, generator)[: STEPS + 1]
    masked = [
        mask_tokens(
            ids, special=SPECIAL, mask_id=MASK, vocab_size=size.vocab_size, generator=generator
        )
        for ids in made
    ]
    return [
        {"input_ids": hidden, "attention_mask": (ids != PAD).long(), "labels": labels}
        for ids, (hidden, labels) in zip(made, masked, strict=True)
    ]


def _texts(size: Size, generator: Generator) -> list[Tensor]:
    """Random tokens, each followed by [SEP]; enough of them that most bins fill a batch."""
    import torch

    lengths = torch.randn(100 * (STEPS + 1) * size.blocks, generator=generator)
    lengths = (MEDIAN_LENGTH * (SPREAD * lengths).exp()).long().clamp(1, size.length - 2)
    words = [
        torch.randint(MASK + 1, size.vocab_size, (n,), generator=generator)
        for n in lengths.tolist()
    ]
    return [torch.cat([text, torch.tensor([SEP])]) for text in words]


def _padded(texts: list[Tensor], size: Size, generator: Generator) -> list[Tensor]:
    """A text per row, (B, S): as many of one bin as a batch has places for, in random order."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    bins: dict[int, list[Tensor]] = {}
    for text in texts:
        row = torch.cat([torch.tensor([CLS]), text])
        bins.setdefault(len(row) // BIN, []).append(row)
    made = []
    for alike in bins.values():
        n = size.blocks * size.length // max(map(len, alike))
        for i in range(0, len(alike) - n + 1, n):
            made.append(pad_sequence(alike[i : i + n], batch_first=True, padding_value=PAD))
    return [made[i] for i in torch.randperm(len(made), generator=generator).tolist()]


def _packed(texts: list[Tensor], size: Size, _: Generator) -> list[Tensor]:
    """Texts one after the other in blocks, (B, S), as `data.blocks` makes them."""
    import torch

    stream, room = torch.cat(texts), size.length - 2
    inner = stream[: len(stream) // room * room].view(-1, room)
    blocks = torch.full((len(inner), size.length), SEP)
    blocks[:, 0], blocks[:, 1:-1] = CLS, inner
    return list(blocks.split(size.blocks))


# --- ours ---


def ours(teacher: MaskedLM, student: MaskedLM, texts: list[Batch], positions: str) -> list[float]:
    """The moments at which the steps ended, in seconds, of `distil_mlm` in its own data type."""
    from transformers import TrainerCallback

    from course_utils.distill.pretrain import PretrainRecipe, distil_mlm

    ends = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            ends.append(_now())

    blocks = [
        {"input_ids": ids, "labels": labels}
        for batch in texts
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
    ]
    recipe = PretrainRecipe(
        steps=len(texts), batch_size=len(texts[0]["labels"]), kl_positions=positions
    )
    distil_mlm(student, teacher, blocks, recipe, progress=False, callbacks=[Clock()])
    return ends


def our_losses(
    teacher: MaskedLM, student: MaskedLM, batch: Batch, positions: str
) -> dict[str, float]:
    """The parts of the loss of our trainer, in float32."""
    from transformers import TrainingArguments

    from course_utils.distill.pretrain import DistillationTrainer, PretrainRecipe
    from course_utils.distill.throughput import count

    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch, use_cpu=machine.describe().device == "cpu", report_to="none"
        )
        recipe = PretrainRecipe(kl_positions=positions)
        trainer = DistillationTrainer(student, teacher, arguments, recipe=recipe)
    trainer.teacher = teacher  # not the copy in another data type
    batch = {name: ids.to(student.device) for name, ids in batch.items()}
    trainer.compute_loss(student.train(), batch)
    counts = count(batch)
    return {name: (s / counts[trainer.counted[name]]).item() for name, s in trainer.sums.items()}


# --- the authors' way ---


def baseline(
    teacher: MaskedLM, student: MaskedLM, texts: list[Batch], _: str = "all"
) -> list[float]:
    """The moments at which the steps ended, in seconds."""
    import torch

    optimizer = torch.optim.AdamW(
        student.parameters(),
        lr=5e-4,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.0,
        foreach=False,
        fused=False,
    )
    ends = []
    for batch in texts:
        parts = _baseline_parts(teacher, student, batch, "all")
        sum(WEIGHTS[name] * part for name, part in parts.items()).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0, foreach=False)
        optimizer.step()
        optimizer.zero_grad()
        ends.append(_now())
    return ends


def baseline_losses(
    teacher: MaskedLM, student: MaskedLM, batch: Batch, positions: str
) -> dict[str, float]:
    """The parts of the loss of the authors' way; the soft one over all or masked positions."""
    parts = _baseline_parts(teacher, student, batch, positions)
    return {name: part.item() for name, part in parts.items()}


def _baseline_parts(teacher: MaskedLM, student: MaskedLM, batch: Batch, positions: str) -> Batch:
    import torch
    import torch.nn.functional as F

    ids, mask, labels = (
        batch[name].to(student.device) for name in ("input_ids", "attention_mask", "labels")
    )
    ours = student(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    with torch.no_grad():
        theirs = teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True)

    def selected(states: Tensor, where: Tensor) -> Tensor:
        return states.masked_select(where[..., None]).view(-1, states.shape[-1])  # (N, …)

    attended = mask.bool()
    compared = attended if positions == "all" else labels != -100
    logits, targets = (selected(each.logits, compared) for each in (ours, theirs))
    soft = F.kl_div(
        F.log_softmax(logits / TEMPERATURE, dim=-1),
        F.softmax(targets / TEMPERATURE, dim=-1),
        reduction="batchmean",
    )
    hidden, target = (selected(each.hidden_states[-1], attended) for each in (ours, theirs))
    return {
        "soft": soft * TEMPERATURE**2,
        "masked_lm": F.cross_entropy(ours.logits.flatten(0, 1), labels.flatten()),
        "cosine": F.cosine_embedding_loss(hidden, target, hidden.new_ones(len(hidden))),
    }


def _now() -> float:
    import torch

    if machine.describe().device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()
