"""A search on a tiny model: what is drawn, what is pruned, and what is told of it."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from dataclasses import replace

import pytest
import torch

from course_utils.data.encoding import EncodedTexts
from course_utils.distill.search import Found, search
from course_utils.distill.trainer import Recipe, train
from course_utils.errors import CourseError, DataError

pytest.importorskip("optuna")

BASE = Recipe(epochs=2, learning_rate=1e-3, batch_size=16)
SPACE = {"learning_rate": (1e-5, 1e-2), "layers": [1, 2], "alpha": (0.0, 1.0)}


@pytest.fixture(autouse=True)
def in_float32(float32_cpu):
    """Every test here."""


@pytest.fixture
def make_student(make_model):
    def make(layers: int):
        return make_model(num_hidden_layers=layers)

    return make


@pytest.fixture
def dev(texts) -> EncodedTexts:
    """The labels are those of the texts, so that what is learned helps."""
    return EncodedTexts(texts.input_ids[::2], labels=texts.columns["labels"][::2])


@pytest.fixture
def taught(texts) -> EncodedTexts:
    return texts.with_columns(teacher_logits=4.0 * torch.eye(3)[texts.columns["labels"]])


@pytest.fixture
def found(make_student, taught, dev) -> Found:
    return search(make_student, taught, dev, BASE, SPACE, n_trials=3, progress=False)


def test_the_table_has_every_trial_within_the_space(found):
    assert [trial["number"] for trial in found.trials] == [0, 1, 2]
    for trial in found.trials:
        assert list(trial) == ["number", "params", "dev_accuracy", "state", "n_epochs_run"]
        assert trial["params"].keys() == SPACE.keys()
        assert 1e-5 <= trial["params"]["learning_rate"] <= 1e-2
        assert trial["params"]["layers"] in (1, 2)
        assert (trial["state"], trial["n_epochs_run"]) == ("complete", 2)
    assert len({trial["params"]["learning_rate"] for trial in found.trials}) == 3


def test_what_was_found_is_the_best_trial_and_training_with_it_gives_its_score(
    found, make_student, taught, dev
):
    best = max(found.trials, key=lambda trial: trial["dev_accuracy"])
    params = dict(best["params"])
    assert found.student == {"layers": params.pop("layers")}
    assert found.recipe == replace(BASE, **params)
    for trial in found.trials:
        params = dict(trial["params"])
        student = make_student(params.pop("layers"))
        log = train(student, taught, replace(BASE, **params), dev=dev, progress=False)
        assert log[-1]["dev_accuracy"] == trial["dev_accuracy"]


def test_equal_seeds_give_equal_trials_and_others_do_not(found, make_student, taught, dev):
    def again(seed: int) -> Found:
        settings = {"n_trials": 3, "seed": seed, "progress": False}
        return search(make_student, taught, dev, BASE, SPACE, **settings)

    assert again(0) == found
    assert again(1).trials[0]["params"] != found.trials[0]["params"]


def test_every_field_of_the_recipe_may_be_searched(make_student, texts, dev):
    """And each trial is trained with its own, not with the one before."""
    seen = []

    def make(**student):
        seen.append(student)
        return make_student(2)

    space = {
        "epochs": [1, 2.5],
        "learning_rate": [1e-3, 2e-3],
        "batch_size": [8, 23],
        "warmup": (0.0, 0.5),
        "weight_decay": (1e-4, 1e-1),
        "dropout": (0.0, 0.5),
        "freeze_words": [True, False],
        "seed": (0, 9),
    }
    found = search(make, texts, dev, BASE, space, n_trials=3, seed=3, progress=False)
    assert found.student == {}
    assert seen == [{}] * 4  # one to begin with
    for trial in found.trials:
        recipe = replace(BASE, **trial["params"])
        assert type(recipe.seed) is int
        log = train(make_student(2), texts, recipe, dev=dev, progress=False)
        measured = [entry["dev_accuracy"] for entry in log if "dev_accuracy" in entry]
        assert measured[-1] == trial["dev_accuracy"]
        assert trial["n_epochs_run"] == len(measured)


@pytest.mark.parametrize(
    ("choices", "middle"), [((1e-6, 1e-2), 1e-4), ((0.0, 1.0), 0.5), ((0.2, 0.8), 0.5)]
)
def test_wide_ranges_are_searched_on_a_logarithmic_scale(choices, middle):
    import optuna

    from course_utils.distill.search import _choose

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [_choose(study.ask(), "x", choices) for _ in range(200)]
    assert 70 < sum(x < middle for x in drawn) < 130
    assert choices[0] <= min(drawn) < max(drawn) <= choices[1]


def test_a_trial_below_the_median_is_pruned(make_student, texts, dev):
    """After five trials that learn, the few that cannot (learning rate 0) end after an epoch."""
    recipe = replace(BASE, epochs=4, learning_rate=3e-3, batch_size=8)
    space = {"learning_rate": [0.0, 3e-3, 4e-3, 5e-3, 6e-3], "seed": (0, 99)}
    found = search(lambda: make_student(2), texts, dev, recipe, space, n_trials=12, progress=False)
    states = [trial["state"] for trial in found.trials]
    assert states[:5] == ["complete"] * 5
    assert "pruned" in states
    for trial in found.trials:
        assert trial["n_epochs_run"] == 4 or trial["state"] == "pruned"
        assert 1 <= trial["n_epochs_run"] <= 4
    assert found.recipe.learning_rate > 0


def test_a_trial_that_diverges_is_pruned_and_the_search_goes_on(make_student, texts, dev):
    space = {"learning_rate": [1e-3, 1e30]}
    found = search(
        lambda: make_student(2), texts, dev, BASE, space, n_trials=5, seed=1, progress=False
    )
    by_rate = {trial["params"]["learning_rate"]: trial for trial in found.trials}
    assert by_rate[1e30]["state"] == "pruned"
    assert by_rate[1e30]["dev_accuracy"] is None
    assert by_rate[1e-3]["state"] == "complete"
    assert found.recipe == BASE


def test_a_search_in_which_all_diverges_says_so(make_student, texts, dev):
    space = {"learning_rate": [1e29, 1e30]}
    with pytest.raises(CourseError, match="diverged in each of the 2 trials"):
        search(lambda: make_student(2), texts, dev, BASE, space, n_trials=2, progress=False)


def test_another_error_is_not_taken_for_that(texts, dev, make_model):
    def fails():
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        search(fails, texts, dev, BASE, {"alpha": [0.5]}, n_trials=2, progress=False)


@pytest.mark.parametrize("progress", [False, True])
def test_nothing_is_printed_but_the_bar(make_student, texts, dev, capfd, progress):
    import optuna

    before = optuna.logging.get_verbosity()
    space = {"layers": [1, 2], "dropout": (0.0, 0.1)}
    search(make_student, texts, dev, BASE, space, n_trials=2, progress=progress)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("trials: 100%" in err and "2/2" in err) if progress else err == ""
    assert "[I" not in err
    assert "Trying to set" not in err
    assert optuna.logging.get_verbosity() == before


def test_there_is_no_place_for_test_texts():
    parameters = inspect.signature(search).parameters
    texts = [name for name in parameters if name.endswith("_texts")]
    assert texts == ["train_texts", "dev_texts"]
    assert not any("test" in name for name in parameters)


@pytest.mark.parametrize(
    ("space", "n_trials", "words"),
    [
        ({}, 3, "3 trials over 0 settings"),
        ({"layers": [1]}, 0, "0 trials over 1 settings"),
        ({"layers": []}, 3, r"space has \[\] for layers"),
        ({"layers": [1], "alpha": (0.5, 0.5)}, 3, r"\(0.5, 0.5\) for alpha"),
        ({"layers": [1], "alpha": (0.9, 0.1)}, 3, r"\(0.9, 0.1\) for alpha"),
        ({"layers": [1], "alpha": (0.1, 0.5, 0.9)}, 3, "for alpha"),
        ({"layers": [1], "alpha": ("a", "b")}, 3, "for alpha"),
        ({"layers": [1], "alpha": 0.5}, 3, "space has 0.5 for alpha"),
        ({"layers": [1], "learnin_rate": (0.1, 0.5)}, 3, "(?s)layers, learnin_rate.*learning_rate"),
        ({"alpha": (0.1, 0.5)}, 3, "with nothing: missing a required argument: 'layers'"),
    ],
)
def test_spaces_that_are_none(make_student, texts, dev, space, n_trials, words):
    with pytest.raises(DataError, match=words):
        search(make_student, texts, dev, BASE, space, n_trials=n_trials, progress=False)


def test_dev_texts_need_labels(make_student, texts, dev):
    unlabelled = dev.with_columns(labels=torch.full((len(dev),), -100))
    with pytest.raises(DataError, match="None of the 23 dev texts"):
        search(make_student, texts, unlabelled, BASE, SPACE, n_trials=1, progress=False)


def test_optuna_is_asked_for_with_the_command(monkeypatch, make_student, texts, dev):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "optuna" else real(name, *a)
    )
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(CourseError, match="pip install optuna"):
        search(make_student, texts, dev, BASE, SPACE, n_trials=1, progress=False)
