"""The report as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #d0d0d0; --quiet: #5a5a5a; --first: #eef4fa; }
@media (prefers-color-scheme: dark) {
  :root { --line: #4a4a4a; --quiet: #b0b0b0; --first: #1d2b38; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .6rem; text-align: right;
  vertical-align: top; }
th { font-size: .85rem; }
th:first-child, .facts td { text-align: left; }
.columns :is(th, td):nth-child(2), .lines tbody tr:first-child { background: var(--first); }
.lines th:first-child { min-width: 14rem; }
.results td { white-space: nowrap; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: .4rem; }
figure { margin: 1rem 0; }
figcaption { color: var(--quiet); }
"""

READING = (
    "The first model is the teacher, in PyTorch and 32-bit floats. Every × is a ratio to it: "
    "“smaller” by bytes of the model file, “faster” by time in the same run.",
    "Latency is the time for one text, token ids in, logits out. Half of the calls were faster "
    "than p50, 95 % faster than p95. The texts have different lengths, and so do the times.",
    "Throughput is how many texts go through in a second when 32 share a batch.",
    "Peak memory is that of a new process that loads the model and predicts; Python and its "
    "libraries are part of it.",
    "The interval beside the accuracy is a 95 % bootstrap over the test texts. Two models whose "
    "intervals overlap may still differ: they saw the same texts.",
    "“Same class as teacher” counts the texts on which both choose alike, right or wrong. "
    "“Accuracy kept” is the accuracy divided by the teacher’s.",
)


def page(results: Mapping[str, Any], lines: Sequence[Sequence[str]], way: str, image: bytes) -> str:
    """The whole page: the table (the first of its lines are names), the figure (PNG), the facts.

    `way` says what a model has in the table, one of its "columns" or of its "lines".
    """
    title = f"Results: {results['task'].get('name', 'how small, how fast, how good')}"
    facts = [("Task", results["task"]), ("Machine", results["machine"])]
    if "extra" in results:
        facts.append(("Settings", results["extra"]))
    reading = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in READING)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<div class="wide" tabindex="0" role="region" aria-label="Results">{_table(lines, way)}</div>
<h2>Size and accuracy</h2>
<figure>
<img src="data:image/png;base64,{base64.b64encode(image).decode()}" alt="{_alt(results["rows"])}">
<figcaption>Up and to the left is better. Bars are 95 % intervals.</figcaption>
</figure>
{_differences(results.get("differences", ()))}
<h2>How to read this</h2>
<ul>
{reading}</ul>
{"".join(f"<h2>{name}</h2>{_facts(values)}" for name, values in facts)}
</body>
</html>
"""


def _table(lines: Sequence[Sequence[str]], way: str) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in lines[0])
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in line)
        + "</tr>\n"
        for name, *line in lines[1:]
    )
    head = f"<thead><tr>{head}</tr></thead>"
    return f'<table class="results {way}">{head}<tbody>\n{body}</tbody></table>'


def _differences(differences: Sequence[Mapping[str, Any]]) -> str:
    """A table of who is right more often than whom, if there is one."""
    if not differences:
        return ""
    lines = [("model", "against", "points, 95 % interval")]
    lines += [
        (each["name"], each["than"], f"{each['points']:+.1f} ± {each['half_width']:.1f}")
        for each in differences
    ]
    return f"<h2>Differences on the same texts</h2>\n{_table(lines, 'lines')}"


def _facts(values: Mapping[str, Any]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(str(name).replace("_", " "))}</th>'
        f"<td>{escape(_words(value))}</td></tr>\n"
        for name, value in values.items()
    )
    return f'<table class="facts">\n{lines}</table>'


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_words(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _alt(rows: Sequence[Mapping[str, Any]]) -> str:
    points = "; ".join(
        f"{row['name']}: {row['size_mb']:.1f} MB, {row['accuracy']:.1%}, "
        f"{row['latency_ms_p50']:.3g} ms"
        for row in rows
    )
    return escape(f"Accuracy against size on disk, with the time for one text. {points}.")
