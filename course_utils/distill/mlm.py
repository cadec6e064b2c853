"""Training a masked-language model: hidden words, guessed from the words around them."""

from __future__ import annotations

from transformers import BertForMaskedLM, PreTrainedTokenizerBase, TrainerCallback

from course_utils.data.encoding import EncodedTexts
from course_utils.data.masking import SHARE, MaskBatch
from course_utils.distill.losses import hard_cross_entropy, mean_over_counted
from course_utils.distill.trainer import Recipe, TaskTrainer, fit
from course_utils.models.mlm import head_sees_only, need_its_tokenizer, top_guesses


class MlmTrainer(TaskTrainer):
    """A `TaskTrainer` whose loss is the mean cross-entropy over the hidden tokens.

    A batch holds `input_ids`, `attention_mask` and `labels`, all (B, S). The vocabulary is looked
    at for the tokens with a label alone; loss and gradients are those of looking at it for all.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        counted = labels != -100  # (B, S), N of them true
        with head_sees_only(self.model, counted):
            outputs = model(**inputs)
        losses = hard_cross_entropy(outputs.logits.float(), labels[counted])  # (N,)
        loss = mean_over_counted(losses, n_counted=num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def train_mlm(
    model: BertForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    texts: EncodedTexts,
    recipe: Recipe,
    *,
    share: float = SHARE,
    progress: bool = True,
    callbacks: list[TrainerCallback] | None = None,
) -> list[dict[str, float]]:
    """The log of training `model` in place to guess hidden tokens, as `fit` has it.

    Which tokens are hidden is drawn anew each time a text is read, from the recipe's seed. Labels
    that the texts may have play no part. For a new head on a pretrained encoder, frozen word
    embeddings, a learning rate of 3e-4 and batches of 8 work well; training the head alone does
    not, as a sentence encoder has not learned what to make of [MASK]. Raises `CourseError` when the
    loss is no longer a number, `DataError` for no text, one longer than the model's positions, or a
    share outside 0 to 1, `ModelError` for a tokenizer that is not the model's.
    """
    need_its_tokenizer(model, tokenizer)
    texts.need_room(model.config.max_position_embeddings)
    collator = MaskBatch(tokenizer, share=share, seed=recipe.seed)
    return fit(MlmTrainer, model, texts, collator, recipe, progress=progress, callbacks=callbacks)


class WatchGuesses(TrainerCallback):
    """Keeps what a model guesses for `texts` as it learns: at first, every few steps, at the end.

    `seen` maps a step to a list of what `top_guesses` says, one entry per text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: list[str], *, every: int):
        self.tokenizer, self.texts, self.every = tokenizer, texts, every
        self.seen: dict[int, list[list[list[tuple[str, float]]]]] = {}

    def on_train_begin(self, args, state, control, *, model, **kwargs):
        self._look(state.global_step, model)

    def on_step_end(self, args, state, control, *, model, **kwargs):
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._look(state.global_step, model)

    def _look(self, step: int, model: BertForMaskedLM) -> None:
        self.seen[step] = [top_guesses(model, self.tokenizer, text) for text in self.texts]
