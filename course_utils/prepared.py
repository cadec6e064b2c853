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
from course_utils.data.encoding import MAX_LENGTH, EncodedTexts, encode
from course_utils.data.sources import find_model
from course_utils.data.tasks import load_task
from course_utils.distill.mlm import train_mlm
from course_utils.distill.trainer import Recipe, train
from course_utils.files import sha256
from course_utils.models.mlm import load_masked_lm
from course_utils.steps import Steps

N_LABELLED = {"smoke": 128, "cpu": 2400, "gpu": 14400}
N_READ = {"smoke": 64, "cpu": 12000, "gpu": 12000}
MLM_EPOCHS = {"smoke": 1, "cpu": 1, "gpu": 5}
MLM_LENGTH = 48


def pydocs_teacher(*, say: Callable[[str], object] = print) -> Path:
    """The folder of MiniLM fine-tuned on PyDocs, with its tokenizer: the teacher of notebook 00.

    Takes about a minute on two cores the first time, and no time afterwards.
    """
    recipe = Recipe(epochs=2, learning_rate=1e-4)
    n_texts = N_LABELLED[machine.profile()]
    return _prepared("pydocs_teacher", _fine_tune, n_texts, MAX_LENGTH, recipe, say)


def masked_lm_teacher(*, say: Callable[[str], object] = print) -> Path:
    """The folder of MiniLM with a head that guesses hidden words of PyDocs, and its tokenizer.

    The head is tied to the word embeddings and trained as in notebook 02. Takes about a minute and
    a half on two cores the first time, and no time afterwards.
    """
    profile = machine.profile()
    recipe = Recipe(MLM_EPOCHS[profile], learning_rate=7e-4, batch_size=32, freeze_words=True)
    return _prepared("masked_lm_teacher", _learn_to_guess, N_READ[profile], MLM_LENGTH, recipe, say)


def _prepared(
    name: str,
    work: Callable[..., PreTrainedModel],
    n_texts: int,
    max_length: int,
    recipe: Recipe,
    say: Callable[[str], object],
) -> Path:
    base = find_model(say=say).path
    tokenizer = AutoTokenizer.from_pretrained(base, model_max_length=MAX_LENGTH)
    task = load_task("pydocs", say=say, progress=False)
    rows = task.train[:n_texts]
    texts = encode(tokenizer, rows["text"], rows["label"], max_length=max_length)

    def make(folder: Path) -> None:
        set_seed(recipe.seed)
        model = work(base, tokenizer, texts, task.labels, recipe)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    steps = Steps(machine.cache_dir() / "prepared", {}, say=say)
    folder, _ = steps.do(
        f"{name}-{machine.profile()}",  # so that one size does not drive the other out
        make,
        weights=sha256(base / "model.safetensors"),
        texts=texts.fingerprint,
        labels=texts.columns["labels"].tolist(),
        recipe=asdict(recipe),
    )
    return folder


def _fine_tune(
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    texts: EncodedTexts,
    labels: tuple[str, ...],
    recipe: Recipe,
) -> PreTrainedModel:
    model = AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: k for k, label in enumerate(labels)},
        dtype=torch.float32,
    )
    train(model, texts, recipe, progress=False)
    return model


def _learn_to_guess(
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    texts: EncodedTexts,
    labels: tuple[str, ...],
    recipe: Recipe,
) -> PreTrainedModel:
    model = load_masked_lm(base)
    train_mlm(model, tokenizer, texts, recipe, progress=False)
    return model
