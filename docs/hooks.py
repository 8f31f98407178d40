"""What the site is made of beside the pages.

The pages link to `benchmarks/results` as it lies in the repository, so that the
links work there too; the site gets a copy of each file. Formulas become
MathML, which browsers draw by themselves: no script, and nothing is fetched.
Where `REPOSITORY_URL` is set, each page has a link to where it can be edited.
Where the pages are one version of several, they have a switch between those.
"""

import html
import os
import pathlib
import re

import latex2mathml.converter
from mkdocs.structure.files import File

RESULTS = pathlib.Path(__file__).parent.parent / "benchmarks" / "results"


def on_config(config):
    """Says where the pages can be edited, if that is known, and of versions.

    Not by `repo_url`: of an address on GitHub, the theme asks for the number of
    stars there, each time a page is opened.
    """
    address = os.environ.get("REPOSITORY_URL")
    if address:
        config.edit_uri_template = f"{address}/edit/main/docs/{{path}}"
    if "MIKE_DOCS_VERSION" in os.environ:
        # Set by `mike`. The theme asks for a list of versions, which lies
        # beside those that `mike` deploys, and nowhere else.
        config.extra["version"] = {"provider": "mike"}
    return config


def on_files(files, config):
    """Adds the results to what the site is made of."""
    for path in sorted(RESULTS.iterdir()):
        files.append(
            File.generated(
                config, f"results/{path.name}", abs_src_path=str(path)
            )
        )
    return files


def on_page_markdown(markdown, page, **kwargs):
    """Has the links point to the copies."""
    here = "../" * page.file.src_uri.count("/")
    return re.sub(r"\(\.\./benchmarks/results/", f"({here}results/", markdown)


def on_page_content(content, **kwargs):
    """Turns the formulas that Arithmatex has marked into MathML."""
    for tag, display in (("span", "inline"), ("div", "block")):
        content = re.sub(
            rf'<{tag} class="arithmatex">\\[(\[](.*?)\\[)\]]</{tag}>',
            lambda found: latex2mathml.converter.convert(
                html.unescape(found[1]), display=display
            ),
            content,
            flags=re.DOTALL,
        )
    if 'class="arithmatex"' in content:
        raise ValueError("A formula was not turned into MathML.")
    return content
