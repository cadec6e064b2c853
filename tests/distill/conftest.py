"""What the distillation tests share: a tiny random BERT, texts of unequal length, float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from course_utils.data.encoding import EncodedTexts
from course_utils.distill import cache, trainer
from course_utils.machine import describe


@pytest.fixture
def make_model() -> Callable[..., BertForSequenceClassification]:
    """A function of a seed and changes to the configuration; equal seeds give equal weights."""

    def make(seed: int = 0, **changes) -> BertForSequenceClassification:
        config = {
            "vocab_size": 100,
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 32,
            "num_labels": 3,
            "initializer_range": 0.2,  # large enough for logits that differ from text to text
        } | changes
        torch.manual_seed(seed)
        return BertForSequenceClassification(BertConfig(**config)).eval()

    return make


@pytest.fixture
def texts() -> EncodedTexts:
    """46 texts of 3 to 20 tokens with labels; the longest come neither first nor last."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 21, (46,), generator=generator).tolist()
    ids = [torch.randint(5, 100, (n,), generator=generator).tolist() for n in lengths]
    return EncodedTexts(ids, labels=torch.randint(0, 3, (46,), generator=generator))


@pytest.fixture
def float32_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teacher and training run on the CPU in float32, whatever this machine is fast in."""
    machine = replace(describe(), device="cpu", dtype="float32")
    for module in (cache, trainer):
        monkeypatch.setattr(module, "describe", lambda: machine)
