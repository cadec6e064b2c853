"""The chunked loss against one that goes position by position: value, gradients, memory."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import BertConfig, BertForMaskedLM

from course_utils.distill.chunked import chunked_soft_kl
from course_utils.distill.losses import mean_over_counted, soft_kl
from course_utils.distill.refusals import NotFiniteError
from course_utils.errors import CourseError, DataError, ModelError

N, H, TEACHER_H, V = 23, 8, 12, 50
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


class SumOfTwo(nn.Module):
    """Logits from a base and a change to it: both get one and the same gradient."""

    def __init__(self):
        super().__init__()
        self.base = nn.Parameter(torch.randn(V, H))
        self.change = nn.Parameter(torch.randn(V, H))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden @ (self.base + self.change).T


HEADS: dict[str, Callable[[], nn.Module]] = {
    "matrix": lambda: nn.Linear(H, V, bias=False),
    "with bias": lambda: nn.Linear(H, V),
    "as BERT's": lambda: nn.Sequential(
        nn.Linear(H, H), nn.GELU(), nn.LayerNorm(H), nn.Linear(H, V)
    ),
    "sum of two": SumOfTwo,
}


def setting(head: str = "as BERT's", n: int = N, dtype=torch.float32):
    """Hidden states and heads, all random; the teacher's require gradients that must not come."""
    torch.manual_seed(0)
    student_head, teacher_head = HEADS[head](), nn.Linear(TEACHER_H, V)
    hidden = 2 * torch.randn(n, H), 2 * torch.randn(n, TEACHER_H)
    student, teacher = (h.to(dtype).requires_grad_() for h in hidden)
    return student, teacher, student_head.to(dtype), teacher_head.to(dtype)


def position_by_position(student, teacher, student_head, teacher_head, temperature=1.0) -> Tensor:
    """The formula, one position after the other, one exponential after the other."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        s = student_head(s[None])[0] / temperature
        t = teacher_head(t[None])[0].detach() / temperature
        q = [(t[c] - t.max()).exp() for c in range(len(t))]
        log_sum = (s - s.max()).exp().sum().log() + s.max()
        p = [each / sum(q) for each in q]
        total = total + sum(p[c] * (p[c].log() - s[c] + log_sum) for c in range(len(s)))
    return total * temperature**2 / len(student)


def plain(student, teacher, student_head, teacher_head, temperature=1.0) -> Tensor:
    with torch.no_grad():
        teacher_logits = teacher_head(teacher)
    logits = student_head(student)
    return mean_over_counted(soft_kl(logits, teacher_logits, temperature=temperature))


def in_float64(student, teacher, *heads):
    exact = (x.detach().double().requires_grad_() for x in (student, teacher))
    return *exact, *(copy.deepcopy(head).double() for head in heads)


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Each of the tensors, as a vector, is off by at most `tolerance` times its length."""
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        assert (f.double() - e.double()).norm() <= tolerance * e.double().norm()


def loss_and_gradients(loss: Tensor, student: Tensor, head: nn.Module) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, [student, *head.parameters()])]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_loss_and_gradients_equal_those_position_by_position(head, dtype, temperature):
    given = setting(head, dtype=dtype)
    loss = chunked_soft_kl(*given, temperature=temperature, chunk_size=7)
    assert loss.shape == ()
    found = loss_and_gradients(loss, given[0], given[2])
    assert {gradient.dtype for gradient in found[1:]} == {dtype}
    exact = in_float64(*given)
    expected = loss_and_gradients(
        position_by_position(*exact, temperature=temperature), exact[0], exact[2]
    )
    assert_near(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("n", [1, 7, 8, 23])
@pytest.mark.parametrize("chunk_size", [1, 7, 8, 256])
def test_the_size_of_a_chunk_changes_nothing(n, chunk_size):
    given = setting(n=n)
    expected = loss_and_gradients(plain(*given, temperature=2.0), given[0], given[2])
    loss = chunked_soft_kl(*given, temperature=2.0, chunk_size=chunk_size)
    assert_near(loss_and_gradients(loss, given[0], given[2]), expected, 1e-5)


def test_a_whole_vocabulary_in_float32_within_1e_4():
    torch.manual_seed(0)
    student, teacher = torch.randn(300, 64, requires_grad=True), torch.randn(300, 64)
    heads = nn.Linear(64, 30522), nn.Linear(64, 30522)
    for head in heads:
        nn.init.normal_(head.weight, std=0.3)
    expected = loss_and_gradients(plain(student, teacher, *heads, 2.0), student, heads[0])
    loss = chunked_soft_kl(student, teacher, *heads, temperature=2.0)
    assert_near(loss_and_gradients(loss, student, heads[0]), expected, 1e-4)


def test_what_follows_the_loss_scales_its_gradient():
    given = setting()
    weight = torch.tensor(-3.0, requires_grad=True)
    (weight * chunked_soft_kl(*given, chunk_size=7) + given[0].square().sum()).backward()
    found = [weight.grad, given[0].grad, *(p.grad for p in given[2].parameters())]
    again = setting()
    other = torch.tensor(-3.0, requires_grad=True)
    (other * plain(*again) + again[0].square().sum()).backward()
    expected = [other.grad, again[0].grad, *(p.grad for p in again[2].parameters())]
    assert_near(found, expected, 1e-5)


def test_gradients_add_up_over_backward_passes():
    given = setting()
    loss = chunked_soft_kl(*given, chunk_size=7)
    loss.backward(retain_graph=True)
    once = [given[0].grad.clone(), *(p.grad.clone() for p in given[2].parameters())]
    loss.backward()
    twice = [given[0].grad, *(p.grad for p in given[2].parameters())]
    assert_near(twice, [2 * gradient for gradient in once], 1e-6)


def test_the_teacher_gets_no_gradient():
    given = setting()
    chunked_soft_kl(*given, chunk_size=7).backward()
    assert given[1].grad is None
    assert all(p.grad is None for p in given[3].parameters())


@pytest.mark.parametrize("frozen", ["head", "hidden", "bias", "all"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(frozen):
    given, again = setting(), setting()
    for student, _, head, _ in (given, again):
        student.requires_grad_(frozen not in ("hidden", "all"))
        head.requires_grad_(frozen not in ("head", "all"))
        head[3].bias.requires_grad_(frozen not in ("head", "bias", "all"))
    loss, expected = chunked_soft_kl(*given, chunk_size=7), plain(*again)
    torch.testing.assert_close(loss, expected)
    assert loss.requires_grad == expected.requires_grad == (frozen != "all")
    if frozen != "all":
        loss.backward()
        expected.backward()
    pairs = zip([given[0], *given[2].parameters()], [again[0], *again[2].parameters()], strict=True)
    for found, wanted in pairs:
        assert (found.grad is None) == (wanted.grad is None)
        if wanted.grad is not None:
            assert_near([found.grad], [wanted.grad], 1e-5)


def test_without_gradient_there_is_only_the_loss():
    given = setting()
    with torch.no_grad():
        loss = chunked_soft_kl(*given, chunk_size=7)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, plain(*given).detach())


def test_a_function_as_head_teaches_the_weights_it_uses():
    student, teacher, head, teacher_head = setting()
    unused = nn.Parameter(torch.ones(3))
    first, second = head[0], head[3]
    loss = chunked_soft_kl(
        student, teacher, lambda h: second(torch.tanh(first(h))), teacher_head, chunk_size=7
    )
    loss.backward()
    expected = plain(
        student, teacher, lambda h: second(torch.tanh(first(h))), lambda t: teacher_head(t)
    )
    weights = [first.weight, first.bias, second.weight, second.bias]
    assert_near([w.grad for w in weights], torch.autograd.grad(expected, weights), 1e-5)
    assert unused.grad is None


def test_hidden_states_that_are_the_logits_already():
    student, teacher = torch.randn(9, V, requires_grad=True), torch.randn(9, V)
    loss = chunked_soft_kl(student, teacher, nn.Identity(), nn.Identity(), chunk_size=4)
    (found,) = torch.autograd.grad(loss, student)
    (expected,) = torch.autograd.grad(mean_over_counted(soft_kl(student, teacher)), student)
    assert_near([found], [expected], 1e-6)


def masked_lms() -> tuple[BertForMaskedLM, BertForMaskedLM]:
    config = {"vocab_size": 120, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"intermediate_size": 16, "max_position_embeddings": 16, "initializer_range": 0.3}
    torch.manual_seed(0)
    return tuple(BertForMaskedLM(BertConfig(**config, hidden_size=h)).eval() for h in (16, 24))


def test_a_masked_lm_whose_decoder_is_tied_to_its_embeddings():
    """The embeddings get both gradients: through the encoder and through the decoder."""
    student, teacher = masked_lms()
    assert student.cls.predictions.decoder.weight is student.bert.embeddings.word_embeddings.weight
    ids = torch.randint(5, 120, (2, 9))
    counted = torch.rand(2, 9) < 0.7

    def gradient(loss: Callable) -> Tensor:
        student.zero_grad()
        hidden = student.bert(ids).last_hidden_state[counted]
        teacher_hidden = teacher.bert(ids).last_hidden_state[counted]
        loss(hidden, teacher_hidden, student.cls, teacher.cls, temperature=2.0).backward()
        return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])

    assert_near([gradient(chunked_soft_kl)], [gradient(plain)], 1e-5)


def test_student_and_teacher_may_share_a_head():
    student, _, head, _ = setting()
    teacher = torch.randn_like(student)
    expected = loss_and_gradients(plain(student, teacher, head, head), student, head)
    loss = chunked_soft_kl(student, teacher, head, head, chunk_size=7)
    assert_near(loss_and_gradients(loss, student, head), expected, 1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_under_autocast_it_is_as_near_to_float32_as_the_plain_loss(shared):
    student, teacher, head, teacher_head = setting()
    if shared:
        teacher, teacher_head = torch.randn_like(student), head
    given = student, teacher, head, teacher_head
    expected = loss_and_gradients(plain(*given, 2.0), student, head)
    with torch.autocast("cpu", torch.bfloat16):
        loss = chunked_soft_kl(*given, temperature=2.0, chunk_size=7)
    found = loss_and_gradients(loss, student, head)
    assert {x.dtype for x in found} == {torch.float32}
    assert_near(found, expected, 2e-2)


def test_heads_that_keep_to_float32_under_autocast_have_float32_gradients():
    student, teacher, *heads = setting()
    expected = loss_and_gradients(plain(student, teacher, *heads), student, heads[0])

    def precisely(head: nn.Module) -> Callable[[Tensor], Tensor]:
        def call(hidden: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return head(hidden)

        return call

    with torch.autocast("cpu", torch.bfloat16):
        loss = chunked_soft_kl(student, teacher, *map(precisely, heads), chunk_size=7)
    assert_near(loss_and_gradients(loss, student, heads[0]), expected, 1e-5)


def test_float16_gradients_of_many_positions_do_not_vanish():
    """Divided by N before the backward pass, they would be below float16's smallest number."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2048, 16), torch.randn(2048, 16)
    heads = nn.Linear(16, 1000), nn.Linear(16, 1000)
    given = [
        student.half().requires_grad_(),
        teacher.half(),
        *(copy.deepcopy(h).half() for h in heads),
    ]
    loss = 2.0**14 * chunked_soft_kl(*given)
    (found,) = torch.autograd.grad(loss, given[0])
    exact = student.requires_grad_(), teacher, *heads
    (expected,) = torch.autograd.grad(2.0**14 * plain(*exact), student)
    assert_near([found], [expected], 5e-3)


def test_no_position_is_a_loss_of_zero_with_a_gradient_of_zero():
    given = setting(n=0)
    loss = chunked_soft_kl(*given)
    assert loss.item() == 0.0
    loss.backward()
    assert given[0].grad.shape == (0, H)
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in given[2].parameters())


@pytest.mark.parametrize("n_counted", [N, torch.tensor(N)], ids=["int", "tensor"])
def test_two_parts_add_up_to_the_whole(n_counted):
    student, teacher, *heads = setting()
    whole = chunked_soft_kl(student, teacher, *heads, chunk_size=7)
    parts = sum(
        chunked_soft_kl(student[rows], teacher[rows], *heads, chunk_size=7, n_counted=n_counted)
        for rows in (slice(0, 9), slice(9, N))
    )
    expected = loss_and_gradients(whole, student, heads[0])
    assert_near(loss_and_gradients(parts, student, heads[0]), expected, 1e-5)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns meanwhile."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def test_no_tensor_is_larger_than_a_chunk_of_logits_or_the_head():
    torch.manual_seed(0)
    student, teacher = torch.randn(200, H, requires_grad=True), torch.randn(200, H)
    heads = nn.Linear(H, V), nn.Linear(H, V)
    with Largest() as chunked:
        chunked_soft_kl(student, teacher, *heads, temperature=2.0, chunk_size=40).backward()
    with Largest() as whole:
        plain(student, teacher, *heads, 2.0).backward()
    assert chunked.elements == 40 * V
    assert whole.elements == 200 * V


def test_each_head_sees_each_position_once():
    student, teacher, *heads = setting()
    seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}
    for name, head in zip(seen, heads, strict=True):
        head.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0]))
    chunked_soft_kl(student, teacher, *heads, chunk_size=7).backward()
    assert [len(hidden) for hidden in seen["student"]] == [7, 7, 7, 2]
    assert torch.equal(torch.cat(seen["student"]), student)
    assert torch.equal(torch.cat(seen["teacher"]), teacher)


def test_inputs_are_not_changed():
    student, teacher, *heads = setting()
    before = (
        student.detach().clone(),
        teacher.detach().clone(),
        copy.deepcopy(heads[0].state_dict()),
    )
    chunked_soft_kl(student, teacher, *heads, chunk_size=7).backward()
    assert torch.equal(student, before[0])
    assert torch.equal(teacher, before[1])
    assert all(torch.equal(now, before[2][name]) for name, now in heads[0].state_dict().items())


def test_a_second_derivative_is_refused_and_not_taken_for_zero():
    student, teacher, *heads = setting()
    loss = chunked_soft_kl(student, teacher, *heads)
    with pytest.raises(CourseError, match="differentiated again"):
        torch.autograd.grad(loss, student, create_graph=True)


# Bad input


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_none(temperature):
    with pytest.raises(DataError, match="temperature"):
        chunked_soft_kl(*setting(), temperature=temperature)


@pytest.mark.parametrize("chunk_size", [0, -7])
def test_chunks_of_nothing(chunk_size):
    with pytest.raises(DataError, match="256"):
        chunked_soft_kl(*setting(), chunk_size=chunk_size)


def test_vocabularies_that_differ():
    student, teacher, head, _ = setting()
    with pytest.raises(ModelError, match=f"student has {V} classes, the teacher {V + 1}"):
        chunked_soft_kl(student, teacher, head, nn.Linear(TEACHER_H, V + 1))


def test_other_than_two_matrices_of_the_same_positions():
    student, teacher, *heads = setting()
    for pair in [(student[:-1], teacher), (student[None], teacher[None]), (student[0], teacher[0])]:
        with pytest.raises(DataError, match="same positions"):
            chunked_soft_kl(*pair, *heads)


@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize("junk", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_named(whose, junk):
    given = setting()
    with torch.no_grad():
        given[0 if whose == "student" else 1][17, 3] = junk
    with pytest.raises(NotFiniteError, match=rf"The {whose}'s logits (?s:.*) position 17,"):
        chunked_soft_kl(*given, chunk_size=7)
