"""The three questions of notebook 04."""

from __future__ import annotations

from course_utils.classroom.quiz import Choice, Question

QUESTIONS = (
    Question(
        "half_of_what",
        "A student keeps 6 of BERT-base's 12 layers. What is halved?",
        (
            Choice(
                "The number of parameters.",
                "The embeddings stay, and they are more than a fifth of BERT-base: three fifths "
                "of the parameters are left.",
            ),
            Choice(
                "The arithmetic in its layers, and nearly the time.",
                "Looking a word up costs almost nothing, so nearly all of the time is spent in the "
                "layers; half of them are gone.",
                right=True,
            ),
            Choice(
                "The size of its hidden states.",
                "Depth and width are two things. Each layer that stays is as wide as it was, or "
                "its weights could not have been copied.",
            ),
        ),
    ),
    Question(
        "why_fold_the_types",
        "DistilBERT has no token-type embeddings. Why add the teacher's row 0 to every position?",
        (
            Choice(
                "So that the student can still tell two texts apart.",
                "It cannot: one row is in every position, whichever text a token belongs to. Pairs "
                "are told apart by [SEP] alone from now on.",
            ),
            Choice(
                "Because a single text always received it: the sum stays what it was.",
                "Type 0 at every token is a constant vector. Folded into the positions it costs "
                "nothing, and every hidden state stays the teacher's.",
                right=True,
            ),
            Choice(
                "To save two vectors of memory.",
                "That is what leaving the table out saves, folded or not. Folding is there to keep "
                "the numbers right.",
            ),
        ),
    ),
    Question(
        "which_layers_then",
        "At step 0 one choice of layers agrees with the teacher far more often than another. What "
        "follows for the student after training?",
        (
            Choice(
                "It will stay that far ahead.",
                "Step 0 measures how well layers fit together that were never neighbours. Training "
                "repairs just that, and most of the distance goes within a few hundred steps.",
            ),
            Choice(
                "Nothing at all: every choice ends at the same place.",
                "They come close, but a good start is still a head start when training is short, "
                "and a few seeds cannot show that two ends are the same.",
            ),
            Choice(
                "It has a head start, which shrinks; whether any of it is left has to be measured, "
                "over several seeds.",
                "Compare after training, with intervals. A difference smaller than its interval is "
                "not one.",
                right=True,
            ),
        ),
    ),
)
