"""Notebook 08, Pruning: what zeros save, what half of an encoder is, and what a tie shows."""

from __future__ import annotations

from course_utils.classroom.quiz import Choice, Question

QUESTIONS = (
    Question(
        "eighty_percent_zeros",
        "A blog post sets 80 % of BERT's weights to zero and loses one point. It is served with "
        "PyTorch on a CPU, as before. What has become smaller?",
        (
            Choice(
                "The time per text, to about a fifth.",
                "A dense product multiplies zeros like any other number. Only another kernel, or "
                "smaller matrices, would take less time.",
            ),
            Choice(
                "The memory, to about a fifth; the time stays.",
                "A zero in a dense tensor takes four bytes, as every float32 does, in memory and "
                "in model.safetensors.",
            ),
            Choice(
                "The file after it was compressed, for the way to the server.",
                "Runs of zero bytes compress well. Once it is unpacked, the model is as large and "
                "as slow as before.",
                right=True,
            ),
        ),
    ),
    Question(
        "half_of_the_encoder",
        "You remove half of all heads and half of all neurons of MiniLM. Its file does not become "
        "half as large. Why?",
        (
            Choice(
                "Half of the weights were zero already.",
                "Hardly any weight of a trained model is exactly zero, and zeros would take their "
                "bytes, too.",
            ),
            Choice(
                "The embeddings, about half of all its parameters, have no heads and no neurons.",
                "Half of the encoder is about a quarter of this model. What to do about the "
                "embeddings is a question of its own: notebook 09.",
                right=True,
            ),
            Choice(
                "The masks have to be stored, too.",
                "There are no masks. What is left are ordinary, smaller linear layers, and a "
                "configuration with their sizes.",
            ),
        ),
    ),
    Question(
        "a_tie_after_recovery",
        "Before recovery, your ranking beats a random one by thirty points; after a long recovery "
        "by 0.4 ± 1.1. What do you report?",
        (
            Choice(
                "The ranking is better by thirty points.",
                "Nobody will use the model before recovery. What counts is what is shipped, and "
                "what it cost to get there.",
            ),
            Choice(
                "The ranking helps by 0.4 points.",
                "The interval holds zero, and values on either side of it. A number without its "
                "interval is half a measurement.",
            ),
            Choice(
                "After so long a recovery, no difference is shown; with a short one there may be.",
                "That is what was measured. A good ranking is a better place to start from, and "
                "training can make up for a worse one, if you pay for it.",
                right=True,
            ),
        ),
    ),
)
