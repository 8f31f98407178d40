"""The guides show what their Python prints."""

import ast
import pathlib
import re

import keras
import pytest

import keras_iss
from docs import executed

DOCS = pathlib.Path(executed.__file__).parent
PAGES = sorted((DOCS / "guides").glob("*.md"))
# Seconds on any backend, with nothing but Keras.
LIGHT = {"coming", "layer"}

on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="once is enough"
)


def page_of(path):
    return path.read_text(encoding="utf-8")


def named(pages):
    return {"argvalues": pages, "ids": [path.stem for path in pages]}


@on_torch
def test_what_python_prints_takes_the_place_of_what_stood_there():
    page = "a\n\n```python\nx = 1\n```\n\nb\n\n```python\nprint(x + 1)\n```\n"
    shown = "\n```text\n2\n```\n"
    assert executed.written(page) == page + shown
    assert executed.written(page + "\n```text\n7\n```\n\nc\n") == (
        page + shown + "\nc\n"
    )


@on_torch
def test_numbers_count_where_nothing_is_trained_but_for_times():
    page = "```text\n{} units, {} ms\n```\n"
    first, *others = (
        executed.comparable(page.format(*numbers))
        for numbers in ((3, 0.2), (3, 1.7), (4, 0.2))
    )
    assert [first == other for other in others] == [True, False]
    # Of a training, how many lines there are may change, too.
    trained = ("```python\nmodel.fit(x)\n```\n" + page).format(3, 1)
    for other in (
        trained.replace("3", "4"),
        trained.replace("ms\n", "ms\n7 units, 2 ms\n"),
    ):
        assert executed.comparable(trained) == executed.comparable(other)
    assert executed.comparable(trained) != executed.comparable(
        trained.replace("units", "weights")
    )


@on_torch
@pytest.mark.parametrize("path", **named(PAGES))
def test_a_guide_is_in_the_navigation_and_asks_for_names_that_there_are(path):
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert f": guides/{path.name}\n" in navigation
    page = page_of(path)
    for block in executed.BLOCK.findall(page):
        for node in ast.walk(ast.parse(block)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "keras_iss"
            ):
                assert hasattr(keras_iss, node.attr), node.attr
    # And it shows what came out.
    assert not executed.BLOCK.search(page) or executed.TEXT.search(page)


@pytest.mark.long
@pytest.mark.parametrize(
    "path", **named([x for x in PAGES if executed.BLOCK.search(page_of(x))])
)
def test_a_guide_shows_what_it_prints(path, request):
    if path.stem in LIGHT:
        if keras.backend.backend() != "torch":
            pytest.skip("once is enough")
    elif keras.backend.backend() != "tensorflow":
        pytest.skip("it exports, or trains")
    elif not request.config.getoption("--whole"):
        pytest.skip("a minute: run it with --whole")
    page = page_of(path)
    for name in re.findall(r"^(?:import|from) (\w+)", page, re.MULTILINE):
        pytest.importorskip(name)
    printed = executed.comparable(executed.written(page))
    assert executed.comparable(page) == printed, (
        f"python docs/executed.py docs/guides/{path.name} writes it anew"
    )
