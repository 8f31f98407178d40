"""The graph of what a `call` in Python does, in either phase."""

import dataclasses
import inspect

import keras

from keras_iss._keras.errors import message_of
from keras_iss._keras.graphs import (
    forgotten_calls,
    recorded_calls,
    training_phase,
)
from keras_iss._keras.masks import masks_taken_off
from keras_iss.tracing.call_order import check_order_of_states
from keras_iss.tracing.errors import UntraceableError
from keras_iss.tracing.fingerprint import Fingerprint, knows_phases
from keras_iss.tracing.function_graph import function_graph
from keras_iss.tracing.nodes import Graph


@dataclasses.dataclass(frozen=True, eq=False)
class Called:
    """What a `call` did: its graph, and what it is compared by."""

    graph: Graph
    fingerprint: Fingerprint


def called(model, inputs, takes_masks_off):
    """Calls a model on symbolic inputs, in training and in inference.

    Args:
        model: The model.
        inputs: Its inputs, nested structure of `keras.KerasTensor`.
        takes_masks_off: Function from a layer and the tensors that it is
            called on to those that lose their masks by it.

    Returns:
        `Called`.

    Raises:
        UntraceableError: if it cannot be called, or its graph depends on the
            phase in a way that no single graph shows.
    """
    inference, training = (
        _called_in(model, inputs, phase, takes_masks_off)
        for phase in (False, True)
    )
    first, second = Fingerprint(inference), Fingerprint(training)
    if first == second:
        return Called(_without_phases(inference), first)
    # Dropout that is called in training only is none in inference.
    if first.without_noise == second.without_noise:
        return Called(_without_phases(training), second)
    raise UntraceableError(
        "does something else in training than in inference, decided in Python "
        "(such as `if training:`): let layers that know `training` decide, "
        "or build it with `keras.Model(inputs, outputs)`"
    )


def _called_in(model, inputs, training, takes_masks_off):
    takes = "training" in inspect.signature(type(model).call).parameters
    given = {"training": training} if takes else {}
    with forgotten_calls(model), training_phase(model, training):
        try:
            with (
                masks_taken_off(model, takes_masks_off) as taken,
                recorded_calls(model) as calls,
            ):
                outputs = model.call(inputs, **given)
            graph = function_graph(keras.Function(inputs, outputs), taken)
        except Exception as error:
            raise UntraceableError(
                f"cannot be called on symbolic inputs ({message_of(error)})"
            ) from error
    check_order_of_states(graph, calls)
    for node in graph.nodes:
        phase = node.kwargs.get("training")
        if phase not in (None, training) and knows_phases(node.operation):
            raise UntraceableError(
                f"calls `{node.operation.name}` with `training={phase}` "
                f"when it is called with `training={training}` itself, which "
                "a Functional model cannot do: leave `training` out of that "
                "call"
            )
    return graph


def _without_phases(graph):
    """The graph without the `training` that each call was given."""
    nodes = []
    for node in graph.nodes:
        kwargs = {k: v for k, v in node.kwargs.items() if k != "training"}
        nodes.append(dataclasses.replace(node, kwargs=kwargs))
    return dataclasses.replace(graph, nodes=tuple(nodes))
