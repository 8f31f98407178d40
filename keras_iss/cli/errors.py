"""Errors in one line, and exit codes."""

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer
import typer.core

FAILURE = 1
USAGE = 2

# Of Click, or of the copy of it that newer versions of Typer have inside.
_ClickException: Any = next(
    x for x in typer.BadParameter.__mro__ if x.__name__ == "ClickException"
)
# What functions raise for arguments and files that they cannot take.
_EXPECTED = (
    ValueError,
    TypeError,
    LookupError,
    OSError,
    RuntimeError,
    ImportError,
    NotImplementedError,
)


class Verbs(typer.core.TyperGroup):
    """The verbs; whatever goes wrong in one ends in a line and a code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """As `click.Command.main`."""
        extra["windows_expand_args"] = windows_expand_args
        if not standalone_mode or os.environ.get("KERAS_ISS_TRACEBACK"):
            return super().main(
                args, prog_name, complete_var, standalone_mode, **extra
            )
        with warnings.catch_warnings():
            sys.exit(self._run(args, prog_name, complete_var, extra))

    def _run(self, args, prog_name, complete_var, extra):
        """Runs a verb.

        Returns:
            Integer, the exit code.
        """
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except typer.Abort:
            return _failed("interrupted", 130)
        except _ClickException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "keras-iss"
            message = error.format_message()
            if not message:  # Help was shown in its place.
                return error.exit_code
            hint = (
                f" Try `{command} --help`." if error.exit_code == USAGE else ""
            )
            return _failed(f"{message}{hint}", error.exit_code)
        except BrokenPipeError:
            # Whoever read has ended: nothing is left to be said to it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILURE
        except _EXPECTED as error:
            return _failed(_text(error), FAILURE)
        except Exception as error:
            return _failed(
                f"{type(error).__name__}: {error} (KERAS_ISS_TRACEBACK=1 "
                "shows where; please report it)",
                FAILURE,
            )


def _failed(message, code):
    print(f"keras-iss: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _text(error):
    if isinstance(error, OSError) and error.errno and error.filename:
        text = f"{error.filename}: {error.strerror}."
        if error.errno == errno.ENOENT:
            text += " Look at the path."
        return text
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error) or type(error).__name__
