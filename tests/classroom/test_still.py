"""Without ipywidgets, whatever would be moved is shown as it begins, and one line says why."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from course_utils import classroom

HIDDEN = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ipywidgets":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())

import numpy as np, torch
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from course_utils.models.protocol import Classifier

shell = InteractiveShell.instance()
shell.display_pub = CapturingDisplayPublisher()

class Fixed(Classifier):
    name, labels, max_length, pad_token_id, threads = "fixed", ("numpy", "torch"), 8, 0, 1
    def token_ids(self, texts):
        return [[1, 2] for _ in texts]
    def logits(self, encoded):
        return np.tile(np.float32([0, 1]), (len(encoded["input_ids"]), 1))

NUMBERS = torch.linspace(-1, 2, 12)
"""
SHOW = """
print()
print("module", m.__name__.rpartition(".")[2])
{call}
for one in shell.display_pub.outputs:
    print("shown", repr(one["data"].get("text/html")))
    print("text", repr(one["data"]["text/plain"]))
shell.display_pub.outputs.clear()
"""
CALLS = {
    "attention_view": "m.attention_viewer(np.full((2, 3, 4, 4), 0.25), list('abcd'))",
    "loss_figures": "m.temperature_slider(NUMBERS[:3], NUMBERS.view(4, 3), list('abc'))",
    "lowrank_figures": "m.rank_viewer(NUMBERS[:3], NUMBERS[:3], (3, 4), rank=2)",
    "quantization_figures": "m.quantize_by_slider(NUMBERS)",
    "side_by_side": "m.compare_while_typing([Fixed()], ['Sort it.'])",
    "widgets": "m.type_and_compare([Fixed()], 'Sort it.')",
    "make_it_fit": """
row = {"name": "teacher", "accuracy": 0.8, "size_mb": 9.0, "latency_ms_p50": 3.0}
rows = [row, row | {"name": "int8", "size_mb": 3.0}]
m.compose({"rows": rows}, {"a phone": m.Budget(mb=5, ms=5, points=2)})""",
    "dashboard": """
view = m._View(0.0)
class Board:
    history = [{"step": 1, "loss": 2.0}]
    def figure(self):
        return m.dashboard_figure(self.history, {}, [])
view.draw(Board(), at_once=True)
print("shown", view.picture.value, view.words.value)""",
    "pruning_figures": """
from transformers import BertConfig, BertForSequenceClassification
from course_utils.compress.importance import magnitude
sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
bert = BertForSequenceClassification(BertConfig(vocab_size=20, **sizes))
m.prune_by_slider(bert, {"magnitude": magnitude(bert)}, lambda model: 0.5)""",
}


@pytest.fixture(scope="module")
def said() -> dict[str, list[str]]:
    """For each module the lines printed, and then the HTML of what it displays."""
    parts = [
        f"from course_utils.classroom import {module} as m\n{SHOW.replace('{call}', call)}"
        for module, call in CALLS.items()
    ]
    code = HIDDEN + "\n".join(parts)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    blocks = (block.splitlines() for block in done.stdout.split("\nmodule ")[1:])
    return {name: [line for line in lines if line] for name, *lines in blocks}


@pytest.mark.parametrize("module", CALLS)
def test_one_line_is_said_and_what_would_move_is_shown_as_it_begins(module, said):
    line, page, *text = said[module]
    assert line.startswith("(")
    assert "ipywidgets, which is not installed" in line
    assert "running kernel" not in line
    assert "<img alt=" in page or "<table" in page or "<pre" in page
    assert not text or re.match(r"text '[^<>]*[a-z]{4}[^<>]*'$", text[0])


def test_every_module_with_widgets_is_tried_here():
    modules = Path(classroom.__file__).parent.glob("*.py")
    using = {p.stem for p in modules if "import Live" in p.read_text(encoding="utf-8")}
    assert using == set(CALLS)
