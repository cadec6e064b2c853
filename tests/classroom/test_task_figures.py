"""The figures of notebook 06 hold what they are given, in its place and under its name."""

import numpy as np
import pytest

from course_utils.classroom.task_figures import (
    few_labels_figure,
    grid_figure,
    groups_figure,
    luck_figure,
    reliability_figure,
    rows_figure,
    trials_figure,
)
from course_utils.measure.accuracy import over_seeds_and_texts
from course_utils.measure.calibration import calibration


def test_rows_have_all_seeds_their_mean_and_its_interval():
    texts = np.array([-10.0, 0.0, 10.0, 0.0])
    rows = {"hard": np.array([[50.0], [52.0], [54.0]]) + texts, "soft": np.full((3, 4), 60.0)}
    axes, other = rows_figure("Was it?", {"right": rows, "same": rows}).axes
    dots = [line.get_xdata().tolist() for line in axes.lines if len(line.get_xdata()) == 3]
    assert dots == [[50, 52, 54], [60, 60, 60]]
    means = [tuple(bar[0].get_xydata()[0]) for bar in axes.containers]
    assert means == [(52, 0), (60, 1)]
    half = over_seeds_and_texts(rows["hard"])[1]
    ends = axes.containers[0][2][0].get_segments()[0][:, 0]
    np.testing.assert_allclose(ends, [52 - half, 52 + half])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hard", "soft"]
    assert (axes.get_xlabel(), other.get_xlabel()) == ("right", "same")


def test_the_first_row_is_on_top():
    [axes] = rows_figure("Was it?", {"right": {"a": np.eye(2), "b": np.eye(2)}}).axes
    bottom, top = axes.get_ylim()
    assert bottom > top


def test_a_line_stands_where_it_is_asked_for():
    rows = {"gain": {"a": np.array([[1.0, 2.0], [3.0, 1.0]])}}
    [with_line] = rows_figure("?", rows, line=0).axes
    [without] = rows_figure("?", rows).axes
    assert len(with_line.lines) == len(without.lines) + 1
    assert [0, 0] in [list(line.get_xdata()) for line in with_line.lines]


def test_few_labels_has_a_line_per_student_and_the_teachers():
    measured = {
        "hard": np.array([[[10.0, 8.0], [12.0, 14.0]], [[30.0, 28.0], [34.0, 36.0]]]),
        "soft": np.array([[[20.0, 20.0], [20.0, 20.0]], [[40.0, 40.0], [40.0, 40.0]]]),
    }
    [axes] = few_labels_figure([100, 1000], measured, [25.0, 50.0]).axes
    assert [bar[0].get_ydata().tolist() for bar in axes.containers] == [[11, 32], [20, 40]]
    half = over_seeds_and_texts(measured["hard"][1])[1]
    ends = axes.containers[0][2][0].get_segments()[1][:, 1]
    np.testing.assert_allclose(ends, [32 - half, 32 + half])
    assert [25, 50] in [list(line.get_ydata()) for line in axes.lines]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "teacher",
        "hard",
        "soft",
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "1000"]


def test_the_grid_has_each_number_the_best_in_bold_and_says_how_sure_it_is():
    percent = np.array([[50.0, 51.0, 52.0], [53.0, 58.2, 54.0]])
    axes = grid_figure([1, 4], [0.0, 0.5, 1.0], percent, 4.25).axes[0]
    numbers = {text.get_position(): text for text in axes.texts}
    assert numbers[1, 1].get_text() == "58.2"
    assert [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"] == ["58.2"]
    assert numbers[2, 0].get_text() == "52.0"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "4"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.5", "1"]
    assert "± 4.2" in axes.get_title(loc="left")


def test_trials_stand_by_their_state_and_have_their_layers():
    trials = [
        {"params": {"learning_rate": 1e-3, "layers": 2}, "dev_accuracy": 0.5, "state": "complete"},
        {"params": {"learning_rate": 1e-5, "layers": 4}, "dev_accuracy": 0.2, "state": "pruned"},
        {"params": {"learning_rate": 1e-1, "layers": 3}, "dev_accuracy": None, "state": "pruned"},
    ]
    [axes] = trials_figure(trials).axes
    complete, pruned = axes.lines
    np.testing.assert_allclose(complete.get_xydata(), [[1e-3, 50]])
    np.testing.assert_allclose(pruned.get_xydata(), [[1e-5, 20]])
    assert [text.get_text() for text in axes.texts] == ["2", "4"]


def test_a_search_without_pruned_trials_can_be_drawn():
    trial = {"params": {"learning_rate": 1e-3, "layers": 2}, "dev_accuracy": 0.5}
    [axes] = trials_figure([trial | {"state": "complete"}]).axes
    assert [len(line.get_xdata()) for line in axes.lines] == [1, 0]


def test_the_best_of_the_search_stands_out_and_falls_to_its_fresh_score():
    searched, fresh = np.array([1.0, 7.0, 3.0]), np.array([2.0, 0.5, 4.0])
    [axes] = luck_figure(searched, fresh).axes
    [best] = [line for line in axes.lines if line.get_marker() == "D"]
    assert best.get_xydata().tolist() == [[7, 0.5]]
    [arrow] = axes.texts
    assert tuple(arrow.xy) == (7, 0.5)
    assert tuple(arrow.xyann) == (7, 7)


def test_reliability_has_a_panel_per_model_with_its_bins_and_its_ece():
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.2, 0.8]])
    found = calibration(probs, [0, 1, 1, 0], n_bins=5)
    one, other = reliability_figure({"teacher": found, "student": found}).axes
    points = one.collections[0].get_offsets()
    np.testing.assert_allclose(points, [[b.confidence, b.accuracy] for b in found.bins])
    assert one.get_title(loc="left").startswith(f"teacher\nECE {found.ece:.2f}")
    assert other.get_title(loc="left").startswith("student")


def test_bins_with_more_texts_are_larger():
    probs = np.array([[0.9, 0.1]] * 5 + [[0.55, 0.45]])
    [axes] = reliability_figure({"m": calibration(probs, [0] * 6, n_bins=4)}).axes
    few, many = axes.collections[0].get_sizes()
    assert few < many


@pytest.mark.parametrize("panel", [0, 1])
def test_groups_stand_beside_their_names_for_both_models(panel):
    panels = {
        "by class": [("numpy", 0.5, 0.4), ("torch", 0.75, 0.7), ("pandas", 0.25, 0.3)],
        "by length": [("1-9", 0.9, 0.8), ("10-20", 0.6, 0.65)],
    }
    axes = groups_figure(panels).axes[panel]
    groups = list(panels.values())[panel]
    teacher, student = axes.lines
    np.testing.assert_allclose(teacher.get_xdata(), [100 * g[1] for g in groups])
    np.testing.assert_allclose(student.get_xdata(), [100 * g[2] for g in groups])
    assert [label.get_text() for label in axes.get_yticklabels()] == [g[0] for g in groups]
    assert axes.get_title(loc="left") == list(panels)[panel]
