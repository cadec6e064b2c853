"""The card of a small model: what it was made of, how good it is, its limits, how to load it.

After Mitchell et al. 2019, "Model Cards for Model Reporting". The front matter is that of the
Hugging Face Hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from course_utils.measure.report import kept

TRY_TRANSFORMERS = """\
from transformers import pipeline

classify = pipeline("text-classification", model="."{options})
print(classify("A text of yours.", truncation=True))
"""
TRY_ONNX = """\
import numpy, onnxruntime, tokenizers

tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({max_length})
text = tokenizer.encode("A text of yours.")
given = {{"input_ids": [text.ids], "attention_mask": [text.attention_mask]}}
given = {{name: numpy.array(rows) for name, rows in given.items()}}
logits = onnxruntime.InferenceSession("model.onnx").run(["logits"], given)[0][0]
labels = open("labels.txt", encoding="utf-8").read().splitlines()
print({answer})
"""
FILES = (
    (
        "`config.json`, `model.safetensors`, `tokenizer.json`, `tokenizer_config.json`",
        "for PyTorch",
    ),
    ("`model.onnx`", "the same model in 8-bit integers, for ONNX Runtime"),
    ("`labels.txt`", "the classes, in the order of the logits"),
    ("`report.html`, `results.json`", "every number, with the machine it was measured on"),
    ("`suspects.csv`", "training texts whose label the teacher doubts"),
)
MEASURES = (
    (
        "accuracy, with its 95 % interval",
        "{accuracy:.1%} ({accuracy_low:.1%} to {accuracy_high:.1%})",
    ),
    ("macro-F1", "{macro_f1:.1%}"),
    ("same answer as the teacher", "{agreement:.1%}"),
    ("accuracy kept", "{kept}"),
    ("size, MB", "{size_mb:.1f}"),
    ("times smaller", "{size_ratio:.1f}"),
    ("time for one text (p50), ms", "{latency_ms_p50:.2f}"),
    ("times faster, one text", "{speedup_batch1:.1f}"),
    ("texts a second, 32 together", "{throughput_32:.0f}"),
    ("times faster, 32 together", "{speedup_batch32:.1f}"),
)


def model_card(results: Mapping[str, Any]) -> str:
    """The card in Markdown, from the contents of results.json as `course distill` writes them.

    Whatever comes from the data, such as the names of classes, stands in it as plain text.
    """
    task, facts = results["task"], results["extra"]
    rows = [{**row, "kept": kept(row)} for row in results["rows"]]
    parts = (
        _front(task, facts),
        f"# {_plain(task['name'])}: a small text classifier\n",
        f"{_origin(facts)} It was made by `course distill`.\n",
        "## Data\n",
        _data(task, facts),
        f"## How good it is\n\nAll on the {_count(task['test'], 'test text')}, which nothing was "
        "trained on or chosen by. Times are those of one run on one machine; `report.html` names "
        "it.\n",
        _table(
            ["", *(row["name"] for row in rows)],
            ([name, *(form.format_map(row) for row in rows)] for name, form in MEASURES),
        ),
        _seeds(facts),
        "### By class\n\nThe student in int8.\n",
        _table(
            ["class", "test texts", "precision", "recall", "F1"],
            (
                [c["name"], c["n"], *(f"{c[key]:.1%}" for key in ("precision", "recall", "f1"))]
                for c in facts["by_class"]
            ),
        ),
        "## Limits\n",
        _bullets(_limits(task, facts)),
        "## How to load it\n\nRun these inside this folder. With transformers:\n",
        _code(TRY_TRANSFORMERS.format(options=", top_k=None" * facts["multi_label"])),
        "Without PyTorch, with onnxruntime and tokenizers:\n",
        _code(TRY_ONNX.format(max_length=facts["max_length"], answer=_answer(facts))),
        'Or `course predict FOLDER "A text of yours."`.\n',
        "## Files\n",
        _bullets(f"{names}: {what}." for names, what in FILES),
    )
    return "\n".join(parts)


def _front(task: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The lines between two `---`: YAML, in which every JSON string is one of its own."""
    lines = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "base_model": facts["base"],
        "tags": ["text-classification", "knowledge-distillation", "onnx", "int8"],
        "metrics": ["accuracy", "f1"],
        "model_name": task["name"],
    }
    text = "".join(f"{k}: {json.dumps(value, ensure_ascii=False)}\n" for k, value in lines.items())
    return f"---\n{text}---\n"


def _origin(facts: Mapping[str, Any]) -> str:
    depth = facts["choice"]["layers"]
    kind = "any number of labels" if facts["multi_label"] else "one label"
    tuned = ", fine-tuned on the same data" if facts["fine_tuned"] else " as it was"
    return (
        f"It gives a text {kind}. A student of {depth} layer{'s' * (depth > 1)}, distilled from a "
        f"teacher: {_plain(facts['base'])}{tuned}."
    )


def _data(task: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    sizes = ", ".join(
        f"{task[split]:,} {split}" for split in ("train", "dev", "test", "unlabelled")
    )
    lines = [
        f"{_plain(task['name'])}: {sizes} texts; fingerprint `{task['fingerprint']}`.",
        f"{len(task['labels'])} classes; the table by class below names them.",
        *(_plain(line.removeprefix("! ")) for line in facts["said"]),
    ]
    return _bullets(lines)


def _seeds(facts: Mapping[str, Any]) -> str:
    seeds, n = facts["seeds"], len(facts["choice"]["depths"][0]["accuracy"])
    if n == 1:
        return "One student was trained: another seed would give slightly other numbers.\n"
    return (
        f"Over {n} seeds of the student's training its accuracy (32-bit) was {seeds['mean']:.1%} "
        f"on average, {seeds['least']:.1%} at least and {seeds['most']:.1%} at most. The one kept "
        "was the best on dev.\n"
    )


def _limits(task: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    limits = [
        "It knows the language and the kind of text it was trained on; nothing else was tested.",
        f"A text is cut after {facts['max_length']} tokens; what comes later is not read.",
        f"Accuracy rests on {_count(task['test'], 'test text')}: its interval says how far it may "
        "be off, if the texts it will meet are like them.",
        "Its probabilities were not calibrated.",
    ]
    if facts["suspects"]:
        limits.append(
            f"{facts['suspects']:,} of {task['train']:,} training texts have a label that the "
            "teacher firmly contradicts. Some of these may be wrong: `suspects.csv` lists them."
        )
    return limits


def _answer(facts: Mapping[str, Any]) -> str:
    if facts["multi_label"]:
        return "[label for label, logit in zip(labels, logits) if logit > 0]"
    return "labels[logits.argmax()]"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _plain(text: object) -> str:
    """The text as Markdown that shows it as it is: no markup, no HTML, no link."""
    return re.sub(r"([\\`*_{}\[\]|~#])", r"\\\1", escape(" ".join(str(text).split()), quote=False))


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [list(map(_plain, head)), ["---", *["---:"] * (len(head) - 1)]]
    lines += [list(map(_plain, row)) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _code(code: str) -> str:
    return f"```python\n{code}```\n"
