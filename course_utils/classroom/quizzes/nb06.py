"""Notebook 06, Distilling for a task: controls, a searched test set, and calibration."""

from __future__ import annotations

from course_utils.classroom.quiz import Choice, Question

QUESTIONS = (
    Question(
        "was_it_the_distillation",
        "A blog post shows a distilled student with 91 % accuracy and says: distillation works. "
        "Which number do you ask for first?",
        (
            Choice(
                "The teacher's accuracy.",
                "Good to know, but it does not answer. A student may reach its teacher without "
                "ever having heard it.",
            ),
            Choice(
                "The accuracy of the same student, trained with the labels alone for as many "
                "steps, over several seeds.",
                "That control differs in one thing, the teacher. And with seeds and their interval "
                "you can say whether the difference is more than luck.",
                right=True,
            ),
            Choice(
                "The accuracy of a student with random weights.",
                "It differs in two things: it has no teacher and no inherited layers. Then you "
                "cannot know which of them it was.",
            ),
        ),
    ),
    Question(
        "best_of_forty",
        "You try 40 settings, take the best on 100 test texts, and get 78 %. What will it score on "
        "new texts?",
        (
            Choice(
                "78 %, give or take the interval of 100 texts.",
                "That is the interval of one model, tested once. The best of 40 was chosen "
                "*because* its number is high, luck included.",
            ),
            Choice(
                "More, because the best setting has been found.",
                "Among settings that differ by less than the noise, the best on 100 texts is the "
                "luckiest there.",
            ),
            Choice(
                "Less, most likely.",
                "It may well be a good one, but its luck on these 100 texts does not come along. "
                "Choose on dev; look at test once.",
                right=True,
            ),
        ),
    ),
    Question(
        "sure_and_right",
        "Student A is right for 80 % of the texts and has an ECE of 0.15, student B for 79 % and "
        "0.03. Who may send the texts it is unsure of to a person?",
        (
            Choice(
                "A: it makes fewer mistakes.",
                "But it does not know which. When it says 0.95 it may be right 8 times of 10; a "
                "threshold on what it says lets the wrong texts through.",
            ),
            Choice(
                "B: when it says 0.9, nine of ten are right.",
                "That is what a small ECE means, on average. Then a threshold does what it says. "
                "(A can be helped: one temperature, fitted on dev, often repairs most of it.)",
                right=True,
            ),
            Choice(
                "Neither: probabilities of a network mean nothing.",
                "They mean what a reliability figure shows. You can measure it, and correct it on "
                "texts that were held out.",
            ),
        ),
    ),
)
