"""The teacher's signals against a plain forward pass of the teacher, one text at a time."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from course_utils.data.encoding import EncodedTexts, pad
from course_utils.distill import cache
from course_utils.distill.cache import teacher_signals
from course_utils.errors import ModelError
from course_utils.machine import describe


@torch.no_grad()
def one_by_one(teacher, texts: EncodedTexts, layers: tuple[int, ...] = ()):
    """Logits (N, C) and [CLS] vectors (N, K, H) of each text alone: no padding, eval mode."""
    teacher = copy.deepcopy(teacher).eval()
    outputs = [
        teacher(input_ids=torch.tensor([ids]), output_hidden_states=True) for ids in texts.input_ids
    ]
    logits = torch.cat([output.logits for output in outputs])
    hidden = [[output.hidden_states[k][0, 0] for k in layers] for output in outputs]
    return logits, torch.stack([torch.stack(vectors) for vectors in hidden]) if layers else None


@pytest.mark.usefixtures("float32_cpu")
class TestInFloat32:
    def test_logits_are_the_teachers_own_in_the_order_of_the_texts(self, make_model, texts):
        teacher = make_model()
        expected, _ = one_by_one(teacher, texts)
        assert expected.std(dim=0).min() > 0.05  # texts differ, so their order matters
        signals = teacher_signals(teacher, texts, batch_size=8, progress=False)
        assert signals["teacher_logits"].dtype == torch.float32
        torch.testing.assert_close(signals["teacher_logits"], expected, rtol=1e-4, atol=1e-4)

    def test_hidden_states_are_the_cls_vectors_after_the_layers_asked_for(self, make_model, texts):
        teacher = make_model()
        layers = (2, 4, 0, 1)
        _, expected = one_by_one(teacher, texts, layers)
        hidden = teacher_signals(
            teacher, texts, hidden_layers=layers, batch_size=8, progress=False
        )["teacher_hidden"]
        assert hidden.shape == (len(texts), 4, 32)
        assert hidden.dtype == torch.float16
        torch.testing.assert_close(hidden.float(), expected, rtol=1e-2, atol=1e-2)
        # Layer k is the output of the k-th encoder layer, 0 is what goes into the first.
        seen = {}
        probe = copy.deepcopy(teacher)
        probe.bert.embeddings.register_forward_hook(lambda *call: seen.update({0: call[2]}))
        for k, layer in enumerate(probe.bert.encoder.layer, start=1):
            layer.register_forward_hook(lambda *call, k=k: seen.update({k: call[2]}))
        with torch.no_grad():
            probe(input_ids=torch.tensor([texts.input_ids[3]]))
        for column, k in enumerate(layers):
            output = seen[k][0] if isinstance(seen[k], tuple) else seen[k]
            torch.testing.assert_close(
                hidden[3, column].float(), output.reshape(-1, 32)[0], rtol=1e-2, atol=1e-2
            )

    def test_without_hidden_layers_there_are_logits_alone(self, make_model, texts):
        assert set(teacher_signals(make_model(), texts, progress=False)) == {"teacher_logits"}

    @pytest.mark.parametrize("batch_size", [1, 7, 46, 1000])
    def test_batch_size_and_padding_do_not_matter(self, make_model, texts, batch_size):
        teacher = make_model()
        found, expected = (
            teacher_signals(teacher, texts, hidden_layers=(4,), batch_size=n, progress=False)
            for n in (batch_size, 16)
        )
        for name, tolerance in (("teacher_logits", 1e-4), ("teacher_hidden", 1e-2)):
            torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance)

    def test_dropout_is_off_though_the_teacher_is_in_train_mode(self, make_model, texts):
        teacher = make_model(hidden_dropout_prob=0.5)
        expected = teacher_signals(teacher, texts, progress=False)["teacher_logits"]
        assert torch.equal(
            teacher_signals(teacher.train(), texts, progress=False)["teacher_logits"], expected
        )

    def test_signals_carry_no_gradient(self, make_model, texts):
        signals = teacher_signals(make_model(), texts, hidden_layers=(1,), progress=False)
        assert not any(signal.requires_grad for signal in signals.values())

    @pytest.mark.parametrize("layers", [(5,), (-1,), (1, 99)])
    def test_layers_that_the_teacher_lacks_are_refused(self, make_model, texts, layers):
        with pytest.raises(ModelError, match=r"not in this teacher(?s:.*)0 .*to 4"):
            teacher_signals(make_model(), texts, hidden_layers=layers, progress=False)

    def test_no_texts_give_empty_signals(self, make_model):
        nothing = EncodedTexts([], labels=torch.empty(0, dtype=torch.long))
        signals = teacher_signals(make_model(), nothing, hidden_layers=(1, 2), progress=False)
        assert {name: tuple(s.shape) for name, s in signals.items()} == {
            "teacher_logits": (0, 3),
            "teacher_hidden": (0, 2, 32),
        }

    def test_progress_is_shown_only_if_wanted(self, make_model, texts, capfd):
        teacher_signals(make_model(), texts, progress=False)
        assert capfd.readouterr() == ("", "")
        teacher_signals(make_model(), texts, progress=True)
        assert "46/46" in capfd.readouterr().err


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fast", ["float32", "bfloat16"])
def test_the_teacher_is_left_as_it_was(make_model, texts, monkeypatch, fast, training):
    machine = replace(describe(), device="cpu", dtype=fast)
    monkeypatch.setattr(cache, "describe", lambda: machine)
    teacher = make_model().train(training)
    teacher.bert.pooler.eval()  # a part may be in another mode than the whole
    teacher.classifier.weight.requires_grad_(False)
    teacher(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([0])).loss.backward()
    before = copy.deepcopy(teacher)
    gradients = [p.grad if p.grad is None else p.grad.clone() for p in teacher.parameters()]

    teacher_signals(teacher, texts, hidden_layers=(1,), progress=False)

    assert [m.training for m in teacher.modules()] == [m.training for m in before.modules()]
    for (name, now), then in zip(teacher.named_parameters(), before.parameters(), strict=True):
        assert now.dtype == then.dtype, name
        assert now.device == then.device, name
        assert now.requires_grad == then.requires_grad, name
        assert torch.equal(now, then), name
    for (name, now), then in zip(teacher.named_parameters(), gradients, strict=True):
        assert (now.grad is None) == (then is None), name
        assert now.grad is None or torch.equal(now.grad, then), name


def test_the_machines_fast_dtype_is_near_float32_and_equal_to_the_model_in_that_dtype(
    make_model, texts
):
    machine = describe()
    teacher = make_model()
    found = teacher_signals(teacher, texts, batch_size=1, progress=False)["teacher_logits"]
    assert found.dtype == torch.float32
    exact, _ = one_by_one(teacher, texts)
    assert (found - exact).abs().max() < 0.1 * exact.abs().max()
    fast = copy.deepcopy(teacher).to(machine.device, getattr(torch, machine.dtype))
    with torch.no_grad():
        same = torch.cat(
            [
                fast(
                    input_ids=torch.tensor([ids], device=machine.device),
                    attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=machine.device),
                ).logits
                for ids in texts.input_ids
            ]
        )
    torch.testing.assert_close(found, same.float().cpu(), rtol=1e-3, atol=1e-3)


def test_every_text_meets_its_own_padding_only(make_model, monkeypatch):
    """Texts of like length share a batch, so that little padding is read."""
    lengths = [20, 3, 20, 3, 20, 3, 20, 3]
    texts = EncodedTexts([[7] * n for n in lengths])
    read = []

    def pad_and_count(*args):
        batch = pad(*args)
        read.append(batch["input_ids"].numel())
        return batch

    monkeypatch.setattr(cache, "pad", pad_and_count)
    teacher_signals(make_model(), texts, batch_size=4, progress=False)
    assert read == [4 * 3, 4 * 20]
