"""The widgets' figures, and what typing does."""

from __future__ import annotations

import ipywidgets
import numpy as np
import pytest

from course_utils.classroom import widgets
from course_utils.models.protocol import Classifier


class Fixed(Classifier):
    """A classifier with the same three logits for every text."""

    labels = ("numpy", "torch", "pandas")
    max_length, pad_token_id, threads = 8, 0, 1

    def __init__(self, name: str, logits: list[float]):
        self.name, self._logits = name, logits

    def token_ids(self, texts):
        return [[1, 2] for _ in texts]

    def logits(self, encoded):
        return np.tile(np.float32(self._logits), (len(encoded["input_ids"]), 1))


@pytest.fixture
def models() -> list[Classifier]:
    return [Fixed("teacher", [0.0, np.log(3), 0.0]), Fixed("student", [1000.0, 0.0, -1000.0])]


def test_probabilities_are_the_softmax_even_of_large_logits(models):
    teacher, student = (widgets.probabilities(model, ["a", "b"]) for model in models)
    np.testing.assert_allclose(teacher, [[0.2, 0.6, 0.2]] * 2, rtol=1e-6)
    np.testing.assert_allclose(student, [[1.0, 0.0, 0.0]] * 2)


def test_the_figure_has_a_bar_per_class_and_model(models):
    [axes] = widgets.answers(models, "Sort the rows.").axes
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    np.testing.assert_allclose(heights, [[0.2, 0.6, 0.2], [1, 0, 0]], rtol=1e-6)
    assert [label.get_text() for label in axes.get_xticklabels()] == list(Fixed.labels)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["teacher", "student"]
    assert axes.get_title(loc="left") == "Sort the rows."


def test_typing_draws_again_and_an_empty_line_does_not_fail(models, monkeypatch):
    shown, drawn = [], []
    monkeypatch.setattr(widgets, "display", shown.append)
    draw = widgets.answers
    monkeypatch.setattr(
        widgets, "answers", lambda found, text: (drawn.append(text), draw(found, text))[1]
    )
    widgets.type_and_compare(models, "first")
    [box] = [item for item in shown if isinstance(item, ipywidgets.VBox)]
    box.children[0].value = "second"
    box.children[0].value = "  "
    assert drawn == ["first", "second"]
    assert 'alt="What each model says: teacher torch, 0.60; student numpy, 1.00."' in (
        box.children[1].value
    )
