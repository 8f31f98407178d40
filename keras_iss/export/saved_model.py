"""A Keras model as a SavedModel whose recurrent layers run fast."""

import contextlib
import functools
import os
import shutil

import tensorflow as tf

from keras_iss.export import files, paths
from keras_iss.export.checks import check
from keras_iss.export.data import checked
from keras_iss.export.domain import vocabulary_sizes
from keras_iss.export.lowering import TENSORFLOW, lower
from keras_iss.export.model import (
    assigned,
    isolated,
    reset_function,
    with_inputs,
)
from keras_iss.export.result import Export
from keras_iss.export.saving import save
from keras_iss.export.trials import Reference, Trials
from keras_iss.export.verify import verify_saved_model

_PARTS = {
    "saved_model.pb",
    "saved_model.pbtxt",
    "fingerprint.pb",
    "keras_metadata.pb",
    "assets",
    "debug",
    "variables",
}


def export(model, path, options):
    """See `keras_iss.export_saved_model`.

    Args:
        model: `keras.Model`.
        path: Where to write the folder.
        options: The `Options`.
    """
    path = paths.target(path, folder=True)
    _check_replaceable(path)
    check(model, options.input_signature)
    function = with_inputs(isolated(model), options.input_signature)
    data, batch = options.data, _fixed_batch_size(function)
    if data is not None:
        data = checked(
            function.inputs, model.name, data, batch, "data", finite=False
        )
    module, signatures = _module(function)
    with files.folder(path) as folder:
        save(module, folder, signatures, path)
        errors = {}
        if options.verify:
            graph = signatures["serving_default"].graph
            what = None if data is None else "the samples of `data`"
            changed = assigned(function.model, graph)
            domain = functools.partial(vocabulary_sizes, graph)
            trials = Trials(
                Reference(function.model, changed), batch, domain, data, what
            )
            errors = verify_saved_model(
                folder, trials, function, bool(changed or function.states)
            )
        _carry_over(path, folder)
        size = sum(x.stat().st_size for x in folder.rglob("*") if x.is_file())
    return Export(path, size, {}, errors)


def _fixed_batch_size(function):
    """The number of samples in a call, or `None` where it is open."""
    sizes = [x.shape[0] for x in function.inputs if x.shape]
    return next((size for size in sizes if size is not None), None)


def _module(function):
    """The `tf.Module` to save, and its signatures by name."""
    fast = function.of_copy(lambda copied: lower(copied, TENSORFLOW))
    module = tf.Module()
    module.kept = function.variables
    module.serve = tf.function(
        lambda *tensors: fast(tensors),
        input_signature=[x.spec() for x in function.inputs],
        autograph=False,
    )
    signatures = {"serving_default": module.serve.get_concrete_function()}
    if function.states:
        signatures["reset"] = reset_function(function)
    return module, signatures


def _check_replaceable(path):
    if (
        path.is_dir()
        and any(path.iterdir())
        and not (path / "saved_model.pb").is_file()
        and not (path / "saved_model.pbtxt").is_file()
    ):
        raise FileExistsError(
            f"{path} is a folder that holds something else than a "
            "SavedModel. Give another path."
        )


def _carry_over(old, new):
    """Copies what lies beside a SavedModel in its folder, such as notes."""
    try:
        parts = list(old.iterdir())
    except FileNotFoundError:
        return
    for part in parts:
        if part.name in _PARTS or (new / part.name).exists():
            continue
        # Another process may take it away, and has carried it over itself.
        with contextlib.suppress(FileNotFoundError, shutil.Error):
            if part.is_dir() and not part.is_symlink():
                shutil.copytree(
                    part, new / part.name, symlinks=True, copy_function=_linked
                )
            else:
                _linked(part, new / part.name)


def _linked(source, target):
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
