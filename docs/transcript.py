"""Writes into a page what the commands in it print.

    python docs/transcript.py docs/command.md

Blocks of Python are run, and of the blocks of the kind `console` each line
that begins with `$ keras-iss`; what it prints takes the place of what stands
below it. All in one folder that is made for it, in the order of the page.
"""

import os
import pathlib
import re
import shlex
import sys
import tempfile

BLOCK = re.compile(r"```(python|console)\n(.*?)```", re.DOTALL)
PROGRAM = "$ keras-iss"


def written(page):
    """A page with what its commands print now.

    Args:
        page: String, the text of it.

    Returns:
        String.
    """
    before, names = os.getcwd(), {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return BLOCK.sub(lambda block: _run(block, names), page)
        finally:
            os.chdir(before)


def words(page):
    """The words in the blocks of a page: what does not change from run to run.

    Numbers do, and how Typer and Rich set what they print.
    """
    number = r"[-+]?\b\d[\d,.]*(e[-+]?\d+)?( [kM]?B\b)?"
    return [
        re.findall(r"[A-Za-z_][A-Za-z_.-]+", re.sub(number, "", text))
        for kind, text in BLOCK.findall(page)
        if kind == "console"
    ]


def _run(block, names):
    kind, text = block.groups()
    if kind == "python":
        exec(compile(text, "page", "exec"), names)
        return block.group()
    printed = []
    for line in text.splitlines():
        if line.startswith(PROGRAM):
            printed += [line, _printed(line.removeprefix(PROGRAM))]
    return "```console\n" + "\n".join(printed).rstrip() + "\n```"


def _printed(arguments):
    from typer.testing import CliRunner

    from keras_iss.cli.app import app

    done = CliRunner().invoke(
        app, shlex.split(arguments), prog_name="keras-iss"
    )
    lines = [line.rstrip() for line in done.output.splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


def main():
    """Writes the pages that are named."""
    for name in sys.argv[1:]:
        path = pathlib.Path(name).resolve()
        text = written(path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
