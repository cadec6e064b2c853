"""Several models in one run: a row for each, the first one the teacher of all."""

import numpy as np
import pytest
from tiny import TEXTS

from course_utils.measure import in_one_run as module
from course_utils.measure.in_one_run import Entry, in_one_run
from course_utils.measure.report import MEASURED, rows
from course_utils.models.classifier import TorchClassifier
from course_utils.ship.runtime import OnnxClassifier


@pytest.fixture
def timed(monkeypatch):
    """How many texts each process was given that measures memory; none is started."""
    given = []
    monkeypatch.setattr(module, "peak_memory_mb", lambda *args: given.append(len(args[2])) or 7.0)
    return given


def test_every_model_has_a_whole_row_and_its_own_logits(tiny_teacher_folder, tiny_onnx, timed):
    labels = [k % 3 for k in range(len(TEXTS))]
    entries = [
        Entry("teacher", tiny_teacher_folder, TorchClassifier),
        Entry("int8", tiny_onnx["int8"][0], OnnxClassifier),
    ]
    measured, logits = in_one_run(entries, TEXTS, labels, n_timed=3, progress=False)
    assert [row["name"] for row in measured] == ["teacher", "int8"]
    assert all(set(MEASURED) <= set(row) for row in measured)
    assert rows(measured)[0]["size_ratio"] == 1
    assert timed == [3, 3]
    for entry, each, row in zip(entries, logits, measured, strict=True):
        expected = entry.load(entry.folder).predict(TEXTS)
        np.testing.assert_allclose(each, expected, atol=1e-5)
        assert row["accuracy"] == np.mean(expected.argmax(1) == labels)
        assert row["agreement"] == np.mean(expected.argmax(1) == logits[0].argmax(1))
