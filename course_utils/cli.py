"""The command line, `course`: each command loads what it needs when it is called."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from course_utils.errors import CourseError

app = typer.Typer(
    help="Shrinking BERT: look at this machine, distil and compress a model, measure the work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def doctor() -> None:
    """Say what this machine has for the course, and what to do about each thing missing."""
    from course_utils.doctor import doctor as examine_and_print

    raise typer.Exit(0 if examine_and_print() else 1)


@app.command()
def run(
    data: Annotated[
        str,
        typer.Option(help="pydocs, reviews, probes, a set of COURSE_MIRROR, a file or a folder."),
    ] = "pydocs",
    out: Annotated[
        Path | None,
        typer.Option(help="The folder for models and report; build/report, or build/lab."),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help="The student's layers; half the teacher's if unset.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of every random choice.")
    ] = 0,
    text: Annotated[str, typer.Option(help="The column that holds the text.")] = "text",
    label: Annotated[str, typer.Option(help="The column that holds the label.")] = "label",
    lab: Annotated[
        bool, typer.Option("--lab", help="Every method of compression, and combinations of them.")
    ] = False,
    pipelines: Annotated[
        list[str] | None,
        typer.Option(
            "--pipeline", help='With --lab, only this: "layers 3, trim, int8". Repeat it.'
        ),
    ] = None,
) -> None:
    """Teacher, student, int8 and one honest table, from any texts with labels.

    With --lab the table has a line for every pipeline of cuts and numbers, in build/lab.
    """
    from course_utils import pipeline
    from course_utils.measure.report import as_table

    settings = {"data": data, "text": text, "label": label, "seed": seed}
    if lab:
        if layers is not None:
            raise CourseError("--layers is not for --lab.", do='Write --pipeline "layers 3, int8".')
        _run_lab(out or Path("build/lab"), pipelines, settings)
        return
    if pipelines:
        raise CourseError("--pipeline is for the lab.", do="Add --lab.")
    out = out or Path("build/report")
    results = pipeline.run(**settings, out=out, layers=layers)
    Console().print(as_table(results["rows"]))
    print(f"Report: {out / 'report.html'}")


def _run_lab(out: Path, pipelines: list[str] | None, settings: dict) -> None:
    from course_utils.lab.run import PIPELINES
    from course_utils.lab.run import run as run_lab
    from course_utils.lab.table import as_table

    results = run_lab(pipelines=pipelines or PIPELINES, out=out, **settings)
    Console().print(as_table(results))
    print(f"Report: {out / 'report.html'}")


@app.command()
def distill(
    data: Annotated[
        str, typer.Option(help="A file, a folder with train, dev and test, or a name as for run.")
    ],
    out: Annotated[Path, typer.Option(help="The folder for the model and its proof.")] = Path(
        "my_model"
    ),
    text: Annotated[str, typer.Option(help="The column that holds the text.")] = "text",
    label: Annotated[str, typer.Option(help="The column that holds the label.")] = "label",
    teacher: Annotated[
        str | None, typer.Option(help="A Hub id or a folder: an encoder, or its classifier.")
    ] = None,
    layers: Annotated[
        int | None, typer.Option(help="The student's layers; half the teacher's if unset.")
    ] = None,
    budget_mb: Annotated[
        float | None, typer.Option(help="Most megabytes (10^6 bytes) of the shipped file.")
    ] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="Most milliseconds for one text, on this machine.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Students to train of each depth.")] = 1,
    label_separator: Annotated[
        str | None, typer.Option(help="What stands between the labels, if a text has several.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="The file's encoding; found out if unset.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="What stands between the columns; found out if unset.")
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Go on if the vocabulary lacks many words.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
) -> None:
    """A small classifier from labelled texts, with proof of what it lost.

    Run the same command again to go on with a run that was stopped.
    """
    from course_utils import shrinking
    from course_utils.measure.report import as_table

    results = shrinking.shrink(
        shrinking.Shrinking(
            data=data,
            out=str(out),
            text=text,
            label=label,
            teacher=teacher,
            layers=layers,
            budget_mb=budget_mb,
            budget_ms=budget_ms,
            seeds=seeds,
            label_separator=label_separator,
            encoding=encoding,
            separator=separator,
            allow_unknown=allow_unknown,
            seed=seed,
        )
    )
    Console().print(as_table(results["rows"]))
    print(f"Model: {out}, described in {out / 'README.md'}")
    print(f'Try it: course predict {shlex.quote(str(out))} "A text of yours."')
    print(f"Report: {out / 'report.html'}")


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(help="A folder that course distill made.")],
    text: Annotated[str | None, typer.Argument(help="One text; or give --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="A table with a column of texts.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The same table with the model's answers.")
    ] = None,
    column: Annotated[str, typer.Option("--text", help="The column that holds the text.")] = "text",
) -> None:
    """Say what a small model makes of a text, or of every text in a table. Needs no PyTorch."""
    from course_utils.ship.predict import main_command

    main_command(folder, text, file=file, out=out, column=column)


@app.command("distill-mlm")
def distill_mlm(
    config: Annotated[
        Path, typer.Option(help="A TOML file such as configs/pydocs.toml, which explains itself.")
    ],
) -> None:
    """A smaller masked-language model from a larger one, as DistilBERT was made; also by torchrun.

    Run the same command again to go on with a run that was stopped.
    """
    from course_utils import pretraining
    from course_utils.settings import read_settings

    processes = pretraining.processes()
    with processes.main_process_first():  # so that a mistake is told once
        settings = read_settings(config, pretraining.Pretraining)
    results = pretraining.run(settings)
    if processes.is_main_process:
        Console().print(pretraining.as_table(results))
        print(f"Student: {Path(settings.out) / pretraining.STUDENT}")


@app.command()
def fetch(
    models: Annotated[
        list[str] | None, typer.Option("--model", help="A model of the Hub, too. Repeat it.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="A data set of the Hub, too. Repeat it.")
    ] = None,
) -> None:
    """Fill this machine's caches: weights, PyDocs, the teachers that several notebooks use.

    Run the same command again to go on; what is there is checked and not made again.
    """
    from course_utils import fetch as filling

    filling.fetch(models=models or (), data=data or ())


@app.command()
def bundle(
    out: Annotated[Path, typer.Option(help="The folder, such as one on a stick.")] = Path("bundle"),
    platforms: Annotated[
        str | None,
        typer.Option(
            help="Such as linux-x86_64,macos-arm64,windows-x86_64; if unset, "
            "those of the bundle that is there, or this one."
        ),
    ] = None,
    torch_index: Annotated[
        str | None,
        typer.Option(
            envvar="TORCH_INDEX", help="Where PyTorch comes from, as the index of its CPU build."
        ),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Make nothing; check every file of this bundle.")
    ] = None,
) -> None:
    """One folder from which a machine without a network is ready in one command.

    Run the same command again to go on with one that was stopped.
    """
    from course_utils.bundle import make

    if check is not None:
        make.check(check)
    else:
        make.make(out, platforms=platforms, torch_index=torch_index)


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="What to measure: distill, loss or mlm.")] = "distill",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the rows to this file.")
    ] = None,
) -> None:
    """Time the course's own code against the obvious way, both in this one run."""
    from course_utils import bench as benchmarks

    benchmarks.bench(what, json_file=json_file)


@app.command()
def progress() -> None:
    """Say which exercises and questions are solved in each notebook, and what is next."""
    from course_utils.classroom.progress import progress as show_page

    show_page()


def main() -> None:
    """Run the command; an error a person can act on ends it with its words and exit code 2."""
    try:
        app()
    except CourseError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", end="")
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "\nInterrupted. Run the same command again to go on from the last step.",
            file=sys.stderr,
        )
        sys.exit(130)


if __name__ == "__main__":
    main()
