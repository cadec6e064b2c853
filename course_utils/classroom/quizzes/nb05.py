"""Notebook 05, Training the student: speed, checkpoints, and what a perplexity says."""

from course_utils.classroom.quiz import Choice, Question

QUESTIONS = (
    Question(
        "tokens_or_mfu",
        "Model A trains at 4 000 tokens per second with an MFU of 15 %, model B on the same "
        "machine at 1 500 with 45 %. What follows?",
        (
            Choice(
                "A is the better program: it is faster.",
                "A may be the smaller model. Tokens per second say how long you wait; they compare "
                "two ways to train *one* model.",
            ),
            Choice(
                "B is the larger model, and its program leaves less of the machine unused.",
                "MFU is the arithmetic that the model needs, per second, over what the machine can "
                "do. B needs some eight times as much for a token, and is held up less by all "
                "that is not multiplying matrices.",
                right=True,
            ),
            Choice(
                "B will be the better model, since it computes more.",
                "Neither number says anything about what is learned. For that, look at held-out "
                "text.",
            ),
        ),
    ),
    Question(
        "what_a_checkpoint_holds",
        "A run is killed at step 700 and goes on from its checkpoint. What must that hold so that "
        "every bit of the end is as if nothing had happened?",
        (
            Choice(
                "The student's weights.",
                "Then Adam begins without its averages and the learning rate with a warm-up: the "
                "loss makes a jump, and the end is another one.",
            ),
            Choice(
                "Weights, optimizer and learning-rate schedule.",
                "Nearly. But which blocks come next, how they are masked, and what dropout strikes "
                "out would start anew: the text read before is read again.",
            ),
            Choice(
                "Weights, optimizer, schedule, the random states, and the place in the data.",
                "And masks that depend on seed, epoch and block alone. Then step 701 sees what it "
                "would have seen. The teacher need not be in it, but it must be the same one: its "
                "hash is checked.",
                right=True,
            ),
        ),
    ),
    Question(
        "reading_a_perplexity",
        "On held-out text the teacher has a perplexity of 8, the student one of 16. Which reading "
        "is right?",
        (
            Choice(
                "The student is right half as often.",
                "How often the first guess is right is its accuracy, another number. A model can "
                "lose much perplexity on a few words that it held for impossible.",
            ),
            Choice(
                "The student's mean loss is ln 2 higher: on average, it gives the hidden word half "
                "the teacher's probability.",
                "Perplexity is exp(mean loss), and ln 16 - ln 8 = ln 2 = 0.69 nats. On average "
                "means the geometric mean over the hidden words. It is as if it chose among 16 "
                "words that are equally likely, and the teacher among 8.",
                right=True,
            ),
            Choice(
                "The student needs twice as many steps.",
                "Steps and perplexity are not proportional; a small student may never get there.",
            ),
        ),
    ),
)
