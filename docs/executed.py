"""Writes into a page what the Python in it prints.

    python docs/executed.py docs/guides/shrink.md

The blocks of Python of a page are run one after another, as one program, in a
folder that is made for it. What each prints takes the place of the block of
text right below it, or gets one. Pictures that the page shows and the program
writes are copied beside the page.
"""

import contextlib
import io
import itertools
import linecache
import os
import pathlib
import re
import shutil
import sys
import tempfile

BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n.*?```\n)?", re.DOTALL)
TEXT = re.compile(r"```text\n(.*?)```", re.DOTALL)
PICTURE = re.compile(r"!\[[^]]*\]\(([\w-]+\.png)\)")
# What is never the same twice.
TIME = re.compile(r"\d+(\.\d+)?(?= ?(ms|s|seconds)\b)")
NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")


def written(page, pictures=None):
    """A page with what its Python prints now.

    Args:
        page: String, the text of it.
        pictures: Optional path of the folder for the pictures it shows.

    Returns:
        String.
    """
    before, names, blocks = os.getcwd(), {"__name__": "page"}, []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            text = BLOCK.sub(lambda block: _run(block[1], names, blocks), page)
            for name in PICTURE.findall(page) if pictures else ():
                if os.path.exists(name):
                    shutil.copy(name, pictures)
        finally:
            os.chdir(before)
    return text


def comparable(page):
    """What the text blocks of a page say, as far as it stays the same.

    Without a training, only times change from run to run and from machine to
    machine; with one, all numbers, the spaces that align them, and how many
    lines there are of a kind.
    """
    trains = ".fit(" in page
    changing = NUMBER if trains else TIME
    found = []
    for text in TEXT.findall(page):
        lines = [
            re.sub(r"[\s─━-]+", " ", changing.sub("#", line)).strip()
            for line in text.splitlines()
        ]
        found.append([line for line, _ in itertools.groupby(lines)])
    return found


def _run(code, names, blocks):
    """A block of Python, and what it prints below it."""
    # Whoever reads the source of a function, as TensorFlow does, finds it.
    name = f"<block {len(blocks)}>"
    blocks.append(name)
    linecache.cache[name] = len(code), None, code.splitlines(True), name
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), names)
    lines = [x.rstrip() for x in printed.getvalue().splitlines()]
    text = "\n".join(lines).strip("\n")
    block = f"```python\n{code}```\n"
    return block + f"\n```text\n{text}\n```\n" if text else block


def main():
    """Writes the pages that are named."""
    for name in sys.argv[1:]:
        path = pathlib.Path(name).resolve()
        text = written(path.read_text(encoding="utf-8"), path.parent)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
