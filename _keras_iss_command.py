"""The program `keras-iss`, before anything heavy is imported.

`import keras_iss` imports Keras and its backend, which takes seconds and
prints lines of its own. What `--help`, shell completion and usage errors need
lies in `keras_iss.cli`, which imports neither. So the package is put in its
place here without being run; `keras_iss.cli.library` runs it when a verb
needs it.
"""

import importlib.util
import sys


def main() -> None:
    """Runs the command on the arguments of the process."""
    if "keras_iss" not in sys.modules:
        spec = importlib.util.find_spec("keras_iss")
        assert spec is not None  # This file comes with it.
        sys.modules["keras_iss"] = importlib.util.module_from_spec(spec)
    from keras_iss.cli import main as run

    run()
