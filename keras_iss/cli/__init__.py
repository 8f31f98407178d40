"""The command `keras-iss`: a verb for each thing that is done with a model.

It is thin: each verb reads its files, calls a public function, and shows what
came of it. Typer and Keras are imported late, so that the base install does
not need the one, and `--help` does not wait for the other.
"""

import sys


def main() -> None:
    """Runs the command on the arguments of the process."""
    try:
        from keras_iss.cli.app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        print(
            "keras-iss: error: the command needs Typer, which is not "
            'installed: pip install "keras-iss[cli]".',
            file=sys.stderr,
        )
        sys.exit(1)
    from keras_iss.cli.quiet import quiet

    with quiet():
        app(prog_name="keras-iss")
