"""Adversarial training: each text is read twice, as it is and moved to where the loss is larger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback

from course_utils.data.encoding import EncodedTexts, PadBatch
from course_utils.distill.trainer import Recipe, TaskTrainer, fit
from course_utils.errors import DataError


class FgmTrainer(TaskTrainer):
    """A `TaskTrainer` whose loss is that of the texts plus that of the same texts, moved.

    What the word embeddings hand to the model, (B, S, H), is moved by `epsilon` in the direction of
    the loss's gradient g, scaled to length 1 over all tokens of a text: r = epsilon · g / ‖g‖₂.
    The move counts as a constant. The table of embeddings is not moved, so that frozen ones will
    do, and a word that stands twice in a text moves to two places.

    Miyato et al. 2017, "Adversarial Training Methods for Semi-Supervised Text Classification",
    equations 5 and 6. They scale the embeddings to mean 0 and variance 1 first, so that an epsilon
    means the same in every model; these are left as they are. This kind of move is known as the
    fast gradient method (FGM).
    """

    def __init__(self, *args, epsilon: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.epsilon = epsilon

    def training_step(self, model, inputs, *args, **kwargs):
        words = self.model.get_input_embeddings()
        move = words.weight.new_zeros(*inputs["input_ids"].shape, words.embedding_dim)  # (B, S, H)
        with _added(words, move.requires_grad_()):
            clean = super().training_step(model, inputs, *args, **kwargs)
        with _added(words, self.epsilon * _direction(move.grad)):
            return clean + super().training_step(model, inputs, *args, **kwargs)


def train_adversarially(
    model: PreTrainedModel,
    texts: EncodedTexts,
    recipe: Recipe,
    *,
    epsilon: float = 1.0,
    dev: EncodedTexts | None = None,
    patience: int | None = None,
    progress: bool = True,
    callbacks: list[TrainerCallback] | None = None,
) -> list[dict[str, float]]:
    """The log of training `model` in place as `FgmTrainer` does; see `fit`.

    The loss in the log is the sum of both, and a step takes twice the time. Raises `DataError`
    unless `epsilon` is a finite number of 0 or more.
    """
    if not 0 <= epsilon < float("inf"):
        raise DataError(
            f"epsilon is {epsilon}; it is how far a text is moved.",
            do="Take a finite number from 0, as 1.0: the length of one word's embedding or less.",
        )
    return fit(
        partial(FgmTrainer, epsilon=epsilon),
        model,
        texts,
        PadBatch(model.config.pad_token_id),
        recipe,
        dev=dev,
        patience=patience,
        progress=progress,
        callbacks=callbacks,
    )


def _direction(gradient: Tensor) -> Tensor:
    """The gradient (B, S, H) scaled to length 1 for each text; 0 for a text without one.

    A text without label or teacher has none; nor has, in float16, one whose gradient overflows.
    """
    length = gradient.flatten(1).norm(dim=1)[:, None, None]  # (B, 1, 1)
    return (gradient / length).nan_to_num(0.0, 0.0, 0.0)


@contextmanager
def _added(words: nn.Module, move: Tensor) -> Iterator[None]:
    """Nothing; inside the block the embeddings hand out their vectors plus `move`, (B, S, H)."""
    handle = words.register_forward_hook(lambda module, inputs, embedded: embedded + move)
    try:
        yield
    finally:
        handle.remove()
