"""Notebook 03, The distillation loss: T², the teacher's entropy, and what to divide by."""

from course_utils.classroom.quiz import Choice, Question

QUESTIONS = (
    Question(
        "why_t_squared",
        "You raise T from 2 to 8, and your loss has no factor T². What happens to the mix of hard "
        "and soft loss?",
        (
            Choice(
                "The soft loss takes over, because its targets carry more information.",
                "They show more of the small probabilities, but what trains is the gradient, and "
                "that of the soft loss has become smaller.",
            ),
            Choice(
                "The soft gradient becomes some 16 times smaller, so the hard loss takes over.",
                "One factor 1/T comes from the chain rule; the other from p and q, which move "
                "together. From 2 to 8 that makes (8/2)² = 16, once T is large.",
                right=True,
            ),
            Choice(
                "Nothing: T is on both sides and cancels.",
                "On both sides it makes a perfect student's loss 0 at any T. The size of the "
                "gradient for an imperfect one still depends on T.",
            ),
        ),
    ),
    Question(
        "loss_stays_above_zero",
        "The student's soft loss, written as a cross-entropy, stops falling at 0.8 nats. What does "
        "that say?",
        (
            Choice(
                "The student is too small for its teacher.",
                "It may be. But the number alone does not say so: a perfect student has a "
                "cross-entropy above 0, too.",
            ),
            Choice(
                "The temperature is too high.",
                "A higher T raises the number, because softer targets have more entropy. That is "
                "no fault.",
            ),
            Choice(
                "Nothing yet: subtract the teacher's entropy first. What is left is the KL.",
                "CE(p, q) = H(p) + KL(p‖q), and H(p) is the teacher's alone. If H(p) is 0.8 here, "
                "the student is perfect.",
                right=True,
            ),
        ),
    ),
    Question(
        "which_mean",
        "Logits are (B, S, V) and some of the S positions are padding. By what do you divide the "
        "sum of all KL terms that are not padding?",
        (
            Choice(
                "By the number of positions that are not padding.",
                "Then neither padding nor the size of the vocabulary changes the loss. If a step "
                "is made of several batches, it is the number in all of them.",
                right=True,
            ),
            Choice(
                "By B, as reduction='batchmean' does.",
                "It divides by the first axis, whatever that is: here long texts would weigh more, "
                "and the loss would grow with S. On (N, V), without padding, it is right.",
            ),
            Choice(
                "By B · S · V, as reduction='mean' does.",
                "That divides by the vocabulary, too: with 30 522 words the soft loss all but "
                "vanishes. And it counts padding in the divisor.",
            ),
        ),
    ),
)
