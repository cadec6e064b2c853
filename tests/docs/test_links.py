"""Links and names in the pages lead somewhere, and the checker finds those that do not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_links  # noqa: E402 - it lives in tools/, which is no package
from pages import slug  # noqa: E402


def test_every_link_and_name_of_the_course_leads_somewhere():
    assert check_links.problems(ROOT) == []


@pytest.fixture
def repository(tmp_path):
    """`repository(text)` writes it as README.md beside a few other files; the root comes back."""
    files = {
        "docs/page.md": "# A page\n\n## What, and *why*?\n\n## Twice\n\n## Twice\n",
        "docs/with blank.md": "# A page\n",
        "tools/tool.py": "x = 1\n",
        "build/made.md": "# Made\n",
        "docs/.ipynb_checkpoints/page-checkpoint.md": "[gone](nowhere.md)\n",
        "course_utils/__init__.py": "from course_utils.module import f as g\n",
        "course_utils/module.py": "LIMIT: int = 3\ndef f(): ...\nclass C:\n    def m(self): ...\n",
        "notebooks/01_small.ipynb": json.dumps(
            {"cells": [{"cell_type": "markdown", "source": ["# A title\n", "Text."]}]}
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    def write(text):
        (tmp_path / "README.md").write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "[a](docs/page.md) [b](docs/page.md#what-and-why) [c](docs/page.md#twice-1) [d](docs)",
        "[a](docs/with%20blank.md) [b](<docs/with blank.md>)",
        "[a](notebooks/01_small.ipynb#A-title)",
        "# Here\n[a](#here) <img src='docs/page.md' alt='x'>",
        "[a](https://arxiv.org/abs/1503.02531) [b](mailto:a@b.org) ![](cell:heads)",
        "`tools/tool.py`, `tools/`, `tools/*.py`, `notebooks/NN_name.ipynb`, `my_model/x.md`",
        "`course_utils.module`, `course_utils.module.f`, `course_utils.g`, `course_utils.module.C`"
        ", `course_utils.module.C.m`, `course_utils.module.LIMIT`, `course_utils.module.f(x)`",
        "```\n[a](nowhere.md) `tools/none.py`\n```\n`[a](nowhere.md)` costs $18 | 128 h, $51",
        "---\ntitle: x\n---\n# Title\n\n## And more\n[a](#and-more)",
    ],
)
def test_pages_without_a_fault(repository, text):
    assert check_links.problems(repository(text)) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[a](nowhere.md)", "nowhere.md does not exist"),
        ("[a](Docs/page.md)", "Docs/page.md does not exist"),
        ("[a](docs/page.md#missing)", "#missing names a heading that is not there"),
        ("[a](docs/page.md#twice-2)", "names a heading"),
        ("[a](tools/tool.py#L3x)", "names a heading"),
        ("[a](notebooks/01_small.ipynb#a-title)", "names a heading"),
        ("[a](#here)", "names a heading"),
        ("[a]()", "leads nowhere"),
        ("[a](../outside.md)", "leads out of the repository"),
        ("[a](/docs/page.md)", "neither relative nor on the web"),
        ("[a](//host/page)", "neither relative nor on the web"),
        ("[a](file:///docs/page.md)", "neither relative nor on the web"),
        ("[a](javascript:alert(1))", "neither relative nor on the web"),
        ("[a](build/made.md)", "is not part of the repository"),
        ("[a](http://localhost:8888/lab)", "is no place on the web"),
        ("[a](http://127.0.0.1/)", "is no place on the web"),
        ("text <a href='https://[broken'>a</a>", "is no address"),
        ("[a](docs/with blank.md)", "looks like a link and is none"),
        ("<http://example.com/x>", "is no place on the web"),
        ("[a](https://somewhere/x)", "is no place on the web"),
        ("![words](docs/none.png)", "none.png does not exist"),
        ("text <a href='nowhere.md'>a</a>", "nowhere.md does not exist"),
        ("<p><img src=\"none.png\" alt='x'></p>", "none.png does not exist"),
        ("| a |\n|---|\n| [b](nowhere.md) |", "nowhere.md does not exist"),
        ("[a][ref]\n\n[ref]: nowhere.md", "nowhere.md does not exist"),
        ("`tools/none.py`", "`tools/none.py` does not exist"),
        ("`tools/*.toml`", "does not exist"),
        ("`course_utils/none/`", "does not exist"),
        ("`course_utils.none`", "is not in the library"),
        ("`course_utils.module.h`", "is not in the library"),
        ("`course_utils.module.C.n`", "is not in the library"),
    ],
)
def test_pages_with_a_fault(repository, text, what):
    [problem] = check_links.problems(repository(text))
    assert problem.startswith("README.md, ")
    assert what in problem


def test_a_fault_in_a_notebook_is_found_in_its_cell(repository):
    root = repository("# Title")
    cells = [{"cell_type": "code", "source": "x"}, {"cell_type": "markdown", "source": ["[a](b)"]}]
    (root / "notebooks/01_small.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert check_links.problems(root) == ["notebooks/01_small.ipynb, cell 2: b does not exist"]


def test_pages_that_cannot_be_read_are_named(repository):
    root = repository("# Title")
    (root / "notebooks/01_small.ipynb").write_text("torn", encoding="utf-8")
    (root / "docs/page.md").write_bytes(b"caf\xe9")
    assert [line.partition(", ")[0] for line in check_links.problems(root)] == [
        "docs/page.md: it cannot be read",
        "notebooks/01_small.ipynb: it cannot be read",
    ]


def test_the_command_says_what_is_wrong_and_lists_the_web(repository, capsys):
    root = repository("[a](nowhere.md) [b](https://arxiv.org/abs/1503.02531) `tools/none.py`")
    assert check_links.main([], root) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert check_links.main(["--external"], root) == 0
    assert capsys.readouterr().out == "https://arxiv.org/abs/1503.02531  (README.md)\n"
    assert check_links.main([], repository("# Title")) == 0
    assert "leads somewhere" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("What, and why?", "what-and-why"),
        ("shrunk = masked", "shrunk--masked"),
        ("2:4 sparsity", "24-sparsity"),
        ("McNemar's test", "mcnemars-test"),
        ("post-LN and pre-LN", "post-ln-and-pre-ln"),
        ("Größe_1", "größe_1"),
    ],
)
def test_anchors_are_those_of_github(heading, anchor):
    assert slug(heading) == anchor
