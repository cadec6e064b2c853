"""The figures of notebook 05 hold what they are given, in its place and under its name."""

import pytest

from course_utils.classroom.training_figures import (
    FATES,
    controls_figure,
    fates,
    losses_figure,
    masking_figure,
    resume_figure,
)

TOKENS = ["[CLS]", "a", "b", "c", "d", "[SEP]"]
SEEN = ["[CLS]", "[MASK]", "x", "c", "d", "[SEP]"]
ASKED = [False, True, True, True, False, False]
MASK, RANDOM, KEPT, LEFT = FATES


def log(values, **others):
    return [{"step": 10 * k, "total": v} | others for k, v in enumerate(values, start=1)]


def test_fates_tell_the_three_kinds_from_what_is_left_alone():
    assert fates(TOKENS, SEEN, ASKED) == [LEFT, MASK, RANDOM, KEPT, LEFT, LEFT]


def test_masking_has_a_panel_per_epoch_with_every_token_and_its_letter():
    nothing = (TOKENS, [False] * 6)
    above, epoch, other = masking_figure(TOKENS, {"e 0": (SEEN, ASKED), "e 1": nothing}).axes
    assert [text.get_text() for text in above.texts] == TOKENS
    words = [text.get_text() for text in epoch.texts]
    assert words == ["[CLS]", "[MASK]", "M", "x", "R", "c", "K", "d", "[SEP]"]
    assert epoch.get_title(loc="left") == "e 0: 3 of 6 asked for"
    assert other.get_title(loc="left") == "e 1: 0 of 6 asked for"
    hatched = [box.get_xy() for box in epoch.patches if box.get_hatch()]
    assert hatched == [(2, 0), (3, 0)]


def test_masking_draws_the_first_tokens_ten_in_a_line():
    tokens = [f"t{k}" for k in range(30)]
    above, _ = masking_figure(tokens, {"e": (tokens, [True] * 30)}, first=12).axes
    assert [text.get_text() for text in above.texts] == tokens[:12]
    assert above.patches[11].get_xy() == (1, 1)


def test_losses_has_a_panel_per_part_and_a_line_per_run_that_has_it():
    runs = {
        "taught": log([9.0, 5.0], soft=2.0, masked_lm=3.0, cosine=0.5),
        "alone": log([8.0, 4.0], masked_lm=4.0),
    }
    fig = losses_figure(runs)
    soft, lm, cosine = fig.axes
    assert [list(line.get_ydata()) for line in soft.lines] == [[2.0, 2.0]]
    assert [list(line.get_ydata()) for line in lm.lines] == [[3.0, 3.0], [4.0, 4.0]]
    assert [list(line.get_xdata()) for line in cosine.lines] == [[10, 20]]
    [legend] = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["taught", "alone"]
    assert lm.lines[1].get_color() == legend.get_lines()[1].get_color()


def test_losses_of_a_run_without_teacher_has_no_empty_panels():
    [axes] = losses_figure({"alone": log([8.0, 4.0], masked_lm=4.0)}).axes
    assert axes.get_title(loc="left") == "masked LM"


def test_controls_have_a_point_with_its_interval_per_model():
    scores = {
        "teacher": {"perplexity": 6.0, "perplexity_low": 5.0, "perplexity_high": 8.0},
        "untrained": {"perplexity": 3000.0, "perplexity_low": 2500.0, "perplexity_high": 3500.0}
        | {"agreement": 0.5, "agreement_low": 0.4, "agreement_high": 0.55},
    }
    left, right = controls_figure(scores).axes
    assert [tuple(bar[0].get_xydata()[0]) for bar in left.containers] == [(6, 0), (3000, 1)]
    ends = [bar[2][0].get_segments()[0][:, 0].tolist() for bar in left.containers]
    assert ends == [[5, 8], [2500, 3500]]
    [bar] = right.containers
    assert tuple(bar[0].get_xydata()[0]) == pytest.approx((50, 1))
    assert bar[2][0].get_segments()[0][:, 0] == pytest.approx([40, 55])
    assert [text.get_text() for text in left.texts] == ["6", "3,000"]
    assert [label.get_text() for label in left.get_yticklabels()] == list(scores)
    assert left.get_xscale() == "log"


def test_a_resumed_run_is_drawn_from_its_checkpoint_on():
    whole = log([9.0, 7.0, 5.0, 4.0])
    fig = resume_figure(whole[:3], whole, whole, killed_at=34, resumed_from=20)
    [axes] = fig.axes
    lines = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert lines["never stopped"] == [10, 20, 30, 40]
    assert lines["until it was killed"] == [10, 20, 30]
    assert lines["resumed"] == [30, 40]
    assert [list(line.get_xdata()) for line in axes.lines[3:]] == [[20, 20], [34, 34]]
    assert {text.get_text() for text in axes.texts} == {"killed", "checkpoint"}
