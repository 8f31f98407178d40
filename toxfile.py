"""Read by tox when it starts: uv looks for packages where pip does.

uv, which installs for tox, reads none of pip's settings. Where a machine has
builds of its own, such as PyTorch for the processor alone, pip is told by
variables of the environment.
"""

import os

_SEPARATORS = {"FIND_LINKS": ",", "EXTRA_INDEX_URL": " ", "INDEX_URL": " "}


for _name, _separator in _SEPARATORS.items():
    _values = os.environ.get(f"PIP_{_name}", "").split()
    if _values:
        os.environ.setdefault(f"UV_{_name}", _separator.join(_values))
