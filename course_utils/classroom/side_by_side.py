"""Your own sentences in several models at once, while you type; a figure for still pages."""

from __future__ import annotations

import html
from collections.abc import Sequence

import matplotlib
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

from course_utils.classroom.live import Live, ipywidgets
from course_utils.classroom.plots import COLOURS, STYLE
from course_utils.classroom.student_figures import WHITE_TO_BLUE
from course_utils.classroom.widgets import probabilities
from course_utils.models.protocol import Classifier

MOST = 12  # sentences that are read; more would not be answered while somebody types


def sentences(typed: str) -> list[str]:
    """The lines that hold a sentence, at most the first twelve."""
    return [line.strip() for line in typed.splitlines() if line.strip()][:MOST]


def sentences_figure(classifiers: Sequence[Classifier], texts: Sequence[str]) -> Figure:
    """A figure with a row per sentence and a column per model: the class it chooses, how sure."""
    probs = [probabilities(classifier, texts) for classifier in classifiers]  # (N, C) each
    sure = np.stack([each.max(axis=1) for each in probs], axis=1)  # (N, models)
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.1 + 0.5 * len(texts)))
        axes = fig.add_subplot()
        image = axes.imshow(sure, cmap=WHITE_TO_BLUE, vmin=0, vmax=1, aspect="auto")
        for column, (classifier, each) in enumerate(zip(classifiers, probs, strict=True)):
            for row, best in enumerate(each.argmax(axis=1)):
                words = f"{classifier.labels[best]}  {each[row, best]:.2f}"
                look = {"color": "white" if each[row, best] > 0.6 else "black"}
                axes.text(column, row, words, ha="center", va="center", parse_math=False, **look)
        axes.set_xticks(range(len(classifiers)), [classifier.name for classifier in classifiers])
        axes.set_yticks(range(len(texts)), [_short(text) for text in texts], fontsize=9)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(False)
        fig.colorbar(image, ax=axes, label="probability")
        fig.suptitle("What do both make of your sentences?", x=0.01, ha="left", fontsize=13)
    return fig


def sentences_table(classifiers: Sequence[Classifier], texts: Sequence[str]) -> str:
    """The same as HTML: a table, in each cell the class, its probability, and a bar of that length.

    A row in which the models choose different classes says so in words and begins with a mark.
    """
    if not texts:
        return "<p>Type a sentence; one in each line.</p>"
    probs = [probabilities(classifier, texts) for classifier in classifiers]
    heads = "".join(f"<th>{html.escape(classifier.name)}</th>" for classifier in classifiers)
    rows = []
    for row, text in enumerate(texts):
        chosen = [
            (classifier.labels[each[row].argmax()], float(each[row].max()))
            for classifier, each in zip(classifiers, probs, strict=True)
        ]
        differ = len({label for label, _ in chosen}) > 1
        mark = '<span title="they differ">≠ </span>' if differ else ""
        rows.append(
            f'<tr><td style="text-align:left">{mark}{html.escape(text)}</td>'
            + "".join(_cell(label, prob) for label, prob in chosen)
            + "</tr>"
        )
    return (
        f'<table style="width:100%"><thead><tr><th style="text-align:left">sentence</th>{heads}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def compare_while_typing(classifiers: Sequence[Classifier], texts: Sequence[str]) -> None:
    """Nothing; shows a field to type in, a sentence per line, and below it what each model says.

    The table follows every letter. `widgets.type_and_compare` shows all classes of one sentence,
    this the chosen class of several.
    """
    field = ipywidgets.Textarea(
        value="\n".join(texts),
        description="sentences",
        continuous_update=True,
        rows=len(texts) + 1,
        layout=ipywidgets.Layout(width="95%"),
    )
    table = ipywidgets.HTML()

    def read(_: object = None) -> None:
        table.value = sentences_table(classifiers, sentences(field.value))

    field.observe(read, names="value")
    read()
    display(Live("A field for texts of your own. It needs a running kernel.", [field, table]))


def _cell(label: str, prob: float) -> str:
    bar = f"width:{100 * prob:.0f}%;height:4px;background:{COLOURS['blue']}"
    return (
        f'<td style="text-align:left">{html.escape(label)} {prob:.2f}<div style="{bar}"></div></td>'
    )


def _short(text: str, longest: int = 60) -> str:
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    half = len(text) // 2
    space = text.find(" ", half)
    return text if len(text) < 34 or space < 0 else text[:space] + "\n" + text[space + 1 :]
