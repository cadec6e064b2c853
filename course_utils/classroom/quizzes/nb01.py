"""Notebook 01, Transformer basics: scaling, positions, and what grows with length."""

from course_utils.classroom.quiz import Choice, Question

QUESTIONS = (
    Question(
        "why_root_d",
        "Why are the scores divided by √d before the softmax?",
        (
            Choice(
                "So that the weights of a row add up to 1.",
                "The softmax sees to that, whatever the size of the scores.",
            ),
            Choice(
                "So that long sequences do not get larger scores than short ones.",
                "One score is a sum over the d numbers of a vector. The length of the sequence "
                "changes how many scores there are, not how large each is.",
            ),
            Choice(
                "Their variance grows with d; without the division the softmax saturates and its "
                "gradient vanishes.",
                "A sum of d products of variance 1 has variance d. Divided by √d it has variance 1 "
                "again, and the softmax stays where it can learn.",
                right=True,
            ),
        ),
    ),
    Question(
        "without_positions",
        "An encoder has no position vectors. You shuffle the words of its input. What happens?",
        (
            Choice(
                "Every word gets the vector that it had before, in its new place.",
                "Attention is a weighted sum over a set, and everything else works on one token "
                "at a time: nothing in the encoder knows about order.",
                right=True,
            ),
            Choice(
                "Every word gets another vector, because its neighbours are others.",
                "Attention does not know who is a neighbour. It compares contents, and those have "
                "not changed.",
            ),
            Choice(
                "The output stays as it was, row by row.",
                "The vectors stay the same, but they move with their words: row 3 now holds the "
                "vector of whichever word stands third.",
            ),
        ),
    ),
    Question(
        "twice_as_long",
        "A text gets twice as long. What does a block need more of?",
        (
            Choice(
                "Twice the parameters.",
                "No weight of a block depends on the length: the same matrices serve every token.",
            ),
            Choice(
                "Twice the time in its projections and its feed-forward, four times in its scores.",
                "The projections and the feed-forward work on each token once; the scores on each "
                "pair of tokens.",
                right=True,
            ),
            Choice(
                "Four times the time in everything.",
                "Only the part that looks at pairs of tokens, scores and weights, grows with the "
                "square.",
            ),
        ),
    ),
)
