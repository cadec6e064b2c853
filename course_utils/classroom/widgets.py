"""Things to type and move in a notebook; each has a figure as its twin, for still pages."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

from course_utils.classroom.live import Live, Picture, ipywidgets
from course_utils.classroom.plots import COLOURS, STYLE, png
from course_utils.models.protocol import Classifier


def probabilities(classifier: Classifier, texts: Sequence[str]) -> np.ndarray:
    """What the classifier believes of each text, (N, C): the softmax of its logits."""
    logits = classifier.predict(texts)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def answers(classifiers: Sequence[Classifier], text: str) -> Figure:
    """A figure of what each classifier believes of one text: a bar per class and model."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.6))
        labels = classifiers[0].labels
        axes = fig.add_subplot(ylim=(0, 1), ylabel="probability")
        width = 0.8 / len(classifiers)
        for k, (classifier, colour) in enumerate(zip(classifiers, COLOURS.values(), strict=False)):
            axes.bar(
                np.arange(len(labels)) + (k - (len(classifiers) - 1) / 2) * width,
                probabilities(classifier, [text])[0],
                width,
                label=classifier.name,
                color=colour,
                hatch=("", "//", "..")[k % 3],
                edgecolor="white",
            )
        axes.set_xticks(range(len(labels)), labels, rotation=20)
        axes.set_title(text if len(text) < 80 else text[:77] + "…", fontsize=11, wrap=True)
        axes.legend()
    return fig


def type_and_compare(classifiers: Sequence[Classifier], text: str) -> None:
    """Nothing; shows a line to type in, and below it what each classifier makes of the words."""
    line = ipywidgets.Text(
        value=text,
        description="text",
        continuous_update=False,
        layout=ipywidgets.Layout(width="90%"),
    )
    picture = Picture()

    def draw(_: object = None) -> None:
        if line.value.strip():
            alt = "; ".join(_words(classifier, line.value) for classifier in classifiers)
            picture.show(png(answers(classifiers, line.value)), alt=f"What each model says: {alt}.")

    line.observe(draw, names="value")
    draw()
    display(Live("A line for a text of your own. It needs a running kernel.", [line, picture]))


def _words(classifier: Classifier, text: str) -> str:
    """The class that a classifier chooses, for those who cannot see the bars."""
    found = probabilities(classifier, [text])[0]
    return f"{classifier.name} {classifier.labels[found.argmax()]}, {found.max():.2f}"
