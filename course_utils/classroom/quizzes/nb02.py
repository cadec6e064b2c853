"""Notebook 02, BERT inside out: why some tokens stay, what is tied, where the numbers sit."""

from course_utils.classroom.quiz import Choice, Question

QUESTIONS = (
    Question(
        "why_some_stay",
        "Of the tokens chosen for masked language modelling, one in ten is left as it is. What is "
        "that for?",
        (
            Choice(
                "It gives the model an easy answer now and then, so that training does not stall.",
                "Ease is not the point: nine of ten chosen tokens stay hard, and training is fine.",
            ),
            Choice(
                "The model cannot know whether a word it sees is the right one, so it must work "
                "out a vector for every word.",
                "If only [MASK] were ever asked about, the vectors of ordinary words could be "
                "anything; and in use there are only ordinary words.",
                right=True,
            ),
            Choice(
                "It keeps the share of hidden tokens below 15 %.",
                "The chosen are 15 % either way, and all of them have a label.",
            ),
        ),
    ),
    Question(
        "what_tied_saves",
        "The decoder of the masked-language head is tied to the word embeddings. How many "
        "parameters does that save in a BERT-base?",
        (
            Choice(
                "About 23 million: one for each word and each of the 768 numbers of a hidden "
                "state.",
                "30 522 times 768 is 23.4 million. Untied, the head alone would have a fifth as "
                "many parameters as the whole encoder.",
                right=True,
            ),
            Choice(
                "None: it is a matter of gradients.",
                "The gradients meet in one table because there is one table, not two.",
            ),
            Choice(
                "30 522, one for each word.",
                "That many biases the head has on its own, and they are not tied to anything.",
            ),
        ),
    ),
    Question(
        "half_the_layers",
        "DistilBERT has half of BERT-base's layers. What happens to its parameters and to its "
        "operations on a text of 128 tokens?",
        (
            Choice(
                "Both are halved.",
                "The embeddings stay, and they hold more than a fifth of BERT-base's parameters.",
            ),
            Choice(
                "The parameters are halved; the operations fall by less, because attention grows "
                "with the square of the length.",
                "The square belongs to the layers and goes with them. What stays is the "
                "embeddings.",
            ),
            Choice(
                "The operations are halved; the parameters fall by less, because the embeddings "
                "stay.",
                "Looking a vector up is no multiplication: embeddings are parameters without "
                "operations, layers are both.",
                right=True,
            ),
        ),
    ),
)
