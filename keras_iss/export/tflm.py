"""TensorFlow Lite Micro's interpreter: what it takes, and a run in it."""

import dataclasses
import importlib.util
import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_iss.export import tflm_process
from keras_iss.export.flatbuffer import loaded, metadata
from keras_iss.export.integers import to_floats
from keras_iss.export.result import Micro, Tensor

_DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.INT8: "int8",
    schema.TensorType.INT16: "int16",
    schema.TensorType.INT32: "int32",
    schema.TensorType.INT64: "int64",
    schema.TensorType.BOOL: "bool",
}
_SECONDS = 600


class TflmError(RuntimeError):
    """A file that TensorFlow Lite Micro cannot run."""


def described(content):
    """What a program must know of a file.

    Args:
        content: Bytes of a file that an export wrote.

    Returns:
        `Micro`, without the memory that it takes.
    """
    content = bytes(content)
    model, known = loaded(content), metadata(content) or {}
    (signature,) = model.signatureDefs
    graph = model.subgraphs[signature.subgraphIndex]
    states = set(known.get("states", ()))
    return Micro(
        _tensors(graph, graph.inputs, signature.inputs, states),
        _tensors(graph, graph.outputs, signature.outputs, states),
        step=signature.signatureKey.decode() == "step",
        keeps_state=bool(known.get("keeps_state")),
    )


def _tensors(graph, numbers, entries, states):
    places = {number: index for index, number in enumerate(numbers)}
    found = []
    # Of a layer whose output is its state, one tensor has both names.
    for entry in sorted(entries, key=lambda x: places[x.tensorIndex]):
        name, index = entry.name.decode(), places[entry.tensorIndex]
        tensor = graph.tensors[entry.tensorIndex]
        known, scale, zero = tensor.quantization, 0.0, 0
        if known is not None and known.scale is not None and len(known.scale):
            scale, zero = float(known.scale[0]), int(known.zeroPoint[0])
        found.append(
            Tensor(
                name,
                index,
                tuple(int(size) for size in tensor.shape),
                _DTYPES[tensor.type],
                scale,
                zero,
                name in states,
            )
        )
    return tuple(found)


def can_run():
    """Whether the interpreter of TensorFlow Lite Micro is installed."""
    return importlib.util.find_spec("tflite_micro") is not None


def run(content, micro, sequences):
    """Runs a file in TensorFlow Lite Micro.

    Args:
        content: Bytes of the file.
        micro: The `Micro` of it.
        sequences: List of sequences, each a list of calls, and each call a
            dict from the index of an input, but for states, to an array of
            its dtype. A sequence begins with states of zeros.

    Returns:
        Tuple of the `Micro` with the memory that it takes, and a list of
        lists of dicts from the name of an output to an array of real numbers.

    Raises:
        TflmError: if it does not run, with what the interpreter said.
    """
    of = {x.name: x.index for x in micro.outputs}
    job = {
        "content": content,
        "sequences": sequences,
        "outputs": 1 + max(x.index for x in micro.outputs),
        "states": {
            x.index: np.full(x.shape, x.zero_point, x.dtype)
            for x in micro.inputs
            if x.state
        },
        "pairs": {x.index: of[x.name] for x in micro.inputs if x.state},
    }
    done = subprocess.run(
        [sys.executable, str(pathlib.Path(tflm_process.__file__))],
        input=pickle.dumps(job),
        capture_output=True,
        timeout=_SECONDS,
        check=False,
    )
    said = done.stderr.decode(errors="replace")
    total = re.findall(r"Arena allocation total (\d+) bytes", said)
    if done.returncode or not total:
        # Before it, what was tried with too little memory; after it, where
        # in Python that was.
        said = said.split("Traceback")[0].strip().splitlines()
        told = [x for x in said if "memory" not in x and "locat" not in x]
        raise TflmError(" ".join(told[-3:])[-500:])
    results = [
        [
            {
                x.name: to_floats(outputs[x.index], x.scale, x.zero_point)
                for x in micro.outputs
            }
            for outputs in steps
        ]
        for steps in pickle.loads(done.stdout)
    ]
    return dataclasses.replace(micro, arena=int(total[-1])), results
