"""Things to type and move in a notebook; each has a figure as its twin, for still pages."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets
import matplotlib
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

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
    picture = ipywidgets.Image(format="png", width=768)

    def draw(_: object = None) -> None:
        if line.value.strip():
            picture.value = png(answers(classifiers, line.value))

    line.observe(draw, names="value")
    draw()
    display(ipywidgets.VBox([line, picture]))
