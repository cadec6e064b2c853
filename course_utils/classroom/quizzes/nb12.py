"""Notebook 12, The compression lab: what savings make together, who is better, what is shipped."""

from __future__ import annotations

from course_utils.classroom.quiz import Choice, Question

QUESTIONS = (
    Question(
        "savings_together",
        "A model has 22.7 M parameters in float32, 90.8 MB. Half of its layers are 5.3 M of them, "
        "the words that a task never uses 8.7 M. Both go, and int8 makes a byte of each number "
        "that is left. How much smaller is it then?",
        (
            Choice(
                "Alone they make it 1.3, 1.6 and 4 times smaller: together 1.3 · 1.6 · 4, about 8 "
                "times.",
                "Factors multiply where each works on what the others left. Layers and words are "
                "*different* parts: their megabytes add up, and that is more.",
            ),
            Choice(
                "About 10 times: 22.7 - 5.3 - 8.7 = 8.7 M are left, a byte each.",
                "Parts that go are subtracted; smaller numbers divide what is left. Which other "
                "operations work on the same part? Prune and rank, on the layers.",
                right=True,
            ),
            Choice(
                "The factors add up: 1.3 + 1.6 + 4, about 7 times.",
                "A factor says what a model is divided by. Adding them has no meaning: three that "
                "save nothing, 1 each, would make it three times smaller.",
            ),
        ),
    ),
    Question(
        "who_is_better",
        "On the same 2 000 texts, model A is right on 74.6 % and B on 73.9 %. Each number has an "
        "interval of ±1.9 points. What do you know?",
        (
            Choice(
                "They are equally good, for the intervals overlap.",
                "Intervals of two means overlap long before the *difference* is lost in noise. And "
                "to find no difference is not to know that there is none.",
            ),
            Choice(
                "A is better by 0.7 points.",
                "It was, on these texts. On 2 000 others? For that you need the interval of the "
                "difference.",
            ),
            Choice(
                "Not enough: what is needed is the difference on each text, and its interval.",
                "A text that is hard for A is hard for B; the difference has lost this noise. Two "
                "models that disagree on few texts differ surely by less than a point.",
                right=True,
            ),
        ),
    ),
    Question(
        "what_is_shipped",
        "Your model went from 91 MB to 5 MB. On the small machine it is loaded with PyTorch and "
        "transformers, and the disk is still full. What saves most?",
        (
            Choice(
                "Leave these two out: run the ONNX file with ONNX Runtime and tokenizers.",
                "The model has become the smallest part of what is shipped. The libraries are "
                "hundreds of megabytes, and they have to be loaded before the first answer.",
                right=True,
            ),
            Choice(
                "Store the numbers with 4 bits instead of 8.",
                "That is half of 5 MB at best. Look at the whole folder before you shrink the "
                "smallest thing in it.",
            ),
            Choice(
                "Compress the model file as a zip.",
                "It has to be unpacked before it runs, and trained weights in 8 bits hardly become "
                "smaller: they look like noise.",
            ),
        ),
    ),
)
