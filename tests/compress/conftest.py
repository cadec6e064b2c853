"""The tiny classifier, its tokenizer and its texts, as most tests of compression need them."""

from __future__ import annotations

import pytest
from tiny import TEXTS
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from course_utils.data.encoding import encode


@pytest.fixture(scope="module")
def model(tiny_teacher_folder):
    return AutoModelForSequenceClassification.from_pretrained(tiny_teacher_folder).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


@pytest.fixture(scope="module")
def texts(tokenizer):
    return encode(tokenizer, TEXTS)
