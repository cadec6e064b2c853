"""Exercises of notebook 05: right answers written another way are right, real slips are named."""

import hashlib
import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_utils.classroom.checks import exercises
from course_utils.data.masking import mask_tokens
from course_utils.distill.checkpoints import find_trouble
from course_utils.distill.losses import masked_lm, soft_kl

MINE = {name: exercise for name, exercise in exercises().items() if exercise.notebook == "05"}


# Right answers, written in other ways


def mask_with_the_library(ids, special, mask_id, vocab_size, share, generator):
    options = {"mask_id": mask_id, "vocab_size": vocab_size, "share": share}
    return mask_tokens(ids, special=special, generator=generator, **options)


def mask_in_place_of_copies(ids, special, mask_id, vocab_size, share, generator):
    """As in the many scripts that descend from BERT's: three draws of true and false."""

    def toss(chance):
        return torch.bernoulli(torch.full(ids.shape, chance), generator=generator).bool()

    masked, labels = ids.clone(), ids.clone()
    chosen = toss(share)
    for token in special:
        chosen[ids == token] = False
    labels[~chosen] = -100
    to_mask = toss(0.8) & chosen
    masked[to_mask] = mask_id
    to_random = toss(0.5) & chosen & ~to_mask
    ordinary = torch.tensor([token for token in range(vocab_size) if token not in special])
    places = torch.randint(len(ordinary), ids.shape, generator=generator)
    masked[to_random] = ordinary[places][to_random]
    return masked, labels


def masks_with_numpy(seed, epoch, number, length, share):
    return np.random.default_rng([seed, epoch, number]).random(length) < share


def masks_with_a_hash(seed, epoch, number, length, share):
    digest = hashlib.sha256(f"{seed} {epoch} {number}".encode()).digest()
    mine = random.Random(int.from_bytes(digest, "big"))
    return [mine.random() < share for _ in range(length)]


def blocks_with_a_last_sep(documents, length, cls, sep):
    """[SEP] after every document, the last one too, and tensors for blocks."""
    stream = torch.tensor([token for document in documents for token in [*document, sep]])
    whole = len(stream) // (length - 2)
    body = stream[: whole * (length - 2)].reshape(whole, length - 2)
    ends = torch.full((whole, 1), cls), body, torch.full((whole, 1), sep)
    return torch.cat(ends, dim=1)


def blocks_that_begin_without_sep(documents, length, cls, sep):
    """As the library does it: no [SEP] where a block begins."""
    stream = []
    for document in documents:
        if len(stream) % (length - 2):
            stream.append(sep)
        stream += document
    blocks = []
    while len(stream) >= length - 2:
        blocks.append([cls, *stream[: length - 2], sep])
        stream = stream[length - 2 :]
    return blocks


def step_with_the_library(student, teacher, batch, optimizer, temperature):
    teacher.eval()
    student.train()
    labels = batch.pop("labels")
    at = labels != -100
    with torch.inference_mode():
        target = teacher(**batch).logits[at]
    logits = student(**batch).logits
    loss = soft_kl(logits[at], target.clone(), temperature=temperature).mean()
    loss = loss + masked_lm(logits, labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def step_with_detach(student, teacher, batch, optimizer, temperature):
    student.train(), teacher.eval()
    counted = batch["labels"] != -100
    p = F.softmax(teacher(batch["input_ids"]).logits.detach()[counted] / temperature, dim=-1)
    out = student(**batch)
    log_q = F.log_softmax(out.logits[counted] / temperature, dim=-1)
    loss = F.kl_div(log_q, p, reduction="batchmean") * temperature**2 + out.loss
    for parameter in student.parameters():
        parameter.grad = None
    loss.backward()
    optimizer.step()
    return loss.item()


def accumulated_with_the_library(model, micro_batches, optimizer):
    n = sum((batch["labels"] != -100).sum() for batch in micro_batches)
    total = 0.0
    for batch in micro_batches:
        loss = masked_lm(model(**batch).logits, batch["labels"], n_counted=n)
        loss.backward()
        total += loss.item()
    optimizer.step()
    optimizer.zero_grad()
    return total


def accumulated_by_weighing_means(model, micro_batches, optimizer):
    counts = [(batch["labels"] != -100).sum().item() for batch in micro_batches]
    optimizer.zero_grad()
    losses = []
    for batch, count in zip(micro_batches, counts, strict=True):
        loss = model(**batch).loss * count / sum(counts)
        loss.backward()
        losses.append(loss.detach())
    optimizer.step()
    return torch.stack(losses).sum()


def newest_with_max(folder):
    whole = [path for path in folder.glob("checkpoint-*") if find_trouble(path) is None]
    return max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def newest_by_hand(folder):
    steps = [p.name[len("checkpoint-") :] for p in folder.iterdir() if p.name[:5] == "check"]
    for step in sorted(map(int, steps), reverse=True):
        manifest = folder / f"checkpoint-{step}" / "manifest.json"
        if manifest.exists():
            hashes = json.loads(manifest.read_text())
            files = {name: (manifest.parent / name).read_bytes() for name in hashes}
            if all(hashlib.sha256(data).hexdigest() == hashes[n] for n, data in files.items()):
                return str(manifest.parent)
    return None


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("mask_tokens_by_hand", mask_with_the_library),
        ("mask_tokens_by_hand", mask_in_place_of_copies),
        ("masks_for", masks_with_numpy),
        ("masks_for", masks_with_a_hash),
        ("to_blocks_by_hand", blocks_with_a_last_sep),
        ("to_blocks_by_hand", blocks_that_begin_without_sep),
        ("training_step", step_with_the_library),
        ("training_step", step_with_detach),
        ("accumulate", accumulated_with_the_library),
        ("accumulate", accumulated_by_weighing_means),
        ("newest_valid", newest_with_max),
        ("newest_valid", newest_by_hand),
    ],
)
def test_another_way_to_the_right_answer_is_right(name, answer):
    verdict = MINE[name].judge(answer)
    assert verdict.state == "right", verdict.why


# Slips as learners write them


def mask_with_mistakes(
    ids, special, mask_id, vocab_size, share, generator, *, random_share=0.5, spare=True
):
    masked, labels = ids.clone(), ids.clone()
    chosen = torch.rand(ids.shape, generator=generator) < share
    if spare:
        chosen &= ~torch.isin(ids, torch.tensor(special))
    labels[~chosen] = -100
    to_mask = chosen & (torch.rand(ids.shape, generator=generator) < 0.8)
    masked[to_mask] = mask_id
    left = chosen & ~to_mask
    to_random = left & (torch.rand(ids.shape, generator=generator) < random_share)
    words = torch.randint(5, vocab_size, ids.shape, generator=generator)
    masked[to_random] = words[to_random]
    return masked, labels


def mask_all(ids, special, mask_id, vocab_size, share, generator):
    chosen = torch.rand(ids.shape, generator=generator) < share
    return ids.masked_fill(chosen, mask_id), ids.masked_fill(~chosen, -100)


def masks_with_a_seeded_torch(seed, epoch, number, length, share):
    torch.manual_seed(seed + epoch + number)
    return torch.rand(length) < share


def masks_by_luck(seed, epoch, number, length, share):
    return torch.bernoulli(torch.full((length,), share)).bool()


def masks_by_numpys_luck(seed, epoch, number, length, share):
    np.random.seed(seed * 10**6 + epoch * 10**4 + number)
    return np.random.rand(length) < share


def blocks_in_the_usual_way(documents, length, cls, sep):
    cut = [[cls, *document[: length - 2], sep] for document in documents]
    return [block + [0] * (length - len(block)) for block in cut]


def blocks_as_in_group_texts(documents, length, cls, sep):
    stream = [token for document in documents for token in document]
    end = len(stream) // length * length
    return [stream[k : k + length] for k in range(0, end, length)]


def naive_step(student, teacher, batch, optimizer, temperature, *, prepare=True, factor=True):
    if prepare:
        teacher.eval(), student.train()
    target, out = teacher(batch["input_ids"]).logits, student(**batch)
    at = batch["labels"] != -100
    soft = F.kl_div(
        F.log_softmax(out.logits[at] / temperature, -1),
        F.softmax(target[at] / temperature, -1),
        reduction="batchmean",
    )
    loss = soft * (temperature**2 if factor else 1) + out.loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def mean_of_losses(model, micro_batches, optimizer):
    optimizer.zero_grad()
    total = 0
    for batch in micro_batches:
        loss = model(**batch).loss / len(micro_batches)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def one_backward(model, micro_batches, optimizer):
    n = sum((batch["labels"] != -100).sum() for batch in micro_batches)
    loss = sum(model(**b).loss * (b["labels"] != -100).sum() for b in micro_batches) / n
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@pytest.mark.parametrize(
    ("name", "answer", "mistake"),
    [
        (
            "mask_tokens_by_hand",
            lambda *case: mask_with_mistakes(*case, random_share=0.0),
            "none_is_random",
        ),
        (
            "mask_tokens_by_hand",
            lambda *case: mask_with_mistakes(*case, random_share=0.1),
            "a_tenth_of_the_rest",
        ),
        (
            "mask_tokens_by_hand",
            lambda *case: mask_with_mistakes(*case, random_share=1.0),
            "nothing_stays",
        ),
        (
            "mask_tokens_by_hand",
            lambda *case: mask_with_mistakes(*case, spare=False),
            "special_masked",
        ),
        ("mask_tokens_by_hand", mask_all, "always_mask_and_special_masked"),
        ("masks_for", masks_with_a_seeded_torch, "a_sum_of_three_and_global_state"),
        ("masks_for", masks_by_luck, "nothing_seeded"),
        ("masks_for", masks_by_numpys_luck, "global_state"),
        ("to_blocks_by_hand", blocks_in_the_usual_way, "cut_off_and_padded"),
        ("to_blocks_by_hand", blocks_as_in_group_texts, "no_sep_between_and_neither_cls_nor_sep"),
        ("training_step", naive_step, "teacher_with_gradient"),
        (
            "training_step",
            lambda *case: naive_step(*case, prepare=False),
            "modes_not_set_and_teacher_with_gradient",
        ),
        (
            "training_step",
            lambda *case: naive_step(*case, factor=False),
            "teacher_with_gradient_and_no_t_squared",
        ),
        ("accumulate", mean_of_losses, "mean_of_means"),
        ("accumulate", one_backward, "all_in_memory"),
        (
            "newest_valid",
            lambda folder: sorted(folder.glob("checkpoint-*"))[-1],
            "sorted_as_text_and_torn_accepted_and_raises_where_there_is_none",
        ),
        (
            "newest_valid",
            lambda folder: max(
                (p for p in folder.glob("checkpoint-*") if find_trouble(p) is None), default=None
            ),
            "sorted_as_text",
        ),
        (
            "newest_valid",
            lambda folder: max(folder.glob("checkpoint-*"), key=lambda p: p.stat().st_mtime),
            "by_time_and_torn_accepted_and_raises_where_there_is_none",
        ),
    ],
)
def test_slips_as_learners_write_them_are_named(name, answer, mistake):
    verdict = MINE[name].judge(answer)
    assert (verdict.state, verdict.mistake) == ("wrong", mistake), verdict.why


def test_what_nobody_foresaw_is_told_as_facts():
    def half_of_the_rest_and_then_some(*case):
        return mask_with_mistakes(*case, random_share=0.75)

    verdict = MINE["mask_tokens_by_hand"].judge(half_of_the_rest_and_then_some)
    assert (verdict.state, verdict.mistake) == ("wrong", None)
    told = verdict.why.splitlines()[1:]
    assert len(told) == 2
    assert told[0].strip().startswith("of those with a label, are another token now: 0.1")
    assert told[1].strip().startswith("of those with a label, are as they were: 0.05")


def test_an_error_names_the_learners_own_line():
    def broken(folder):
        return folder.nothing_like_this

    why = MINE["newest_valid"].judge(broken).why
    assert "AttributeError" in why
    assert "return folder.nothing_like_this" in why


def test_a_function_that_returns_something_else_is_told_what_is_wanted():
    why = MINE["mask_tokens_by_hand"].judge(lambda ids, *others: ids).why
    assert "a torch tensor of shape" in why
    assert "a pair of tensors" in why


def test_hiding_tokens_in_the_callers_own_tensor_is_found_out():
    def in_place(ids, *others):
        masked, labels = mask_with_the_library(ids, *others)
        ids.copy_(masked)
        return ids, labels

    verdict = MINE["mask_tokens_by_hand"].judge(in_place)
    assert verdict.state == "wrong"
    assert "changes `ids`" in verdict.why


def test_watching_leaves_the_random_numbers_of_everybody_else_alone():
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = torch.rand(3), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    for answer in (masks_with_a_seeded_torch, masks_by_luck, masks_by_numpys_luck):
        MINE["masks_for"].judge(answer)
    assert torch.rand(3).equal(expected[0])
    assert (random.random(), np.random.rand()) == expected[1:]


def test_watching_leaves_no_folders_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert MINE["newest_valid"].judge(newest_with_max).state == "right"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("round_", range(3))
@pytest.mark.parametrize(
    ("name", "mistake"),
    [("mask_tokens_by_hand", "generator_not_used"), ("masks_for", "nothing_seeded")],
)
def test_luck_does_not_change_a_verdict(name, mistake, round_):
    torch.manual_seed(round_)
    assert MINE[name].judge(MINE[name].mistakes[mistake].function).mistake == mistake
