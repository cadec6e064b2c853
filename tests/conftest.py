"""What several rooms' tests share: a tiny BERT classifier with a tokenizer that splits words."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import TEXTS, write_classifier


@pytest.fixture(scope="session")
def some_texts() -> list[str]:
    """40 texts of different lengths, some with words that the vocabulary lacks."""
    return [" ".join((TEXTS * 2)[k : k + 1 + k % 3]) for k in range(8)] * 5


@pytest.fixture(scope="session")
def tiny_teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier folder: 4 layers, hidden size 32, 64 positions, 3 labels, random weights."""
    return write_classifier(tmp_path_factory.mktemp("models") / "tiny-teacher")


@pytest.fixture(scope="session")
def tiny_onnx(
    tiny_teacher_folder: Path, some_texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict:
    """The tiny teacher as "fp32" and "int8": its ONNX folder and the parity that was reported."""
    from course_utils.ship.onnx import to_onnx

    place = tmp_path_factory.mktemp("onnx")
    return {
        name: (
            place / name,
            to_onnx(tiny_teacher_folder, place / name, int8=int8, check_texts=some_texts),
        )
        for name, int8 in (("fp32", False), ("int8", True))
    }
