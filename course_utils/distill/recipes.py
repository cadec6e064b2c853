"""How long to train and on how much: settings that are right for a set nobody has looked at.

Work is counted in tokens, for that is what takes time: a thousand reviews of 128 tokens are as
much to read as eight thousand questions. The constants were chosen on sets of 1 000 to 67 000
texts with 2 to 150 classes, such that 4 000 texts take two cores less than six minutes in all.
"""

from __future__ import annotations

import math

from course_utils.data.encoding import EncodedTexts
from course_utils.distill.trainer import Recipe

TEACHER_READINGS = 400  # times the square root of the number of texts
TEACHER_TOKENS = 1_000_000  # read in all, where texts are few; 250 for each where they are many
STUDENT_TOKENS = 800_000  # of different text; 170 for each text
VARIED_PER_TEXT = 20
MOST_NEW_TOKENS = 4_300_000  # what a set of 67,000 phrases still gained from


def teacher_recipe(texts: EncodedTexts, *, seed: int = 0) -> Recipe:
    """Fine-tuning on labelled texts, in one to ten epochs: the fewer texts, the oftener read.

    The head is new, and learns ten times as fast as the layers, which know much already: without
    that, the few texts of each of many classes are not enough. The words stay as they are.
    """
    readings = TEACHER_READINGS * math.sqrt(len(texts))
    tokens = max(TEACHER_TOKENS, 250 * len(texts))
    epochs = min(readings / len(texts), tokens / n_tokens(texts))
    return Recipe(
        epochs=min(10, max(1, round(epochs))),
        learning_rate=1e-4,
        head_factor=10.0,
        freeze_words=True,
        seed=seed,
    )


def student_recipe(texts: EncodedTexts, *, seed: int = 0) -> Recipe:
    """Distillation on all the texts, with or without labels, in one to ten epochs.

    The labels have had their say in the teacher. At a temperature of 8 the student is to meet the
    teacher's logits, not only the class it is sure of (Hinton et al. 2015, section 2.1). A squared
    distance of hidden states is a small number beside these logits': beta makes up for that.
    """
    return Recipe(
        epochs=min(10, max(1, round(1.25 * STUDENT_TOKENS / n_tokens(texts)))),
        learning_rate=2e-4,
        batch_size=64,
        dropout=0.0,
        freeze_words=True,
        alpha=0.0,
        temperature=8.0,
        beta=10.0,
        seed=seed,
    )


def n_varied(texts: EncodedTexts) -> int:
    """How many new texts to make of these for a student (see `data.augment.varied`).

    At most twenty for each, and so many that reading all once is what a student needs; a set that
    is large has enough of its own. A new text is half as long again, since half of them are two in
    one.
    """
    tokens = min(max(STUDENT_TOKENS, 170 * len(texts)) - n_tokens(texts), MOST_NEW_TOKENS)
    per_text = 1.5 * n_tokens(texts) / len(texts)
    return max(0, min(VARIED_PER_TEXT * len(texts), round(tokens / per_text)))


def n_tokens(texts: EncodedTexts) -> int:
    """The tokens of all the texts, special ones counted."""
    return sum(map(len, texts.input_ids))
