"""What pytest collects of the package: only what can be imported."""

import importlib.util

collect_ignore_glob = []
if importlib.util.find_spec("tensorflow") is None:
    collect_ignore_glob.append("keras_iss/export/_*.py")
