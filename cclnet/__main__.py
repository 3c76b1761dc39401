"""The command line: ``python -m cclnet COMMAND``.

A command imports what it needs when it is called, so that help and the light commands do without torch.
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cclnet import __version__
from cclnet.errors import errors_in_one_line
from cclnet.progress import progress

app = typer.Typer(
    name="cclnet",
    help="CCL-Net: soft labels learned from interclass visual correlations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

STANDARD_OUTPUT = Path("-")

JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the findings to FILE as JSON; - prints nothing but them."),
]


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cclnet {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: python -m cclnet check data/raw --json problems.json")
def check(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the three official files are.")],
    json_file: JsonFile = None,
) -> None:
    """Find everything that is wrong with a dataset: zips, tables and every image. Nothing in FOLDER is changed."""
    from cclnet.checks import check_dataset, show

    with redirect_stdout(sys.stderr), progress() as report:
        findings = check_dataset(folder, report)
    give(findings.as_dict(), lambda: show(findings, Console()), json_file)
    raise typer.Exit(1 if findings.problems else 0)


@app.command(epilog="Example: python -m cclnet compare HEAD muggy-tuna --json difference.json")
def compare(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="Branch, tag, commit, experiment, workspace, or a prediction file (….csv)."),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare with it, likewise.")],
    labels: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The split that prediction files are scored with; a revision has its own."),
    ] = Path("data/split.csv"),
    json_file: JsonFile = None,
) -> None:
    """Say whether two experiments differ on the same validation images, or only by chance. Differences are B − A."""
    from cclnet.comparison import compare_experiments, load_experiment, show

    comparison = compare_experiments(load_experiment(a, labels), load_experiment(b, labels))
    give(comparison.as_dict(), lambda: show(comparison, Console()), json_file)


def give(findings: dict[str, Any], show: Callable[[], None], json_file: Path | None) -> None:
    """Show the findings and write them to the file, if there is one; as JSON alone to the standard output."""
    from cclnet.files import write_json

    if json_file == STANDARD_OUTPUT:
        typer.echo(json.dumps(findings, indent=2, sort_keys=True))
        return
    show()
    if json_file:
        write_json(json_file, findings)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, by default those of the process, and end with its exit status."""
    with errors_in_one_line("cclnet"):
        app(arguments, prog_name="cclnet")


if __name__ == "__main__":
    main()
