"""The check of the links of the built pages finds what is broken."""

import pathlib
import subprocess
import sys

import keras
import pytest

SCRIPT = pathlib.Path(__file__).parent.parent / "docs" / "check_links.py"

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="once is enough"
)


def check(site):
    done = subprocess.run(
        [sys.executable, SCRIPT, site], capture_output=True, text=True
    )
    return done.returncode, done.stderr


def write(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<html><body>{body}</body></html>", encoding="utf-8")


def test_links_to_pages_places_and_pictures_are_followed(tmp_path):
    write(tmp_path / "index.html", '<a href="guide/#learn">x</a>')
    write(
        tmp_path / "guide" / "index.html",
        '<h2 id="learn">y</h2><a href="..">z</a><img src="../a.png">'
        '<a href="https://keras.io/nowhere">elsewhere</a>',
    )
    (tmp_path / "a.png").touch()
    assert check(tmp_path) == (0, "")


@pytest.mark.parametrize("link", ["guides/", "guide/#prune", "b.png"])
def test_a_link_that_leads_nowhere_is_named_with_its_page(tmp_path, link):
    write(tmp_path / "index.html", f'<a href="{link}">x</a>')
    write(tmp_path / "guide" / "index.html", '<h2 id="learn">y</h2>')
    code, said = check(tmp_path)
    assert code == 1
    assert f"index.html: `{link}` leads nowhere." in said


@pytest.mark.parametrize(
    "body",
    [
        '<link rel="stylesheet" href="https://fonts.example/a.css">',
        '<link rel="preconnect" href="https://fonts.example" crossorigin>',
        '<script src="//scripts.example/a.js"></script>',
    ],
)
def test_a_page_fetches_nothing_from_elsewhere(tmp_path, body):
    write(tmp_path / "index.html", body)
    code, said = check(tmp_path)
    assert code == 1
    assert "index.html: fetches `" in said and ".example" in said
    write(tmp_path / "index.html", '<a href="https://fonts.example">a name</a>')
    assert check(tmp_path) == (0, "")
