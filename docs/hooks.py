"""Lets the pages show what lies in `benchmarks/results`.

The pages link to it as it lies in the repository, so that the links work there
too; the site gets a copy of each file.
"""

import pathlib
import re

from mkdocs.structure.files import File

RESULTS = pathlib.Path(__file__).parent.parent / "benchmarks" / "results"


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
