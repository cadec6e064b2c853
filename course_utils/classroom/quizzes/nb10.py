"""Notebook 10, Quantization: who shares a scale, what is left in float, and what int8 is worth."""

from __future__ import annotations

from course_utils.classroom.quiz import Choice, Question

QUESTIONS = (
    Question(
        "half_in_float",
        "You quantize the linear layers of a small BERT to int8, and the file is only a third "
        "smaller. Where did the rest go?",
        (
            Choice(
                "int8 has no hardware here, so it was stored as float32.",
                "How a number is stored does not depend on what the processor can multiply. The "
                "linear layers are a quarter of their size; something else is not.",
            ),
            Choice(
                "The embedding table is still float32.",
                "In a small model it is half of all parameters, and many tools look at linear "
                "layers alone. Quantize it, too, with a scale for each row.",
                right=True,
            ),
            Choice(
                "The scales take the room that was saved.",
                "A scale for each row of 384 weights is four bytes for 384. Count them: they are "
                "about one per cent.",
            ),
        ),
    ),
    Question(
        "one_outlier",
        "One input of a layer goes from -60 to 60, all others from -2 to 2. Its range is set "
        "with min-max: 8 bits, one scale for the tensor. What happens?",
        (
            Choice(
                "All but a few of the integers go to the space beyond 2 and -2; the other inputs "
                "share what is left.",
                "The step is 120 / 255, almost a half: from -2 to 2 there are nine integers. "
                "Cutting the range helps them and clips the outlier: measure which is worse.",
                right=True,
            ),
            Choice(
                "The outlier is clipped, and its information is lost.",
                "Min-max clips nothing it has seen. That is what the percentile and the entropy "
                "method do.",
            ),
            Choice(
                "Nothing: every output has its own scale.",
                "The *weights* have a scale for each output. The inputs have one, since it must "
                "come out of the sum over all of them.",
            ),
        ),
    ),
    Question(
        "is_it_faster",
        "An int8 model answers as fast as its float32 one on your laptop. What do you check first?",
        (
            Choice(
                "Whether the accuracy fell.",
                "Worth knowing, but it says nothing about time: an int8 product takes as long for "
                "good weights as for bad ones.",
            ),
            Choice(
                "Whether the processor multiplies 8-bit numbers (VNNI, AMX, dotprod), and whether "
                "the back-end uses it.",
                "Without them int8 is a way to store, not a way to compute. The course prints the "
                "features, `slower_here` says what they mean, and `speed` shows it.",
                right=True,
            ),
            Choice(
                "Whether 4 bits are faster.",
                "Weight-only int4 makes the file smaller. Most processors have no 4-bit products: "
                "the weights become something else again before they are multiplied.",
            ),
        ),
    ),
)
