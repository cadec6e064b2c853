"""What the layers of an encoder know, and how much they resemble each other."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from course_utils.data.encoding import EncodedTexts, pad
from course_utils.errors import DataError
from course_utils.machine import describe
from course_utils.measure.accuracy import score

HELD_OUT = 0.3


@torch.no_grad()
def layer_features(
    model: PreTrainedModel, texts: EncodedTexts, *, batch_size: int = 64, progress: bool = True
) -> np.ndarray:
    """The mean of each text's hidden states after every layer, (N, n_layers + 1, H), float32.

    The first is that of the embeddings: a bag of words with positions, the measure for what the
    layers add. The mean is over all real tokens. [CLS] would be the other choice, but in a model
    that was not fine-tuned nothing has taught [CLS] to stand for the text: after the embeddings it
    is the same for all. The model is not touched: a copy runs in eval mode, in the machine's fast
    data type, over batches of texts of like length. Raises `DataError` when there is no text,
    or one longer than the model's positions.
    """
    texts.need_room(model.config.max_position_embeddings)
    machine = describe()
    encoder = copy.deepcopy(model.base_model).eval()
    encoder = encoder.to(machine.device, getattr(torch, machine.dtype))
    order = sorted(range(len(texts)), key=lambda i: len(texts.input_ids[i]))
    shape = (len(texts), encoder.config.num_hidden_layers + 1, encoder.config.hidden_size)
    features = np.empty(shape, np.float32)
    with tqdm(total=len(order), desc="features", unit="text", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = pad([texts.input_ids[i] for i in rows], encoder.config.pad_token_id)
            batch = {name: tensor.to(machine.device) for name, tensor in batch.items()}
            states = encoder(**batch, output_hidden_states=True).hidden_states
            real = batch["attention_mask"][..., None]  # (B, S, 1)
            for layer, hidden in enumerate(states):  # (B, S, H)
                mean = (hidden.float() * real).sum(1) / real.sum(1)  # (B, H)
                features[rows, layer] = mean.cpu().numpy()
            bar.update(len(rows))
    return features


def linear_probe(
    features: np.ndarray, labels: Sequence[int] | np.ndarray, *, seed: int = 0
) -> list[dict[str, float]]:
    """For each layer, how well a linear classifier reads the label from it: one dict per layer.

    `features` are (N, L, H), `labels` (N,). A dict has `layer`, `accuracy`, `accuracy_low` and
    `accuracy_high` (95 % bootstrap) on the 30 % of the texts that were held out, the same for every
    layer and of each class the same share. The probe is a logistic regression on standardised
    features: what it can read is there in plain sight, not worked out by the probe (Alain & Bengio
    2016). Raises `DataError` for shapes that do not fit, features that are no number, and labels
    of one class or too few to split.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    _check_features(features)
    if labels.shape != features.shape[:1]:
        raise DataError(
            f"Features are {features.shape}, labels {labels.shape}.", do="Give one label per text."
        )
    names, classes = np.unique(labels, return_inverse=True)
    if len(names) < 2 or np.bincount(classes).min() < 4:
        raise DataError(
            f"{len(labels)} texts of {len(names)} classes cannot be split for a probe.",
            do="Give two classes or more, and at least 4 texts of each.",
        )
    train, test = train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT, stratify=classes, random_state=seed
    )
    found = []
    for layer in range(features.shape[1]):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        # On two cores, the threads of scikit-learn and those of its linear algebra wait for each
        # other: with both, eight classes took a hundred times as long.
        with threadpool_limits(1, user_api="blas"):
            probe.fit(features[train, layer], classes[train])
        scores = score(probe.predict_proba(features[test, layer]), classes[test], seed=seed)
        found.append({"layer": layer} | {k: v for k, v in scores.items() if "accuracy" in k})
    return found


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """How much two sets of features of the same texts resemble each other, from 0 to 1.

    Linear centred kernel alignment of (N, H1) and (N, H2): ‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖) with columns
    centred, in Frobenius norms. Kornblith et al. 2019, section 3 and table 1. Rotating one side or
    multiplying it by a number changes nothing; other linear maps do. Unrelated features come near 0
    only for N well above H1 and H2. Raises `DataError` for shapes that do not fit, features that
    are no number, and features that are the same for all texts.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise DataError(
            f"Features are {x.shape} and {y.shape}.",
            do="Give two arrays of shape (texts, size) for the same texts, at least two.",
        )
    _check_features(x[:, None])
    _check_features(y[:, None])
    if not np.ptp(x, axis=0).any() or not np.ptp(y, axis=0).any():
        raise DataError("Features that are the same for all texts resemble nothing.")
    x, y = x - x.mean(0), y - y.mean(0)
    cross, own_x, own_y = (np.linalg.norm(a.T @ b) for a, b in ((y, x), (x, x), (y, y)))
    return float(cross**2 / (own_x * own_y))


def cka_matrix(features: np.ndarray) -> np.ndarray:
    """The `cka` of every layer with every layer, (L, L), for features (N, L, H)."""
    features = np.asarray(features)
    _check_features(features)
    matrix = np.ones((features.shape[1],) * 2)
    for i in range(len(matrix)):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = cka(features[:, i], features[:, j])
    return matrix


def _check_features(features: np.ndarray) -> None:
    if features.ndim != 3 or not features.size:
        raise DataError(
            f"Features are {features.shape}.", do="Give (texts, layers, size), as layer_features."
        )
    bad = ~np.isfinite(features).all((1, 2))
    if bad.any():
        raise DataError("A feature is not a number.", where=f"text {int(bad.argmax())}")
