"""Notebook 09, Low rank and small vocabularies: the price of a rank, energy, a word left out."""

from __future__ import annotations

from course_utils.classroom.quiz import Choice, Question

QUESTIONS = (
    Question(
        "rank_four_hundred",
        "A 768 x 768 weight of BERT-base is written as two factors of rank 400, a little more than "
        "half of its full rank. What happens to its size?",
        (
            Choice(
                "It is about half of what it was.",
                "Half the rank is not half the numbers: there are two factors, of 768 · 400 "
                "numbers each.",
            ),
            Choice(
                "It is a little larger than before.",
                "Twice 768 · 400 is 614 400; the weight has 589 824 numbers. Below rank "
                "768 · 768 / (768 + 768) = 384 something is saved, above it nothing.",
                right=True,
            ),
            Choice(
                "It stays the same: a rank is a property of the matrix, not of its storage.",
                "The product would have the same shape, yes. What is stored, and multiplied with, "
                "are the factors.",
            ),
        ),
    ),
    Question(
        "energy_is_not_accuracy",
        "Two models keep 90 % of the energy of each weight. What do you know about their accuracy?",
        (
            Choice(
                "It is at least 90 % of what it was.",
                "Energy counts every direction of a weight alike, whether a text ever points there "
                "or not. Nothing follows for the answers.",
            ),
            Choice(
                "That they are equally good.",
                "The tenth that is missing may be noise in one model and what decides the answer "
                "in the other.",
            ),
            Choice(
                "Nothing yet. Measure it, and let the layer's inputs choose the directions.",
                "With the inputs' second moment, what is left out is the squared error of the "
                "layer's outputs. Even this is one layer's view: the last word is accuracy.",
                right=True,
            ),
        ),
    ),
    Question(
        "a_word_left_out",
        "You trim the vocabulary to the tokens of your texts, and a user types a word whose token "
        "is gone. What should happen?",
        (
            Choice(
                "It becomes [UNK], as every unknown word does.",
                "Then the model knows nothing of the word but its place. It need not be so, if all "
                "single characters were kept.",
            ),
            Choice(
                "It is split into smaller pieces that are left.",
                "In the worst case into characters. The model is less used to these pieces, and "
                "the text is longer; so keep frequent tokens, too, and measure on new texts.",
                right=True,
            ),
            Choice(
                "An error, so that nobody relies on the answer.",
                "A deployed model has to answer whatever is typed. The whole vocabulary has no "
                "token for most words of the world, either.",
            ),
        ),
    ),
)
