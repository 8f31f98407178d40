"""Files for microcontrollers: what a program must know of them, and memory."""

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
from keras_iss.export.flatbuffer import loaded
from keras_iss.export.integers import to_floats, to_integers
from keras_iss.export.judge import judge_of
from keras_iss.export.result import Micro, Tensor
from keras_iss.export.streaming import joined
from keras_iss.export.trials import VerificationError

_DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.INT8: "int8",
    schema.TensorType.INT16: "int16",
    schema.TensorType.INT32: "int32",
    schema.TensorType.INT64: "int64",
    schema.TensorType.BOOL: "bool",
}
_SECONDS = 600


def described(content, form):
    """What a program must know of a file.

    Args:
        content: Bytes of the file.
        form: The `Form` that it has.

    Returns:
        `Micro`, without the memory that it takes.
    """
    model = loaded(bytes(content))
    (signature,) = model.signatureDefs
    graph = model.subgraphs[signature.subgraphIndex]
    states = set(form.stepper.state_names) if form.stepper else set()
    return Micro(
        _tensors(graph, graph.inputs, signature.inputs, states),
        _tensors(graph, graph.outputs, signature.outputs, states),
        step=form.stepper is not None,
        keeps_state=form.keeps_state,
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


def measured(path, micro, function, options, form, trials):
    """The same with its memory, after a run in TensorFlow Lite Micro.

    Args:
        path: `pathlib.Path` of the file.
        micro: The `Micro` of it.
        function: The `Callable` of the model.
        options: The `Options`.
        form: The `Form` of the file.
        trials: The `Trials`.

    Returns:
        Tuple of the `Micro`, as it was where `tflite-micro` is not installed,
        and of a dict from the name of an output to its largest error there;
        an empty one where nothing was compared.

    Raises:
        VerificationError: if TensorFlow Lite Micro cannot run the file, or
            computes something else.
    """
    if not can_run():
        return micro, {}
    content = path.read_bytes()
    name = function.model.name
    if not options.verify:
        zeros = {
            x.index: np.zeros(x.shape, x.dtype)
            for x in micro.inputs
            if not x.state
        }
        return run(content, micro, [[zeros]], name)[0], {}
    judge = judge_of(function, trials, options, "TensorFlow Lite Micro")
    for case in trials:
        sequences = [
            [
                _named(micro, function, values)
                for values in (
                    form.stepper.steps_of(inputs) if form.stepper else [inputs]
                )
            ]
            for inputs in case.calls
        ]
        micro, results = run(content, micro, sequences, name)
        judge.compare(
            case,
            [
                {
                    key: _whole(
                        value, [step[key] for step in steps], micro.step
                    )
                    for key, value in expected.items()
                }
                for steps, expected in zip(results, case.expected)
            ],
        )
    return micro, judge.errors


def _named(micro, function, values):
    known = {x.name: v for x, v in zip(function.inputs, values)}
    return {
        x.index: to_integers(known[x.name], x.dtype, x.scale, x.zero_point)
        for x in micro.inputs
        if not x.state
    }


def _whole(expected, steps, step):
    return joined(expected.shape, steps) if step else steps[0]


def check_can_run(name):
    """Raises an error if what only that interpreter runs cannot be run.

    Args:
        name: Name of the model.
    """
    if not can_run():
        raise ImportError(
            f"`{name}` has fused LSTM layers with activations in 16 bits, "
            "which TensorFlow Lite Micro computes and LiteRT does not. To "
            'verify the file: pip install "keras-iss[devices]". verify=False '
            "writes it as it is. Nothing was written."
        )


def can_run():
    """Whether the interpreter of TensorFlow Lite Micro is installed."""
    return importlib.util.find_spec("tflite_micro") is not None


def run(content, micro, sequences, name="the model"):
    """Runs a file in TensorFlow Lite Micro.

    Args:
        content: Bytes of the file.
        micro: The `Micro` of it.
        sequences: List of sequences, each a list of calls, and each call a
            dict from the index of an input, but for states, to an array of
            its dtype. A sequence begins with states of zeros.
        name: Name of the model, for messages.

    Returns:
        Tuple of the `Micro` with the memory that it takes, and a list of
        lists of dicts from the name of an output to an array of real numbers.

    Raises:
        VerificationError: if it does not run.
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
        raise VerificationError(
            f"TensorFlow Lite Micro cannot run what `{name}` was converted "
            f"to: {' '.join(told[-3:])[-500:]} Replace the layer that needs "
            "it. Nothing was written."
        )
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
