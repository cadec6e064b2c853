"""The one table: what each model costs and what it keeps, as data, text, figure and page."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation
from rich.table import Column, Table
from rich.text import Text

from course_utils.errors import DataError
from course_utils.files import check_writable, write_bytes, write_text
from course_utils.measure.page import page

Row = Mapping[str, Any]

MEASURED = (
    "name",
    "params",
    "size_mb",
    "latency_ms_p50",
    "latency_ms_p95",
    "throughput_32",
    "peak_memory_mb",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "macro_f1",
    "agreement",
)
RATIOS = ("size_ratio", "speedup_batch1", "speedup_batch32", "retention")
MOST_COLUMNS = 7  # models beside each other; more are set one below another
SHARES = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "agreement")

# Okabe & Ito, "Color Universal Design" (2008); a marker each, for print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"

COLUMNS = (  # what it is, its unit, how it is written
    ("model", "", ""),
    ("parameters", "M", "{params_m:.1f}"),
    ("size", "MB", "{size_mb:.1f}"),
    ("smaller", "×", "{size_ratio:.1f}"),
    ("latency p50", "ms", "{latency_ms_p50:.2f}"),
    ("latency p95", "ms", "{latency_ms_p95:.2f}"),
    ("faster, batch 1", "×", "{speedup_batch1:.1f}"),
    ("throughput, batch 32", "texts/s", "{throughput_32:.0f}"),
    ("faster, batch 32", "×", "{speedup_batch32:.1f}"),
    ("peak memory", "MB", "{peak_memory_mb:.0f}"),
    ("accuracy", "%, 95 % interval", "{accuracy:.1%} ({accuracy_low:.1%}–{accuracy_high:.1%})"),
    ("macro-F1", "%", "{macro_f1:.1%}"),
    ("same class as teacher", "%", "{agreement:.1%}"),
    ("accuracy kept", "%", "{kept}"),
)


def rows(measured: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows of `results.json`: what was measured, and its ratios to the first row, the teacher.

    Every mapping holds the keys of `MEASURED`; others, such as `threads`, are left out. Raises
    `DataError` when one is missing. `retention` is None where the teacher is never right, as one of
    texts with many labels may be: then there is nothing to keep.
    """
    for row in measured:
        if missing := [key for key in MEASURED if key not in row]:
            raise DataError(
                f"Not everything was measured: {', '.join(missing)}.", where=row.get("name")
            )
    return [{key: row[key] for key in MEASURED} | _ratios(row, measured[0]) for row in measured]


def validate(results: Mapping[str, Any]) -> None:
    """Nothing, if `results` keeps the contract of `results.json`; else a `DataError` says where.

    The contract: `machine` and `task` are filled, `rows` has every key of `MEASURED` and `RATIOS`
    and no other; numbers are finite and positive, shares from 0 to 1 and inside their interval;
    names differ; ratios are those to the first row.
    """
    for key in ("machine", "task"):
        if not isinstance(results.get(key), Mapping) or not results[key]:
            raise _broken("is not a filled object", key)
    if not isinstance(results.get("rows"), list) or not results["rows"]:
        raise _broken("is not a list with at least one row", "rows")
    for row in results["rows"]:
        _validate_row(row)
        for key, value in _ratios(row, results["rows"][0]).items():
            if row[key] != value and (
                None in (row[key], value) or not math.isclose(row[key], value, rel_tol=1e-6)
            ):
                raise _broken(f"is {row[key]}, not {value}, its ratio to the first row", key, row)
    names = [row["name"] for row in results["rows"]]
    if twice := {name for name in names if names.count(name) > 1}:
        raise _broken(f"has two rows named {', '.join(twice)}", "rows")


def write_report(
    out: str | Path,
    machine: Mapping[str, Any],
    task: Mapping[str, Any],
    rows: Sequence[Row],
    extra: Mapping[str, Any] | None = None,
    *,
    differences: Sequence[Row] = (),
) -> dict[str, Any]:
    """What results.json holds; written to `out` with results.md, pareto.png and report.html.

    `machine`, `task` and `extra` (settings worth keeping) are facts by name. A difference says by
    how many `points` the model `name` is right more often than the model `than`, with the
    `half_width` of the 95 % interval. Raises `DataError` before anything is written when the
    contract is broken, `OutputError` when it cannot be written.
    """
    results = {"machine": dict(machine), "task": dict(task), "rows": [dict(row) for row in rows]}
    if extra:
        results["extra"] = dict(extra)
    if differences:
        results["differences"] = [dict(each) for each in differences]
    validate(results)
    out = check_writable(out)
    image = _png(pareto(rows))
    write_text(out / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    write_text(out / "results.md", as_markdown(rows))
    write_bytes(out / "pareto.png", image)
    write_text(out / "report.html", page(results, *_lines(rows), image))
    return results


def headers() -> list[str]:
    """The names of the columns with their units."""
    return [f"{name} ({unit})" if unit else name for name, unit, _ in COLUMNS]


def cells(row: Row) -> list[str]:
    """One row as text, rounded, in the order of `headers`."""
    row = {**row, "params_m": row["params"] / 1e6, "kept": kept(row)}
    numbers = (form.format_map(row).replace("%", "") for *_, form in COLUMNS[1:])
    return [row["name"], *numbers]


def kept(row: Row) -> str:
    """The share of the teacher's accuracy as text; a dash where the teacher has none."""
    return "–" if row["retention"] is None else f"{row['retention']:.1%}"


def turned(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table as lines of text with a column for every model: it stays narrow."""
    return list(zip(headers(), *map(cells, rows), strict=True))


def _lines(rows: Sequence[Row]) -> tuple[list[Sequence[str]], str]:
    """The table for a page and its way: a column for each model, or a line where they are many."""
    if len(rows) <= MOST_COLUMNS:
        return turned(rows), "columns"
    return [headers(), *map(cells, rows)], "lines"


def as_markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown, a line for every model."""
    lines = [headers(), ["---"] + ["---:"] * (len(COLUMNS) - 1), *map(cells, rows)]
    lines = [[escape(cell, quote=False).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_table(rows: Sequence[Row]) -> Table:
    """The table for a terminal (rich), with a column for every model."""
    (first, *names), *lines = turned(rows)
    columns = (Column(Text(name), justify="right") for name in names)  # no markup in a name
    table = Table(Column(first, no_wrap=True), *columns)
    for line in lines:
        table.add_row(*line)
    return table


def pareto(rows: Sequence[Row], *, title: str | None = None) -> Figure:
    """A figure of accuracy, with its interval, against size; the legend adds each model's latency.

    Models within 4 % of each other in size stand side by side, a few pixels apart, to be seen.
    """
    fig = Figure(figsize=(9, max(4.2, 1 + 0.3 * len(rows))), layout="constrained")
    question = title or "How much does each model weigh, and how often is it right?"
    fig.suptitle(question, x=0.01, ha="left", fontsize=13)
    axes = fig.add_subplot(
        xlabel="size on disk, MB (logarithmic; smaller is to the left)",
        ylabel="accuracy, with its 95 % interval",
        xscale="log",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E0E0E0")
    axes.set_axisbelow(True)
    sizes = [row["size_mb"] for row in rows]
    points = []
    for k, row in enumerate(rows):
        near = [j for j, size in enumerate(sizes) if abs(math.log(size / sizes[k])) < 0.04]
        shift = 9 / 72 * (near.index(k) - (len(near) - 1) / 2)  # inches
        below, above = (abs(row["accuracy"] - row[f"accuracy_{end}"]) for end in ("low", "high"))
        bars = axes.errorbar(
            row["size_mb"],
            row["accuracy"],
            yerr=[[below], [above]],
            fmt=MARKERS[(k + k // len(COLOURS)) % len(MARKERS)],  # another one for the same colour
            color=COLOURS[k % len(COLOURS)],
            markersize=8,
            capsize=4,
            transform=axes.transData + ScaledTranslation(shift, 0, fig.dpi_scale_trans),
        )
        points.append(bars[0])
    axes.set_xlim(min(sizes) / 1.4, max(sizes) * 1.4)
    low, high = min(r["accuracy_low"] for r in rows), max(r["accuracy_high"] for r in rows)
    room = max(0.08 * (high - low), 0.005)
    axes.set_ylim(low - room, high + room)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(FuncFormatter("{:g}".format))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1, symbol=" %"))
    fig.legend(
        points,
        [f"{row['name']} · {row['latency_ms_p50']:.3g} ms".replace("$", r"\$") for row in rows],
        loc="outside right center",
        title="model · time for one text",
        alignment="left",
        labelspacing=0.9,
        frameon=False,
    )
    return fig


def _ratios(row: Row, teacher: Row) -> dict[str, float | None]:
    return {
        "size_ratio": teacher["size_mb"] / row["size_mb"],
        "speedup_batch1": teacher["latency_ms_p50"] / row["latency_ms_p50"],
        "speedup_batch32": row["throughput_32"] / teacher["throughput_32"],
        "retention": row["accuracy"] / teacher["accuracy"] if teacher["accuracy"] else None,
    }


def _validate_row(row: Row) -> None:
    if wrong := set(row) ^ {*MEASURED, *RATIOS}:
        raise _broken("is missing or not part of the contract", ", ".join(sorted(wrong)), row)
    if not isinstance(row["name"], str) or not row["name"]:
        raise _broken("is not a name", "name", row)
    for key in (*MEASURED[1:], *RATIOS):
        if key == "retention" and row[key] is None:
            continue
        number = isinstance(row[key], int | float) and not isinstance(row[key], bool)
        if not number or not math.isfinite(row[key]):
            raise _broken(f"is {row[key]!r}, not a finite number", key, row)
        if key in SHARES and not 0 <= row[key] <= 1:
            raise _broken(f"is {row[key]}, not a share from 0 to 1", key, row)
        if key not in SHARES and key != "retention" and not row[key] > 0:
            raise _broken(f"is {row[key]}, not positive", key, row)
    if not isinstance(row["params"], int):
        raise _broken(f"is {row['params']}, not a whole number", "params", row)
    if not row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]:
        raise _broken("lies outside its interval", "accuracy", row)
    if row["latency_ms_p50"] > row["latency_ms_p95"]:
        raise _broken("is larger than latency_ms_p95", "latency_ms_p50", row)


def _broken(what: str, key: str, row: Row | None = None) -> DataError:
    return DataError(
        f"The results break their contract: {key} {what}.",
        where=None if row is None else f"row {row.get('name')!r}",
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()
