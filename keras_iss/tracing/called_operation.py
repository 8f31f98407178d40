"""What is called, and what it gives, whatever its rule says of units."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import keras

from keras_iss._keras.masks import attached_mask
from keras_iss.tracing.labels import Axis, Traced
from keras_iss.tracing.registry import why_no_rule

if TYPE_CHECKING:
    from keras_iss.tracing.nodes import Node
    from keras_iss.tracing.trace import Trace

Axes: TypeAlias = Mapping[int, Axis | None]


class CalledOperation:
    """A layer or operation that is called: its name, arguments and outputs.

    Args:
        trace: The `Trace` of the walk.
        operation: The `keras.layers.Layer` or `keras.Operation`.
        name: String, its name with the path to it.
        node: The `Node` of the graph, or `None` inside another layer.
    """

    def __init__(
        self,
        trace: "Trace",
        operation: keras.Operation,
        name: str,
        node: "Node | None" = None,
    ) -> None:
        self.operation = operation
        self.name = name
        self.args: tuple = ()
        self.kwargs: dict[str, Any] = {}
        self.node = node
        self._trace = trace

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.title}>"

    @property
    def title(self) -> str:
        """How messages name the operation."""
        return f"`{self.name}` ({type(self.operation).__name__})"

    @property
    def found_a_mask(self) -> bool:
        """Whether Keras found a mask for what the layer is called on."""
        if self.node is None:
            return False
        masks = [self.node.kwargs[key] for key in self.node.found_masks]
        return any(x is not None for x in keras.tree.flatten(masks))

    @property
    def include(self) -> tuple[str, ...]:
        """Tuple of the kinds of layers whose units were asked for."""
        return self._trace.include

    @property
    def without_rule(self) -> str:
        """What messages say of an operation that has no rule."""
        return why_no_rule(self.operation)

    def output_shapes(self) -> list[tuple]:
        """List of the shapes of the outputs, flat."""
        if self.node is not None:
            return [x.shape for x in self.node.outputs]

        def symbolic(x):
            return keras.KerasTensor(x.shape) if isinstance(x, Traced) else x

        args, kwargs = keras.tree.map_structure(
            symbolic, (self.args, self.kwargs)
        )
        spec = self.operation.compute_output_spec(*args, **kwargs)
        return [x.shape for x in keras.tree.flatten(spec)]

    def output(self, axes: Axes | None = None, index: int = 0) -> Traced:
        """An output with labels on some dimensions.

        Args:
            axes: Dict from dimension (may be negative) to `Axis` or `None`.
            index: Integer, which output, in flat order.

        Returns:
            A `Traced` of the shape that the layer gives.
        """
        return Traced.of(self.output_shapes()[index], axes)

    def outputs(self) -> list[Traced]:
        """List of all the outputs, without labels."""
        return [Traced.of(shape) for shape in self.output_shapes()]

    def mask_is_known(self) -> bool:
        """Whether it is known here if the input comes with a mask.

        Inside a nested model or a wrapper, a mask that was found outside
        arrives unseen; and one that is found inside leaves unseen.
        """
        sources = self._trace.mask_sources
        if self.node is None or id(self.node) not in sources.nodes:
            return not sources.has_any
        if any(attached_mask(x) is not None for x in self.node.inputs):
            return True
        return sources.all_in_sight
