"""The README does what it says, and its links lead somewhere."""

import pathlib
import re

import keras
import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="once is enough"
)


def test_the_snippet_of_the_readme_runs_as_it_stands(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("ai_edge_litert")
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert "lstm_1" in capsys.readouterr().out
    small = keras.models.load_model(tmp_path / "small.keras")
    units = [small.get_layer(f"lstm_{i}").units for i in (1, 2)]
    assert sum(units) < 128
    assert small.count_params() < names["model"].count_params()
    assert (tmp_path / "small.tflite").read_bytes()[4:8] == b"TFL3"


def test_the_readme_is_short_and_its_two_commands_are_one_line_each():
    assert len(README.splitlines()) < 120
    commands = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    assert [command.count("\n") for command in commands] == [1, 1]
    for command in commands:
        assert command.startswith("python3 -m venv .venv && ")
    environments = (ROOT / "tox.ini").read_text(encoding="utf-8")
    for name in re.findall(r"tox run -e (\S+)", "".join(commands)):
        for environment in name.split(","):
            assert environment.partition("-")[0] in environments


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_the_pages_lead_to_files_and_headings(page):
    text = re.sub(
        r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if heading:
            headings = re.findall(
                r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE
            )
            anchors = {
                re.sub(r"[^\w\- ]", "", found).strip().lower().replace(" ", "-")
                for found in headings
            }
            assert heading in anchors, link
