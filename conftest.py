"""What pytest collects of the package, and fixtures of several modules."""

import importlib.util
import pathlib

pytest_plugins = ["tests.export_fixtures"]

# Only what can be imported.
collect_ignore_glob = []
if importlib.util.find_spec("tensorflow") is None:
    export = pathlib.Path(__file__).parent / "keras_iss" / "export"
    collect_ignore_glob += map(str, export.glob("[!_]*.py"))
if importlib.util.find_spec("onnx") is None:
    collect_ignore_glob.append("keras_iss/export/onnx/*.py")
