"""What pytest collects of the package, and fixtures of several modules."""

import importlib.util

pytest_plugins = ["tests.export_fixtures"]

# Only what can be imported.
collect_ignore_glob = []
if importlib.util.find_spec("tensorflow") is None:
    collect_ignore_glob.append("keras_iss/export/[!_]*.py")
