"""``cclnet COMMAND``: every command, and the errors of all of them in one line."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cclnet import __version__
from cclnet.cli.check import check
from cclnet.cli.compare import compare
from cclnet.cli.evaluate import evaluate
from cclnet.cli.init import init
from cclnet.cli.model import export, info, matrix
from cclnet.cli.predict import predict
from cclnet.cli.similar import similar
from cclnet.system.errors import errors_in_one_line


class _Commands(TyperGroup):
    """Commands whose errors are reported here and not by Typer, which knows neither Ctrl-C nor a closed pipe."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(not arg or (arg.startswith("--") and arg.endswith("=")) for arg in args):
            raise typer.BadParameter("an argument is empty, which would stand for this folder: is a variable not set?")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with errors_in_one_line("cclnet"):
            return super().invoke(ctx)


app = typer.Typer(
    name="cclnet",
    cls=_Commands,
    help="CCL-Net: soft labels learned from interclass visual correlations.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command(epilog="Example: cclnet check data/raw --json problems.json")(check)
app.command(epilog="Example: cclnet init my-project --data photos")(init)
app.command(epilog="Example: cclnet predict models/model.safetensors photos/ more.zip one.png -o predictions.csv")(
    predict
)
app.command(
    epilog="Example: cclnet evaluate models/model.safetensors --images ISIC2018_Task3_Test_Input.zip "
    "--labels ISIC2018_Task3_Test_GroundTruth.zip -o metrics.json"
)(evaluate)
app.command(epilog="Example: cclnet info models/model.safetensors --json -")(info)
app.command(epilog="Example: cclnet matrix models/model.safetensors --csv matrix.csv --figure matrix.png")(matrix)
app.command(epilog="Example: cclnet similar features.npz --page similar.html --json similar.json")(similar)
app.command(epilog="Example: cclnet compare HEAD muggy-tuna --html difference.html --json difference.json")(compare)
app.command(epilog="Example: cclnet export models/model.safetensors --onnx model.onnx --with-preprocessing")(export)


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
