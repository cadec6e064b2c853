"""A training as it runs: parts of the loss, learning rate, speed, and guesses, in a live picture.

What is drawn is what the log holds. A checkpoint holds the log too, so that after a resume the
curves begin at step 1, and `figure` draws the same without a kernel.
"""

from __future__ import annotations

import html
import io
import textwrap
import time
import warnings
from collections.abc import Mapping, Sequence

import matplotlib
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from transformers import PreTrainedTokenizerBase

from course_utils.classroom.bert_figures import Guesses
from course_utils.classroom.lines import LOOKS
from course_utils.classroom.live import Live, Picture, ipywidgets
from course_utils.classroom.plots import COLOURS, STYLE
from course_utils.classroom.training_figures import plain_log_ticks
from course_utils.distill.mlm import WatchGuesses
from course_utils.errors import DataError

LOSSES = {"total": "total", "soft": "soft", "masked_lm": "masked LM", "cosine": "cosine"}
GUESSES = "guesses"  # the name of what is guessed, in lines of the log that hold nothing else
MOST_SHARE = 0.05  # of the time may be spent on drawing
COLUMNS = 4  # moments whose guesses are drawn, from the first to the last


class Dashboard(WatchGuesses):
    """A callback that shows a training in a notebook while it runs; `figure()` is its still twin.

    `texts` have a [MASK] each; what the model guesses there is looked up before the first step,
    after `every` steps and at the end, and put into the log, so that it outlives a resume. In a
    notebook a picture is drawn at most every `seconds`, and so seldom that it takes a twentieth of
    the time. Elsewhere nothing is drawn until `figure()` is called.

    A picture that cannot be drawn does not end a training: there is a warning that says why, the
    picture stands still, and `figure()` raises the error itself. Raises `DataError` for a text
    without [MASK] or too long for the model, before anything is trained.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[str] = (),
        *,
        every: int = 50,
        seconds: float = 3.0,
    ):
        super().__init__(tokenizer, list(texts), every=every)
        for text in self.texts:
            if tokenizer.mask_token not in text:
                raise DataError(
                    f"There is no {tokenizer.mask_token} in {text!r}.",
                    do=f"Write {tokenizer.mask_token} where a word is to be guessed.",
                )
        self.seconds = seconds
        self.history: list[dict] = []  # the trainer's own log
        self.view: _View | None = None

    def on_train_begin(self, args, state, control, *, model, **kwargs):
        self.history, self.seen = state.log_history, {}
        for line in self.history:
            if GUESSES in line:  # from before a resume
                self.seen[line["step"]] = line[GUESSES]
        if state.is_world_process_zero:
            self._look(state.global_step, model)
            if InteractiveShell.initialized() and self.view is None:
                self.view = _View(self.seconds)
            self._draw(at_once=True)

    def on_step_end(self, args, state, control, *, model, **kwargs):
        if state.is_world_process_zero:
            super().on_step_end(args, state, control, model=model, **kwargs)

    def on_log(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._draw()

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._draw(at_once=True)

    def figure(self) -> Figure:
        """A figure of what has been seen so far, drawn from the log."""
        return dashboard_figure(self.history, self.seen, self.texts)

    def _look(self, step: int, model) -> None:
        if self.texts and step not in self.seen:
            super()._look(step, model)
            self.history.append({"step": step, GUESSES: self.seen[step]})

    def _draw(self, *, at_once: bool = False) -> None:
        if self.view is not None:
            self.view.draw(self, at_once=at_once)


class _View:
    """The picture under the cell, and the line below it that says how far the training is."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.next_time = 0.0
        self.broken = False
        self.picture = Picture()
        self.words = ipywidgets.HTML()
        display(
            Live(
                "A live picture of the training. It needs a running kernel.",
                [self.picture, self.words],
            )
        )

    def draw(self, dashboard: Dashboard, *, at_once: bool) -> None:
        """Nothing; the picture is drawn anew, if it is time to and nothing has gone wrong."""
        began = time.perf_counter()
        if self.broken or (began < self.next_time and not at_once):
            return
        try:
            words = last_line(dashboard.history)
            alt = f"Curves of the training: {words or 'no step yet'}."
            self.picture.show(_screen_png(dashboard.figure()), alt=alt)
            self.words.value = html.escape(words)
        except Exception as error:  # hours of training are worth more than a picture of them
            self.broken = True
            story = f"The dashboard stopped: {type(error).__name__}: {error}"
            warnings.warn(f"{story}. The training goes on.", RuntimeWarning, stacklevel=2)
            self.words.value = html.escape(f"{story}. The training goes on; the picture is old.")
        took = time.perf_counter() - began
        self.next_time = began + max(self.seconds, took / MOST_SHARE)


def last_line(history: Sequence[Mapping]) -> str:
    """The last line of the log in words; empty where there is none."""
    lines = [line for line in history if "loss" in line]
    if not lines:
        return ""
    line = lines[-1]
    words = [f"step {line['step']:,}", f"loss {line.get('total', line['loss']):.3f}"]
    if "tokens_per_s" in line:
        words.append(f"{line['tokens_per_s']:,.0f} tokens per second")
    if "mfu" in line:
        words.append(f"MFU {line['mfu']:.0%}")
    if "padding_share" in line:
        words.append(f"padding {line['padding_share']:.0%}")
    return ", ".join(words)


def dashboard_figure(
    history: Sequence[Mapping], seen: Mapping[int, Guesses], texts: Sequence[str]
) -> Figure:
    """A figure of a log: losses, learning rate, tokens per second; and of guesses, if there are.

    `history` is a trainer's `log_history`; of its lines those with a `loss` are drawn. `seen` has
    the guesses for all `texts` by the step.
    """
    lines = [line for line in history if "loss" in line]
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.9 + (0.7 + 0.34 * len(texts)) * bool(seen)))
        rows = [[1, 2], [1, 3]] + [[4, 4]] * bool(seen)
        heights = [1.6, 1.6] + [0.5 + 0.34 * len(texts)] * bool(seen)
        axes = fig.subplot_mosaic(rows, width_ratios=(1.5, 1), height_ratios=heights)
        _losses(axes[1], lines)
        _one(
            axes[2], lines, "learning_rate", "learning rate", lambda x, _: f"{x:.0e}" if x else "0"
        )
        _one(axes[3], lines, "tokens_per_s", "tokens per second", lambda x, _: f"{x:,.0f}")
        for place in (1, 3):
            axes[place].set_xlabel("step")
        if not lines:
            for place in (1, 2, 3):
                axes[place].set(xticks=[], yticks=[])
        if seen:
            _guesses(axes[4], seen, texts)
        fig.suptitle("How is the training going?", x=0.01, ha="left", fontsize=13)
    return fig


def _losses(axes: Axes, lines: Sequence[Mapping]) -> None:
    parts = [part for part in LOSSES if any(part in line for line in lines)] or ["loss"]
    for part, (colour, dash, _) in zip(parts, LOOKS, strict=False):
        here = [(line["step"], line[part]) for line in lines if part in line]
        look = {"color": COLOURS[colour], "linestyle": dash, "label": LOSSES.get(part, part)}
        axes.plot(*(zip(*here, strict=True) if here else ((), ())), **look)
    axes.set_title("loss and its parts", fontsize=11)
    if lines:
        axes.set_yscale("log")
        plain_log_ticks(axes)
        axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=4)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _one(axes: Axes, lines: Sequence[Mapping], name: str, title: str, words) -> None:
    here = [(line["step"], line[name]) for line in lines if name in line]
    steps, values = zip(*here, strict=True) if here else ((), ())
    axes.plot(steps, values, color=COLOURS["blue"])
    axes.set_title(title, fontsize=11)
    axes.set_ylim(0, 1.15 * max(values, default=1))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(words))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _guesses(axes: Axes, seen: Mapping[int, Guesses], texts: Sequence[str]) -> None:
    """Nothing; writes the first guess for each text, at a few moments from first to last."""
    steps = sorted(seen)
    if len(steps) > COLUMNS:
        last = len(steps) - 1
        steps = [steps[round(k * last / (COLUMNS - 1))] for k in range(COLUMNS)]
    for row, text in enumerate(texts):
        short = textwrap.shorten(text.replace("[MASK]", "____"), 46, placeholder=" …")
        look = {"va": "center", "fontsize": 9, "parse_math": False}
        axes.text(0, row, short, **look)
        for column, step in enumerate(steps):
            word, prob = seen[step][row][0][0]
            axes.text(_place(column), row, f"{word}  {prob:.0%}", ha="center", **look)
    for column, step in enumerate(steps):
        head = {"ha": "center", "va": "center", "fontsize": 9, "color": "0.35"}
        axes.text(_place(column), -1, f"step {step:,}", **head)
    axes.set(xlim=(0, 1), ylim=(len(texts) - 0.4, -1.5))
    axes.set_title("What does it guess for the gap?", fontsize=11)
    axes.axis("off")


def _place(column: int) -> float:
    return 0.5 + 0.5 * (column + 0.5) / COLUMNS


def _screen_png(figure: Figure) -> bytes:
    """The figure as PNG at the screen's resolution: a quarter of the work that `plots.png` does."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=STYLE["figure.dpi"])
    return drawn.getvalue()
