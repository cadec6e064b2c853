"""A search for the settings of a training, by Optuna through `Trainer.hyperparameter_search`."""

from __future__ import annotations

import importlib.util
import inspect
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from tqdm.auto import tqdm
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, set_seed

from course_utils.data.encoding import EncodedTexts, PadBatch
from course_utils.distill.refusals import DivergedError, need_dev
from course_utils.distill.trainer import (
    Recipe,
    TaskTrainer,
    apply_recipe,
    dev_accuracy,
    labelled,
    quiet,
    recipe_arguments,
    training_arguments,
)
from course_utils.errors import CourseError, DataError

if TYPE_CHECKING:
    from optuna.trial import Trial

FIRST_TRIALS = 5  # drawn at random and not cut short, so that there is something to compare with
RECIPE_FIELDS = {field.name for field in fields(Recipe)}

MakeStudent = Callable[..., PreTrainedModel]
Space = Mapping[str, tuple[float, float] | list]


@dataclass(frozen=True)
class Found:
    """The best trial's recipe, and what `make_student` was given for it; all trials, in order.

    A trial is a dict with `number`, `params`, `dev_accuracy` (after its last epoch; None if it
    diverged before), `state` ("complete" or "pruned") and `n_epochs_run`.
    """

    recipe: Recipe
    student: dict[str, object]
    trials: list[dict[str, object]]


def search(
    make_student: MakeStudent,
    train_texts: EncodedTexts,
    dev_texts: EncodedTexts,
    base: Recipe,
    space: Space,
    *,
    n_trials: int,
    seed: int = 0,
    progress: bool = True,
) -> Found:
    """The settings in `space` with the best accuracy on `dev_texts` after their last epoch.

    `space` maps a name to a range or to a list of choices: `{"learning_rate": (1e-5, 1e-3),
    "layers": [2, 3, 4]}`. A field of `Recipe` replaces that of `base`; other names are given to
    `make_student(layers=…)`, which makes a new model each time. A range of whole numbers holds
    whole numbers alone; one of a factor of ten or more is searched on a logarithmic scale.

    The first five trials are random; then a tree-structured Parzen estimator proposes (Bergstra et
    al. 2011, section 4), and a trial ends early whose best accuracy so far is below the median of
    the earlier trials' at the same epoch. One that diverges ends, too. Equal seeds give equal
    trials on the same machine.

    There is no place for test texts here: a score that was used to choose no longer measures, and
    the best of many trials is in part the luckiest. Measure what was found once, on texts that no
    trial has seen. Raises `DataError` for a space that is none and dev texts without labels,
    `CourseError` where Optuna is missing or every trial diverges.
    """
    _need_optuna()
    _need_space(make_student, space, n_trials)
    need_dev(dev_texts.columns["labels"], None)
    import optuna

    storage = {"storage": optuna.storages.InMemoryStorage(), "study_name": "search"}
    with (
        tempfile.TemporaryDirectory() as scratch,
        tqdm(total=n_trials, desc="trials", unit="trial", disable=not progress) as bar,
        quiet(),
        _quiet_optuna(),
    ):
        trainer = SearchTrainer(
            make_student,
            space,
            args=training_arguments(base, scratch, measured=True),
            train_dataset=train_texts,
            eval_dataset=labelled(dev_texts),
            compute_metrics=dev_accuracy,
            callbacks=[_Count(bar)],
            recipe=base,
        )
        try:
            trainer.hyperparameter_search(
                lambda trial: recipe_arguments(trainer.recipe),  # drawn with the student
                lambda metrics: metrics["eval_accuracy"],
                n_trials=n_trials,
                direction="maximize",
                backend="optuna",
                sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=FIRST_TRIALS),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=FIRST_TRIALS),
                **storage,
            )
        except ValueError as error:  # so Optuna says that there is no best trial
            if any(row["state"] != "pruned" for row in _table(storage)):
                raise
            raise CourseError(
                f"The loss diverged in each of the {n_trials} trials.",
                do="Search smaller learning rates, or look for NaN in the teacher's signals.",
            ) from error
    best = optuna.load_study(**storage).best_trial
    recipe, student = _settings(base, best.params)
    return Found(recipe, student, _table(storage))


class SearchTrainer(TaskTrainer):
    """A `TaskTrainer` for one trial after the other: each draws its recipe and its student."""

    def __init__(
        self,
        make_student: MakeStudent,
        space: Space,
        *,
        recipe: Recipe,
        **kwargs,
    ):
        self.make_student, self.space, self.base = make_student, space, recipe
        super().__init__(model_init=self.draw, recipe=recipe, **kwargs)
        self.data_collator = PadBatch(self.model.config.pad_token_id)
        self.remove_callback(PrinterCallback)

    def draw(self, trial: Trial | None) -> PreTrainedModel:
        """The trial's student, ready for the trial's recipe; without a trial, one to begin with."""
        params = {name: _choose(trial, name, choices) for name, choices in self.space.items()}
        self.recipe, student = _settings(self.base, params)
        set_seed(self.recipe.seed)
        model = self.make_student(**student)
        apply_recipe(model, self.recipe)
        set_seed(self.recipe.seed)  # as `train` has it: whatever the student was made of
        return model

    def training_step(self, *args, **kwargs):
        try:
            return super().training_step(*args, **kwargs)
        except DivergedError as error:
            from optuna import TrialPruned

            self.callback_handler.on_train_end(self.args, self.state, self.control)
            raise TrialPruned(error.what) from error

    def _report_to_hp_search(self, trial, step, metrics):
        """Trials are compared at the same epoch: one of larger batches has fewer steps."""
        measured = sum("eval_accuracy" in entry for entry in self.state.log_history)
        super()._report_to_hp_search(trial, measured, metrics)


class _Count(TrainerCallback):
    """Moves a bar on after each trial."""

    def __init__(self, bar: tqdm):
        self.bar = bar

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.update()


def _choose(trial: Trial | None, name: str, choices: tuple[float, float] | list) -> object:
    """What the trial takes for `name`; without a trial the first choice."""
    if trial is None:
        return choices[0]
    if isinstance(choices, list):
        return trial.suggest_categorical(name, choices)
    low, high = choices
    whole = isinstance(low, int) and isinstance(high, int)
    suggest = trial.suggest_int if whole else trial.suggest_float
    return suggest(name, low, high, log=0 < 10 * low <= high)


def _settings(base: Recipe, params: dict[str, object]) -> tuple[Recipe, dict[str, object]]:
    """The recipe with these parameters, and those that are none of its fields."""
    student = {name: value for name, value in params.items() if name not in RECIPE_FIELDS}
    return replace(base, **{name: params[name] for name in params.keys() - student.keys()}), student


def _table(storage: dict[str, object]) -> list[dict[str, object]]:
    import optuna

    return [
        {
            "number": trial.number,
            "params": trial.params,
            "dev_accuracy": trial.value,
            "state": trial.state.name.lower(),
            "n_epochs_run": len(trial.intermediate_values),
        }
        for trial in optuna.load_study(**storage).trials
    ]


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Nothing; inside the block Optuna does not print each trial."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _need_optuna() -> None:
    if importlib.util.find_spec("optuna") is None:
        raise CourseError("Optuna is not installed.", do="Run: python -m pip install optuna")


def _need_space(make_student: MakeStudent, space: Space, n_trials: int) -> None:
    if n_trials < 1 or not space:
        raise DataError(
            f"{n_trials} trials over {len(space)} settings are no search.",
            do='Give at least one of each, as n_trials=12 and {"learning_rate": (1e-5, 1e-3)}.',
        )
    for name, choices in space.items():
        if not (_is_range(choices) or (isinstance(choices, list) and choices)):
            raise DataError(
                f"The space has {choices!r} for {name}.",
                do="Give a range as (low, high), two numbers, or the choices as a list.",
            )
    others = [name for name in space if name not in RECIPE_FIELDS]
    try:
        inspect.signature(make_student).bind(**dict.fromkeys(others))
    except TypeError as error:
        raise DataError(
            f"make_student cannot be called with {', '.join(others) or 'nothing'}: {error}.",
            do=f"The recipe has {', '.join(sorted(RECIPE_FIELDS))}; all other names of the space "
            "must be make_student's.",
        ) from None


def _is_range(choices: object) -> bool:
    numbers = isinstance(choices, tuple) and all(isinstance(n, int | float) for n in choices)
    return numbers and len(choices) == 2 and -math.inf < choices[0] < choices[1] < math.inf
