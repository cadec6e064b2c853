"""The card of a small model: nothing of the data is markup in it, and its snippets run."""

from __future__ import annotations

import json
import re
import shutil
from copy import deepcopy

import numpy as np
import pytest

from course_utils.ship.runtime import OnnxClassifier
from course_utils.shrinking.card import model_card

TEXT = "A text of yours."
ROW = {
    "name": "teacher",
    "accuracy": 0.9,
    "accuracy_low": 0.85,
    "accuracy_high": 0.94,
    "macro_f1": 0.88,
    "agreement": 1.0,
    "retention": 1.0,
    "size_mb": 90.9,
    "size_ratio": 1.0,
    "latency_ms_p50": 20.0,
    "speedup_batch1": 1.0,
    "throughput_32": 100.0,
    "speedup_batch32": 1.0,
}
RESULTS = {
    "machine": {"cpu": "any"},
    "task": {
        "name": "reviews",
        "labels": ["bad", "good"],
        "train": 1600,
        "dev": 200,
        "test": 200,
        "unlabelled": 0,
        "fingerprint": "0123456789abcdef",
    },
    "rows": [ROW, ROW | {"name": "student, int8", "accuracy": 0.89, "size_mb": 9.1}],
    "extra": {
        "base": "owner/encoder",
        "fine_tuned": True,
        "said": ["! 12 texts occur twice."],
        "choice": {"layers": 3, "seed": 0, "depths": [{"layers": 3, "accuracy": [0.9]}]},
        "seeds": {"mean": 0.88, "least": 0.87, "most": 0.89},
        "by_class": [
            {"name": "bad", "n": 90, "precision": 0.9, "recall": 0.8, "f1": 0.85},
            {"name": "good", "n": 110, "precision": 0.8, "recall": 0.9, "f1": 0.86},
        ],
        "suspects": 0,
        "max_length": 64,
        "multi_label": False,
    },
}


def with_facts(**facts) -> dict:
    results = deepcopy(RESULTS)
    results["extra"].update(facts)
    return results


def test_the_card_says_what_was_measured():
    card = model_card(RESULTS)
    for said in (
        "reviews: 1,600 train, 200 dev, 200 test, 0 unlabelled texts",
        "`0123456789abcdef`",
        "- 12 texts occur twice.",
        "| 90.0% (85.0% to 94.0%) | 89.0% (85.0% to 94.0%) |",
        "| size, MB | 90.9 | 9.1 |",
        "| good | 110 | 80.0% | 90.0% | 86.0% |",
        "A student of 3 layers",
        "cut after 64 tokens",
        "rests on 200 test texts",
    ):
        assert said in card


def test_a_teacher_that_was_ready_is_told_from_one_that_was_trained():
    assert "owner/encoder, fine-tuned on the same data." in model_card(RESULTS)
    assert "owner/encoder as it was." in model_card(with_facts(fine_tuned=False))


def test_seeds_and_suspects_stand_in_the_card_when_there_are_some():
    assert "Over" not in model_card(RESULTS)
    assert "suspects.csv` lists them" not in model_card(RESULTS)
    depths = [{"layers": 3, "accuracy": [0.9, 0.8, 0.7]}]
    card = model_card(with_facts(suspects=16, choice={"layers": 3, "seed": 0, "depths": depths}))
    assert "Over 3 seeds" in card
    assert "88.0% on average, 87.0% at least and 89.0% at most" in card
    assert "16 of 1,600 training texts" in card


def test_the_front_matter_is_what_the_hub_reads():
    card = model_card(RESULTS)
    front = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1]
    facts = dict(line.split(": ", 1) for line in front.split("\n"))
    facts = {name: json.loads(value) for name, value in facts.items()}  # JSON is YAML
    assert facts["library_name"] == "transformers"
    assert facts["pipeline_tag"] == "text-classification"
    assert facts["base_model"] == "owner/encoder"
    assert "accuracy" in facts["metrics"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[click](javascript:x)", r"\[click\](javascript:x)"),
        ("`code` *bold*", r"\`code\` \*bold\*"),
        ("two\nlines", "two lines"),
    ],
)
def test_names_from_the_data_are_shown_as_they_are(name, shown):
    results = deepcopy(RESULTS)
    results["extra"]["by_class"][0]["name"] = name
    results["task"]["name"] = results["extra"]["said"][0] = name
    card = model_card(results)
    assert f"| {shown} | 90 |" in card
    assert f"# {shown}: a small text classifier\n" in card
    assert f"- {shown}\n" in card


@pytest.mark.parametrize("multi_label", [False, True])
def test_both_snippets_run_inside_the_folder(
    tiny_teacher_folder, tiny_onnx, tmp_path, monkeypatch, capsys, multi_label
):
    for folder in (tiny_teacher_folder, tiny_onnx["fp32"][0]):
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    model = OnnxClassifier(tmp_path)
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in model.labels))
    config = json.loads((tmp_path / "config.json").read_text())
    kind = "multi_label_classification" if multi_label else "single_label_classification"
    (tmp_path / "config.json").write_text(json.dumps(config | {"problem_type": kind}))
    card = model_card(with_facts(max_length=model.max_length, multi_label=multi_label))
    monkeypatch.chdir(tmp_path)
    torch_way, onnx_way = re.findall(r"```python\n(.*?)```", card, re.DOTALL)

    logits = model.predict([TEXT])[0]
    exec(onnx_way, {})
    said = capsys.readouterr().out.strip()
    if multi_label:
        assert said == str([k for k, logit in zip(model.labels, logits, strict=True) if logit > 0])
    else:
        assert said == model.labels[logits.argmax()]

    space = {}
    exec(torch_way, space)
    assert model.labels[logits.argmax()] in capsys.readouterr().out
    answers = space["classify"](TEXT, top_k=None)
    probs = {answer["label"]: answer["score"] for answer in answers}
    powers = np.exp(logits)
    expected = powers / (1 + powers) if multi_label else powers / powers.sum()
    assert [probs[name] for name in model.labels] == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_second_snippet_needs_no_torch():
    card = model_card(RESULTS)
    onnx_way = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[1]
    imported = re.search(r"import (.*)", onnx_way)[1].split(", ")
    assert set(imported) == {"numpy", "onnxruntime", "tokenizers"}
    assert onnx_way.count("import") == 1
