"""Loads models, in Keras' safe mode unless told otherwise."""

import importlib
import importlib.util
import inspect
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from keras_iss.cli.arguments import Loading

_SUFFIXES = (".keras", ".h5")


def load_model(path: str | os.PathLike[str], loading: Loading) -> Any:
    """Loads a Keras model.

    Args:
        path: A `.keras` file.
        loading: `Loading`.

    Returns:
        The `keras.Model`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no file of a model, or needs code that safe mode
            does not run, or objects that are not known.
    """
    import keras

    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no `{path}`. Give the path of a .keras file."
        )
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(
            f"`{path}` is no .keras file. This takes a Keras model, as "
            "`model.save('model.keras')` writes it."
        )
    custom_objects = imported(loading.imports)
    try:
        with warnings.catch_warnings():
            # Of a model that was compiled, and never trained.
            warnings.filterwarnings("ignore", "Skipping variable loading")
            return keras.models.load_model(
                path,
                custom_objects=custom_objects,
                safe_mode=not loading.unsafe,
            )
    except Exception as error:
        raise ValueError(_why(path, error, loading)) from error


def loader_of(loading: Loading) -> Callable[[Any], Any]:
    """A function that loads a path as `load_model` does."""
    return lambda path: load_model(path, loading)


def imported(names: Sequence[str]) -> dict[str, Any]:
    """The layers, classes and functions of some modules, by name.

    Args:
        names: Sequence of strings, modules or `.py` files. A module is also
            looked for in the working folder.

    Raises:
        ImportError: if there is no such module.
    """
    found: dict[str, Any] = {}
    for name in names:
        module = module_of(name)
        for key, value in vars(module).items():
            is_own = getattr(value, "__module__", None) == module.__name__
            if is_own and (inspect.isclass(value) or callable(value)):
                found[key] = value
    return found


def module_of(name: str) -> Any:
    """A module by its name or its `.py` file.

    Raises:
        ImportError: if there is no such module.
    """
    path = pathlib.Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise ImportError(f"There is no file `{name}` to import.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
        return module
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ImportError(
            f"There is no module `{name}`, neither installed nor in this "
            "folder. Give its name as in `import`, or its .py file."
        ) from error


def _why(path, error, loading):
    text = " ".join(str(error).split())
    if not loading.unsafe and ("safe_mode" in text or "unsafe" in text):
        return (
            f"`{path}` holds Python code, in a Lambda layer, which safe mode "
            "does not run. If you trust where the file comes from, add "
            "--unsafe."
        )
    unknown = "Could not locate" in text or "Unknown" in text
    if unknown and not loading.imports:
        return (
            f"`{path}` needs a layer or function that is not known here: "
            f"{_cut(text)} Give the module that defines it: --import MODULE."
        )
    return f"`{path}` cannot be loaded: {_cut(text)}"


def _cut(text, most=300):
    """The beginning of what Keras says, which may go on for pages."""
    return text if len(text) <= most else f"{text[:most].rstrip()} ..."
