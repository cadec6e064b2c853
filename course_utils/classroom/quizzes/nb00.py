"""Notebook 00, Start here: what the first distillation showed."""

from course_utils.classroom.quiz import Choice, Question

QUESTIONS = (
    Question(
        "why_not_half",
        "The student has half of its teacher's layers. Why is it not half as large?",
        (
            Choice(
                "Distillation adds new weights to the layers that are left.",
                "Distillation changes the values of weights and adds none.",
            ),
            Choice(
                "The word embeddings hold about half of all parameters, and it keeps them.",
                "Removing layers takes from the other half only: the dictionary stays whole.",
                right=True,
            ),
            Choice(
                "The layers that are left become wider.",
                "They are copies of the teacher's layers and have exactly their shapes.",
            ),
        ),
    ),
    Question(
        "agreement_above_accuracy",
        "Student and teacher agree on more texts than the student gets right. How can that be?",
        (
            Choice(
                "They also agree on texts that both get wrong.",
                "The student learned from the teacher's answers, mistakes included.",
                right=True,
            ),
            Choice(
                "The student saw the test texts while it learned.",
                "It saw training texts only. That would raise its accuracy as well.",
            ),
            Choice(
                "Agreement is measured on probabilities and accuracy on classes.",
                "Both compare classes: the position of the largest logit.",
            ),
        ),
    ),
    Question(
        "teacher_asked_once",
        "Why is it enough to ask the teacher once per text, and not again in every epoch?",
        (
            Choice(
                "After the first epoch the student no longer needs it.",
                "The teacher's answers are part of the loss in every epoch; they were only kept.",
            ),
            Choice(
                "A second answer would make the student overfit.",
                "A second answer would be the same answer, and change nothing at all.",
            ),
            Choice(
                "It does not change and uses no dropout, so it would say the same again.",
                "A frozen model in eval mode is a function: the same text, the same logits.",
                right=True,
            ),
        ),
    ),
)
