"""Models that several notebooks start from: trained once on this machine, then kept in the cache.

A model is trained again when the weights it starts from, its texts or its recipe have changed, or
when a file of it is not as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from course_utils import machine
from course_utils.data.blocks import to_blocks
from course_utils.data.corpus import read_corpus
from course_utils.data.encoding import MAX_LENGTH, encode
from course_utils.data.masking import MaskedBlocks
from course_utils.data.sources import find_model
from course_utils.data.tasks import load_task
from course_utils.distill.pretrain import PretrainRecipe, distil_mlm
from course_utils.distill.trainer import Recipe, train
from course_utils.files import sha256
from course_utils.models.mlm import load_masked_lm
from course_utils.steps import Steps

N_LABELLED = {"smoke": 128, "cpu": 2400, "gpu": 14400}
MLM_STEPS = {"smoke": 2, "cpu": 240, "gpu": 4000}
MLM_LENGTH = 64


def pydocs_teacher(*, say: Callable[[str], object] = print) -> Path:
    """The folder of MiniLM fine-tuned on PyDocs, with its tokenizer: the teacher of notebook 00.

    Takes about a minute on two cores the first time, and no time afterwards.
    """
    base, tokenizer = _start(say)
    task = load_task("pydocs", say=say, progress=False)
    rows = task.train[: N_LABELLED[machine.profile()]]
    texts = encode(tokenizer, rows["text"], rows["label"], max_length=MAX_LENGTH)
    recipe = Recipe(epochs=2, learning_rate=1e-4)

    def fine_tuned() -> PreTrainedModel:
        set_seed(recipe.seed)
        model = AutoModelForSequenceClassification.from_pretrained(
            base,
            num_labels=len(task.labels),
            id2label=dict(enumerate(task.labels)),
            label2id={label: k for k, label in enumerate(task.labels)},
            dtype=torch.float32,
        )
        train(model, texts, recipe, progress=False)
        return model

    return _kept(
        "pydocs_teacher",
        fine_tuned,
        tokenizer,
        say,
        weights=sha256(base / "model.safetensors"),
        texts=texts.fingerprint,
        labels=texts.columns["labels"].tolist(),
        recipe=asdict(recipe),
    )


def masked_lm_teacher(*, say: Callable[[str], object] = print) -> Path:
    """The folder of MiniLM with a head that guesses hidden words of PyDocs, and its tokenizer.

    The head is tied to the word embeddings; all of the model learns, from blocks of 64 tokens.
    Takes about a minute and a half on two cores the first time, and no time afterwards.
    """
    base, tokenizer = _start(say)
    corpus = read_corpus("pydocs", say=say)
    blocks = MaskedBlocks(to_blocks(corpus, tokenizer, length=MLM_LENGTH, say=say), tokenizer)
    recipe = PretrainRecipe(MLM_STEPS[machine.profile()], batch_size=32, learning_rate=7e-4)

    def learned() -> PreTrainedModel:
        set_seed(recipe.seed)
        model = load_masked_lm(base)
        distil_mlm(model, None, blocks, recipe, progress=False)
        return model

    return _kept(
        "masked_lm_teacher",
        learned,
        tokenizer,
        say,
        weights=sha256(base / "model.safetensors"),
        blocks=blocks.fingerprint,
        recipe=asdict(recipe),
    )


def _start(say: Callable[[str], object]) -> tuple[Path, PreTrainedTokenizerBase]:
    base = find_model(say=say).path
    return base, AutoTokenizer.from_pretrained(base, model_max_length=MAX_LENGTH)


def _kept(
    name: str,
    trained: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    say: Callable[[str], object],
    **inputs,
) -> Path:
    """The folder of what `trained` returns, called only if nothing was kept for these inputs."""

    def make(folder: Path) -> None:
        trained().save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    steps = Steps(machine.cache_dir() / "prepared", {}, say=say)
    # The profile is in the name, so that one size does not drive the other out.
    folder, _ = steps.do(f"{name}-{machine.profile()}", make, **inputs)
    return folder
