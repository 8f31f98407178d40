"""Follows a Keras model, and has each layer and operation written.

A layer is written by its entry in the table. One that has none is followed:
its `call` is run on symbolic tensors, and what it does to them is written.
Masks are attached to tensors, and taken off, as Keras does it when it runs.
"""

import inspect

import keras

from keras_iss._keras.classes import is_keras_class
from keras_iss._keras.graphs import (
    call_behind,
    graph_behind,
    inputs_as_given,
    nodes_in_order,
    outputs_as_given,
    training_phase,
)
from keras_iss._keras.layers import takes_training
from keras_iss._keras.masks import attach_mask, attached_mask
from keras_iss.export.onnx import layers, operations, registry
from keras_iss.export.onnx.found_masks import (
    find_masks,
    mask_of,
    without_found_masks,
)
from keras_iss.export.onnx.graph import Unwritable, Value
from keras_iss.export.onnx.lowering import Lowering

_FLOATS = ("float16", "bfloat16", "float32", "float64")


class Walk:
    """One pass over a model.

    Args:
        graph: The `Graph` that is written.
    """

    def __init__(self, graph):
        self.graph = graph

    def call(self, operation, args, kwargs):
        """What a call of a layer or an operation gives.

        Args:
            operation: `keras.Operation`; a layer is one.
            args: Tuple of its arguments, with `Value`s for tensors.
            kwargs: Dict of its keyword arguments.

        Returns:
            The outputs, nested as Keras nests them, of `Value`s.

        Raises:
            Unwritable: that names the layer.
        """
        try:
            with self.graph.scope(operation.name):
                if isinstance(operation, keras.layers.Layer):
                    return self._call_layer(operation, args, dict(kwargs))
                return self._call_operation(operation, args, kwargs)
        except Unwritable as error:
            if error.culprit is None:
                if isinstance(operation, keras.Function):
                    # It stands in the graph of the model itself.
                    error.culprit = error.operation or operation
                elif isinstance(operation, keras.layers.Layer):
                    error.culprit = operation
                elif error.operation is None:
                    error.operation = operation
            raise

    # Layers, and what Keras does around their `call`.

    def _call_layer(self, layer, args, kwargs):
        args, kwargs = keras.tree.map_structure(
            lambda x: self._converted(layer, x), (args, kwargs)
        )
        parameters = inspect.signature(layer.call).parameters
        if "training" not in parameters and not any(
            x.kind is x.VAR_KEYWORD for x in parameters.values()
        ):
            kwargs.pop("training", None)
        elif takes_training(layer) and kwargs.get("training") is None:
            kwargs["training"] = False
        bound = inspect.signature(layer.call).bind(*args, **kwargs)
        bound.apply_defaults()
        first = next(iter(bound.arguments.values()))
        find_masks(bound.arguments, kwargs)
        previous = kwargs.get("mask")
        if previous is None:
            previous = keras.tree.map_structure(mask_of, first)
        outputs = self._written(layer, args, kwargs)
        if isinstance(layer, keras.layers.MultiHeadAttention):
            # It takes the masks off what it reads.
            for x in keras.tree.flatten((args, kwargs)):
                if isinstance(x, Value):
                    x.mask = None
        if layer.supports_masking:
            self._attach_masks(layer, first, outputs, previous)
        return outputs

    def _converted(self, layer, x):
        """A tensor in the type that a layer computes in."""
        if (
            not isinstance(x, Value)
            or not layer.autocast
            or x.dtype not in _FLOATS
            or layer.compute_dtype not in _FLOATS
            or x.dtype == layer.compute_dtype
        ):
            return x
        new = Lowering(layer, self.graph, self).cast(x, layer.compute_dtype)
        new.mask = x.mask
        return new

    def _written(self, layer, args, kwargs):
        lowering = Lowering(layer, self.graph, self)
        function = registry.LAYERS.get(type(layer))
        if function is not None:
            outputs = function(lowering, *args, **_own(function, kwargs))
            return self._with_shapes(layer, outputs, args, kwargs)
        function = layers.entry_of(layer)
        if function is not None:
            return function(lowering, *args, **_own(function, kwargs))
        inner = graph_behind(layer)
        if inner is not None:
            return self.run(inner, *args, mask=kwargs.get("mask"))
        return self.trace(layer.call, args, kwargs, layer)

    def _with_shapes(self, layer, outputs, args, kwargs):
        """What a user's function gave, with what Keras says of its outputs."""
        args, kwargs = keras.tree.map_structure(_symbol, (args, kwargs))
        with keras.StatelessScope(), training_phase(layer, False):
            said = keras.tree.flatten(
                layer.compute_output_spec(*args, **kwargs)
            )
        found = keras.tree.flatten(outputs)
        if len(found) != len(said) or not all(
            isinstance(x, Value) for x in found
        ):
            raise Unwritable(
                "its function in `register_onnx_lowering` must return "
                f"{len(said)} values of the graph, as `call` does. It "
                f"returned: {outputs!r}"
            )
        for x, y in zip(found, said):
            x.shape = tuple(y.shape)
        return outputs

    def _attach_masks(self, layer, inputs, outputs, previous):
        flat = keras.tree.flatten(outputs)
        if all(mask_of(x) is not None for x in flat):
            return
        if type(layer).compute_mask is keras.layers.Layer.compute_mask:
            masks = previous
        else:
            masks = self.trace(
                layer.compute_mask, (inputs, previous), {}, layer
            )
        if masks is None:
            return
        for x, mask in zip(flat, keras.tree.flatten(masks)):
            if isinstance(x, Value) and x.mask is None:
                x.mask = mask

    # Graphs, as Keras holds them or as a `call` makes them.

    def run(self, function, inputs, mask=None):
        """What a `keras.Function`, or a Functional model, gives.

        Args:
            function: The `keras.Function`.
            inputs: Nested `Value`s.
            mask: Nested masks of the inputs, or `None`.
        """
        given = inputs_as_given(function)
        if isinstance(given, dict) and isinstance(inputs, dict):
            inputs = {key: inputs[key] for key in given}
        elif isinstance(inputs, dict):
            inputs = [inputs[x.name] for x in keras.tree.flatten(given)]
        flat = keras.tree.flatten(inputs)
        wanted = keras.tree.flatten(given)
        values = {}
        for kept, x in zip(wanted, flat):
            if len(kept.shape) != x.rank:
                raise Unwritable(
                    f"its input `{kept.name}` has {len(kept.shape)} axes, and "
                    f"it is called on a tensor with {x.rank}"
                )
            dtype = keras.backend.standardize_dtype(kept.dtype)
            if "bfloat16" not in (dtype, x.dtype) and dtype != x.dtype:
                new = Lowering(None, self.graph, self).cast(x, dtype)
                new.mask, x = x.mask, new
            values[id(kept)] = x
        for x, own in zip(flat, keras.tree.flatten(mask) if mask else ()):
            if own is not None:
                x.mask = own

        def fill(x):
            return values[id(x)] if isinstance(x, keras.KerasTensor) else x

        for operation, args, kwargs, outputs in nodes_in_order(function):
            kwargs = without_found_masks(operation, args, kwargs)
            args, kwargs = keras.tree.map_structure(fill, (args, kwargs))
            if takes_training(operation):
                kwargs["training"] = False
            found = keras.tree.flatten(self.call(operation, args, kwargs))
            values.update(zip(map(id, outputs), found))
        results = keras.tree.map_structure(fill, outputs_as_given(function))
        if isinstance(results, (list, tuple)) and len(results) == 1:
            return results[0]
        return results

    def trace(self, function, args, kwargs, layer=None):
        """Writes what a function does to symbolic tensors.

        Args:
            function: Function that is written with `keras.ops` and layers.
            args: Tuple of its arguments, with `Value`s for tensors.
            kwargs: Dict of its keyword arguments.
            layer: The layer whose function it is, or `None`.

        Returns:
            What it gives, with `Value`s for tensors.
        """
        symbols, values = {}, _Values()

        def symbol(x):
            if not isinstance(x, Value):
                return x
            if id(x) not in symbols:
                symbols[id(x)] = new = _symbol(x)
                values[id(new)] = x
                values.held.append(new)
                if x.mask is not None:
                    attach_mask(new, symbol(x.mask))
            return symbols[id(x)]

        args, kwargs = keras.tree.map_structure(symbol, (args, kwargs))
        try:
            with keras.StatelessScope() as scope, training_phase(layer, False):
                results = function(*args, **kwargs)
        except Unwritable:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            raise Unwritable(
                "what it does cannot be followed on symbolic tensors "
                f"({type(error).__name__}: {text[:300]})"
            ) from error
        if scope.state_mapping:
            raise Unwritable(
                "its call changes variables, such as a counter or the state of "
                "random numbers, which an ONNX file does not keep"
            )
        masks = keras.tree.map_structure(_attached, results)
        found = self._follow(results, values)
        for x, mask in zip(
            keras.tree.flatten(found),
            keras.tree.flatten(self._follow(masks, values)),
        ):
            if isinstance(x, Value) and mask is not None:
                x.mask = mask
        return found

    def _follow(self, results, values):
        """Writes the calls that symbolic results come from.

        Args:
            results: Nested `keras.KerasTensor`s.
            values: Dict from the id of a symbolic tensor to its `Value`, to
                which those of the results are added.
        """
        waiting = [
            x
            for x in keras.tree.flatten(results)
            if isinstance(x, keras.KerasTensor)
        ]
        while waiting:
            if id(waiting[-1]) in values:
                waiting.pop()
                continue
            call = call_behind(waiting[-1])
            if call is None:
                raise Unwritable(
                    f"it reads a symbolic tensor from elsewhere ({waiting[-1]})"
                )
            operation, args, kwargs, outputs = call
            kwargs = without_found_masks(operation, args, kwargs)
            missing = [
                x
                for x in keras.tree.flatten((args, kwargs))
                if isinstance(x, keras.KerasTensor) and id(x) not in values
            ]
            if missing:
                waiting += missing[::-1]
                continue
            args, kwargs = keras.tree.map_structure(
                lambda x: _filled(x, values), (args, kwargs)
            )
            found = self.call(operation, args, kwargs)
            values.update(zip(map(id, outputs), keras.tree.flatten(found)))
            values.held.append(outputs)
        return keras.tree.map_structure(
            lambda x: self._result(x, values), results
        )

    def _result(self, x, values):
        if isinstance(x, keras.KerasTensor):
            return values[id(x)]
        if isinstance(x, keras.Variable) or keras.ops.is_tensor(x):
            return Lowering(None, self.graph, self).value(x)
        return x

    # Operations of `keras.ops`.

    def _call_operation(self, operation, args, kwargs):
        function = registry.LAYERS.get(type(operation))
        if function is None and is_keras_class(type(operation)):
            function = operations.OPERATIONS.get(type(operation).__name__)
        if function is None:
            if isinstance(operation, keras.Function):
                return self.run(operation, *args)
            if is_keras_class(type(operation)):
                raise Unwritable(
                    f"the operation {type(operation).__name__} of Keras has no "
                    "entry in the table"
                )
            return self.trace(operation.call, args, kwargs)
        symbols = keras.tree.map_structure(_symbol, (args, kwargs))
        said = operation.compute_output_spec(*symbols[0], **symbols[1])
        lowering = Lowering(operation, self.graph, self, said)
        try:
            outputs = function(lowering, *args, **kwargs)
        except (AttributeError, TypeError, ValueError) as error:
            # Such as an argument that another version of Keras has.
            raise Unwritable(
                f"the operation {type(operation).__name__} could not be "
                f"written ({type(error).__name__}: {error})"
            ) from error
        for x, y in zip(keras.tree.flatten(outputs), keras.tree.flatten(said)):
            x.shape = tuple(y.shape)
        return outputs


class _Values(dict):
    """From the id of a symbolic tensor to its `Value`.

    Attributes:
        held: List of the tensors, so that no other has the id of one.
    """

    def __init__(self):
        super().__init__()
        self.held = []


def _symbol(x):
    """A symbolic tensor like a `Value`; anything else as it is."""
    if not isinstance(x, Value):
        return x
    return keras.KerasTensor(x.sizes, x.dtype, name="x")


def _attached(x):
    return attached_mask(x) if isinstance(x, keras.KerasTensor) else None


def _filled(x, values):
    return values[id(x)] if isinstance(x, keras.KerasTensor) else x


def _own(function, kwargs):
    """The keyword arguments that a function of the table takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(x.kind is x.VAR_KEYWORD for x in parameters):
        return kwargs
    names = {x.name for x in parameters}
    return {
        key: value
        for key, value in kwargs.items()
        if key in names or (value is not None and key != "training")
    }
