"""The page of the command shows what it prints."""

import pathlib

import keras
import pytest

from docs import transcript

pytest.importorskip("typer")
pytest.importorskip("ai_edge_litert")

PAGE = pathlib.Path(transcript.__file__).with_name("command.md")

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="once is enough"
    ),
    pytest.mark.long,
]


def test_the_page_shows_what_its_commands_print(request):
    if not request.config.getoption("--whole"):
        pytest.skip("with --whole; each verb is run in its own tests")
    page = PAGE.read_text(encoding="utf-8")
    shown = transcript.words(page)
    printed = transcript.words(transcript.written(page))
    for one, other in zip(shown, printed, strict=True):
        assert one == other, (
            "python docs/transcript.py docs/command.md writes it anew"
        )
    # Each verb is there, with something below it.
    assert len(shown) > 10 and all(len(block) > 7 for block in shown)
