"""The table follows what is typed, the figure says the same, and neither runs what is typed."""

from __future__ import annotations

import ipywidgets
import numpy as np
import pytest

from course_utils.classroom import side_by_side
from course_utils.classroom.side_by_side import (
    compare_while_typing,
    sentences,
    sentences_figure,
    sentences_table,
)
from course_utils.models.protocol import Classifier


class Counting(Classifier):
    """A classifier that is the surer of its one class the more words it reads."""

    labels = ("numpy", "torch", "pandas")
    max_length, pad_token_id, threads = 64, 0, 1

    def __init__(self, name: str, favourite: int):
        self.name, self.favourite = name, favourite

    def token_ids(self, texts):
        return [[1] * (len(text.split()) + 1) for text in texts]

    def logits(self, encoded):
        logits = np.zeros((len(encoded["input_ids"]), 3), np.float32)
        logits[:, self.favourite] = encoded["attention_mask"].sum(1)
        return logits


def prob(n_words: int) -> float:
    """The probability of the favourite for a text of so many words."""
    return float(np.exp(n_words + 1) / (np.exp(n_words + 1) + 2))


@pytest.fixture
def pair() -> list[Classifier]:
    return [Counting("teacher", 1), Counting("student", 2)]


def typed(box: ipywidgets.VBox, text: str) -> str:
    field, table = box.children
    field.value = text
    return table.value


@pytest.fixture
def box(pair, monkeypatch) -> ipywidgets.VBox:
    shown = []
    monkeypatch.setattr(side_by_side, "display", shown.append)
    compare_while_typing(pair, ["Sort it.", "Move it to the device."])
    [box] = shown
    return box


def test_sentences_are_the_lines_that_hold_something():
    assert sentences(" One.\n\n  \nTwo words.  \n") == ["One.", "Two words."]
    assert sentences("") == []
    assert len(sentences("a\n" * 40)) == side_by_side.MOST


def test_the_figure_has_a_row_per_sentence_and_a_column_per_model(pair):
    texts = ["one", "one two three"]
    axes = sentences_figure(pair, texts).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {
        (0, 0): f"torch  {prob(1):.2f}",
        (0, 1): f"torch  {prob(3):.2f}",
        (1, 0): f"pandas  {prob(1):.2f}",
        (1, 1): f"pandas  {prob(3):.2f}",
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == texts
    assert [label.get_text() for label in axes.get_xticklabels()] == ["teacher", "student"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[prob(1)] * 2, [prob(3)] * 2])


def test_the_figure_takes_dollars_and_backslashes_as_they_are(pair):
    figure = sentences_figure(pair, ["costs $5 or $\\frac$", "x" * 300])
    figure.canvas.draw()


def test_the_table_has_class_and_probability_of_each_model(pair):
    table = sentences_table(pair, ["one two"])
    assert f"torch {prob(2):.2f}" in table
    assert f"pandas {prob(2):.2f}" in table
    assert f"width:{100 * prob(2):.0f}%" in table
    assert table.index("teacher") < table.index("student")


def test_a_row_is_marked_where_the_models_differ(pair):
    assert "≠" in sentences_table(pair, ["one"])
    assert "≠" not in sentences_table([pair[0], pair[0]], ["one"])


def test_what_is_typed_is_shown_and_never_run(pair):
    table = sentences_table(pair, ["<script>alert(1)</script> & co"])
    assert "<script" not in table
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in table


def test_the_table_follows_every_letter(box):
    field, table = box.children
    assert field.continuous_update
    assert "Move it to the device." in table.value
    assert f"torch {prob(1):.2f}" in typed(box, "one")
    assert f"torch {prob(4):.2f}" in typed(box, "one two three four")
    assert "Move it" not in table.value


def test_an_empty_field_asks_for_a_sentence(box):
    assert "Type a sentence" in typed(box, "  \n ")
    assert "torch" in typed(box, "again")
