"""Probes on features whose content is known, and the algebra of CKA."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from course_utils.data.encoding import EncodedTexts, encode
from course_utils.errors import DataError
from course_utils.machine import describe
from course_utils.measure import probing
from course_utils.measure.accuracy import bootstrap
from course_utils.measure.probing import cka, cka_matrix, layer_features, linear_probe

# Features


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    machine = replace(describe(), device="cpu", dtype="float32")
    monkeypatch.setattr(probing, "describe", lambda: machine)


@pytest.fixture(scope="module")
def texts(tiny_teacher_folder, some_texts):
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    return encode(tokenizer, some_texts, max_length=64)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_features_are_the_mean_over_real_tokens_text_by_text(
    tiny_teacher_folder, texts, batch_size
):
    model = AutoModel.from_pretrained(tiny_teacher_folder)
    features = layer_features(model, texts, batch_size=batch_size, progress=False)
    assert features.shape == (40, 5, 32)
    assert features.dtype == np.float32
    for ids, row in zip(texts.input_ids, features, strict=True):
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        expected = np.stack([hidden[0].mean(0).numpy() for hidden in states])
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_a_model_in_training_with_a_head_is_read_without_dropout_and_left_alone(
    tiny_teacher_folder, texts
):
    plain = AutoModel.from_pretrained(tiny_teacher_folder)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder).train()
    features = layer_features(model, texts, progress=False)
    np.testing.assert_allclose(features, layer_features(plain, texts, progress=False), atol=1e-6)
    assert all(module.training for module in model.modules())
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_the_fast_data_type_is_near_enough(tiny_teacher_folder, texts, monkeypatch):
    model = AutoModel.from_pretrained(tiny_teacher_folder)
    exact = layer_features(model, texts, progress=False)
    machine = replace(describe(), device="cpu", dtype="bfloat16")
    monkeypatch.setattr(probing, "describe", lambda: machine)
    fast = layer_features(model, texts, progress=False)
    assert not np.array_equal(fast, exact)
    assert np.corrcoef(fast.ravel(), exact.ravel())[0, 1] > 0.999


def test_texts_that_cannot_be_read(tiny_teacher_folder):
    model = AutoModel.from_pretrained(tiny_teacher_folder)
    for ids, longest in (([], 0), ([[5], [5] * 65], 65)):
        with pytest.raises(DataError, match=f"longest text has {longest} tokens; .* 1 to 64"):
            layer_features(model, EncodedTexts(ids), progress=False)


# Probes


def known(n: int = 600, size: int = 12, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 3, size): noise, the class half hidden in noise, the class in plain sight."""
    random = np.random.default_rng(0)
    labels = random.integers(n_classes, size=n)
    signal = np.eye(size)[labels]
    noise = random.normal(size=(n, 3, size))
    return noise + np.stack([0 * signal, 1.5 * signal, 20 * signal], axis=1), labels


def test_a_probe_reads_what_is_there():
    features, labels = known()
    noise, half, plain = linear_probe(features, labels)
    assert [found["layer"] for found in (noise, half, plain)] == [0, 1, 2]
    assert noise["accuracy_low"] < 1 / 3 < noise["accuracy_high"]
    assert noise["accuracy_high"] < half["accuracy_low"]
    assert half["accuracy_high"] < plain["accuracy"] == 1.0
    assert set(noise) == {"layer", "accuracy", "accuracy_low", "accuracy_high"}


def test_the_interval_is_that_of_the_held_out_texts():
    features, labels = known(400)
    for found in linear_probe(features, labels):
        n = 120  # 30 % of 400
        assert round(found["accuracy"] * n, 6) == round(found["accuracy"] * n)
        low, high = bootstrap(found["accuracy"], n)
        assert (found["accuracy_low"], found["accuracy_high"]) == (low, high)


def test_what_a_probe_has_learned_by_heart_does_not_count():
    """More features than texts: any labels can be learned, but not those of other texts."""
    random = np.random.default_rng(1)
    features, labels = random.normal(size=(150, 1, 400)), random.integers(2, size=150)
    (found,) = linear_probe(features, labels)
    assert found["accuracy_low"] < 0.5 < found["accuracy_high"]


def test_the_scale_of_a_layer_does_not_matter():
    features, labels = known()
    scaled = features * np.array([1e-3, 1e3, 1.0])[:, None] + 7
    assert linear_probe(scaled, labels) == linear_probe(features, labels)


def test_names_of_classes_do_not_matter_and_seeds_do():
    features, labels = known()
    first = linear_probe(features, labels)
    assert linear_probe(features, np.array(["numpy", "scipy", "torch"])[labels]) == first
    assert linear_probe(features, (labels * 7 + 3).tolist()) == first
    assert linear_probe(features, labels) == first
    assert linear_probe(features, labels, seed=1) != first


def test_a_layer_in_which_nothing_varies_is_at_the_level_of_guessing():
    features, labels = known()
    features[:, 1] = 3.0
    assert linear_probe(features, labels)[1]["accuracy"] == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize(
    ("features", "labels", "words"),
    [
        (np.ones((6, 4)), [0, 1] * 3, r"Features are \(6, 4\)\."),
        (np.ones((0, 2, 3)), [], r"Features are \(0, 2, 3\)\."),
        (np.ones((8, 2, 3)), [0, 1], r"Features are \(8, 2, 3\), labels \(2,\)"),
        (np.ones((8, 2, 3)), [[0]] * 8, r"labels \(8, 1\)"),
        (np.ones((8, 2, 3)), [1] * 8, "8 texts of 1 classes"),
        (np.ones((8, 2, 3)), [0] * 5 + [1] * 3, "8 texts of 2 classes"),
        (np.full((8, 2, 3), np.nan), [0, 1] * 4, "not a number(?s:.*)text 0"),
    ],
)
def test_what_cannot_be_probed(features, labels, words):
    with pytest.raises(DataError, match=words):
        linear_probe(features, labels)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_four_texts_of_each_class_are_enough(n_classes):
    labels = np.repeat(np.arange(n_classes), 4)
    features = np.eye(n_classes)[labels][:, None]
    assert [found["layer"] for found in linear_probe(features, labels)] == [0]
    with pytest.raises(DataError, match="cannot be split"):
        linear_probe(features[1:], labels[1:])


# CKA


@pytest.fixture
def random():
    return np.random.default_rng(0)


def slow_cka(x: np.ndarray, y: np.ndarray) -> float:
    """From the definition: alignment of the two centred N x N matrices of inner products."""
    n = len(x)
    centre = np.eye(n) - np.full((n, n), 1 / n)
    k, m = centre @ (x @ x.T) @ centre, centre @ (y @ y.T) @ centre
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


@pytest.mark.parametrize(("size", "other"), [(5, 5), (3, 8), (1, 1), (40, 60)])
def test_cka_is_that_of_the_definition(random, size, other):
    x = random.normal(size=(30, size)) + 2
    y = np.tanh(x @ random.normal(size=(size, other))) - 3
    assert cka(x, y) == pytest.approx(slow_cka(x, y))
    assert cka(x, y) == pytest.approx(cka(y, x))
    assert 0 < cka(x, y) < 1 or size == 1


def test_cka_of_features_with_themselves_is_one(random):
    x = random.normal(size=(30, 7)) * np.arange(1, 8)
    assert cka(x, x) == pytest.approx(1)


def test_rotations_scale_and_shifts_change_nothing(random):
    x, y = random.normal(size=(50, 6)) * np.arange(1, 7), random.normal(size=(50, 4))
    y[:, 0] += x[:, 5]
    rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
    mirror = np.diag([-1.0, 1, 1, 1, 1, 1])
    for changed in (x @ rotation, x @ mirror, -3.5 * x, x + 100, 1e-4 * x @ rotation - 1):
        assert cka(changed, y) == pytest.approx(cka(x, y))
        assert cka(changed, x) == pytest.approx(1)


def test_other_linear_maps_change_it(random):
    """As in Kornblith et al., section 2.1: or any two sets with H > N would be equal."""
    x = random.normal(size=(200, 6))
    stretched = x * np.array([30, 1, 1, 1, 1, 1])
    assert cka(stretched, x) < 0.7


def test_unrelated_features_come_near_zero(random):
    few, many = (random.normal(size=(n, 2, 10)) for n in (20, 5000))
    assert cka(many[:, 0], many[:, 1]) < 0.01
    assert cka(few[:, 0], few[:, 1]) > 0.1  # too few texts for ten features


def test_the_matrix_of_layers(random):
    features = random.normal(size=(40, 4, 6)).astype(np.float32)
    features[:, 3] = features[:, 1] * 2
    matrix = cka_matrix(features)
    assert matrix.shape == (4, 4)
    for i in range(4):
        for j in range(4):
            assert matrix[i, j] == pytest.approx(cka(features[:, i], features[:, j]))
    assert matrix[1, 3] == pytest.approx(1)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), r"\(3, 2\) and \(4, 2\)"),
        (np.ones(3), np.ones((3, 2)), r"\(3,\) and"),
        (np.ones((1, 2)), np.ones((1, 2)), "at least two"),
        (np.full((3, 2), 0.1), np.eye(3), "same for all texts"),
        (np.eye(3), np.full((3, 2), 0.1), "same for all texts"),
        (np.eye(3), np.array([[1.0], [np.inf], [2.0]]), "not a number(?s:.*)text 1"),
    ],
)
def test_what_has_no_cka(x, y, words):
    with pytest.raises(DataError, match=words):
        cka(x, y)


def test_what_has_no_matrix():
    with pytest.raises(DataError, match=r"Features are \(3, 2\)"):
        cka_matrix(np.ones((3, 2)))


@pytest.mark.weights
def test_layers_of_a_real_model_resemble_their_neighbours_most():
    from course_utils.data.sources import find_model
    from course_utils.data.tasks import load_task

    folder = find_model(say=str).path
    dev = load_task("pydocs", say=str, progress=False).dev[:640]
    texts = encode(AutoTokenizer.from_pretrained(folder), dev["text"], max_length=32)
    features = layer_features(AutoModel.from_pretrained(folder), texts, progress=False)
    matrix = cka_matrix(features)
    assert all(matrix[i, i + 1] > matrix[i, -1] for i in range(5))
    found = linear_probe(features, dev["label"])
    assert all(layer["accuracy_low"] > 2 / 8 for layer in found)  # eight libraries
