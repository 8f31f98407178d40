"""The verbs of the command, put together."""

from typing import Annotated

import typer

from keras_iss.cli.errors import Verbs
from keras_iss.cli.verbs.benchmark import benchmark
from keras_iss.cli.verbs.compare import compare
from keras_iss.cli.verbs.export import export
from keras_iss.cli.verbs.inspect import inspect
from keras_iss.cli.verbs.measure import measure
from keras_iss.cli.verbs.report import report
from keras_iss.cli.verbs.shrink import shrink

app = typer.Typer(
    name="keras-iss",
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Make recurrent Keras models smaller, and see what that does.",
    epilog="KERAS_BACKEND says what Keras runs on: tensorflow, jax or torch.",
)


def _show_version(asked: bool) -> None:
    if asked:
        from keras_iss.cli.library import version

        print(f"keras-iss {version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    pass


for verb in (inspect, shrink, export, compare, benchmark, measure, report):
    app.command()(verb)
