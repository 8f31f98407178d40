"""A graph of calls, in the order they run, and how it is followed."""

import dataclasses

import keras


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One call of a layer or an operation.

    Attributes:
        operation: `keras.Operation` (a layer is one).
        args: Tuple of the positional arguments, with `keras.KerasTensor`s.
        kwargs: Dict of the keyword arguments, the masks that Keras found by
            itself included.
        outputs: Flat list of the output `keras.KerasTensor`s.
        found_masks: Tuple of the keyword arguments that are such masks.
        only_for_masks: Boolean, whether nothing but such masks is computed
            from the outputs.
        unmasked: Tuple of the `keras.KerasTensor`s it reads whose masks an
            earlier call had taken off.
        unmasking: Tuple of those whose masks it takes off itself, while
            others may still have to read them.
    """

    operation: keras.Operation
    args: tuple
    kwargs: dict
    outputs: list
    found_masks: tuple = ()
    only_for_masks: bool = False
    unmasked: tuple = ()
    unmasking: tuple = ()

    @property
    def inputs(self):
        """Flat list of the `keras.KerasTensor`s that the call reads."""
        return tensors_in((self.args, self.kwargs))

    @property
    def data(self):
        """The same, without the masks that Keras found by itself."""
        return tensors_in((self.args, self.given))

    @property
    def given(self):
        """The keyword arguments without the masks that Keras found."""
        return {
            key: value
            for key, value in self.kwargs.items()
            if key not in self.found_masks
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """What a model computes.

    Attributes:
        inputs: Nested structure of `keras.KerasTensor`.
        outputs: Nested structure of `keras.KerasTensor`.
        nodes: Tuple of `Node`, each after those it reads.
        fixed_length: Boolean, whether it holds for inputs of these very
            shapes only, whatever the model itself takes.
    """

    inputs: object
    outputs: object
    nodes: tuple
    fixed_length: bool = False

    def takes(self, tensors):
        """Whether it holds for tensors of these shapes.

        Args:
            tensors: Flat list of what has a `shape`.
        """
        return not self.fixed_length or all(
            tuple(given.shape[1:]) == tuple(x.shape[1:])
            for given, x in zip(tensors, keras.tree.flatten(self.inputs))
        )

    def run(self, inputs, call):
        """Follows the graph.

        Args:
            inputs: Flat list of what stands for the inputs.
            call: Function from a `Node`, its arguments and its keyword
                arguments to what stands for its outputs, nested as the
                operation nests them.

        Returns:
            What stands for the outputs, nested as the model nests them.
        """
        values = dict(zip(map(id, keras.tree.flatten(self.inputs)), inputs))

        def fill(argument):
            if isinstance(argument, keras.KerasTensor):
                return values[id(argument)]
            return argument

        for node in self.nodes:
            args, kwargs = keras.tree.map_structure(
                fill, (node.args, node.kwargs)
            )
            results = keras.tree.flatten(call(node, args, kwargs))
            values.update(zip(map(id, node.outputs), results))
        return keras.tree.map_structure(fill, self.outputs)


def tensors_in(nested):
    """Flat list of the `keras.KerasTensor`s in a nested structure."""
    return [
        x
        for x in keras.tree.flatten(nested)
        if isinstance(x, keras.KerasTensor)
    ]
