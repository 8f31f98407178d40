"""Symbolic calls in place of those of a graph, with the same masks."""

import keras

from keras_iss._keras.graphs import call_behind
from keras_iss._keras.masks import attach_mask, attached_mask, detach_masks
from keras_iss.surgery.outputs import with_mask


class Calls:
    """Calls of new operations, each with the masks that the old one had.

    The masks that Keras found then are given by hand, and no others are to be
    found: which ones are depends on the order of the calls, since attention
    takes them off what it reads.
    """

    def __init__(self):
        # From the `id` of an old symbolic tensor to the new one.
        self._tensors = {}
        self._graphs = []
        self._masks = {}
        self._copies = {}

    def remember(self, old, new):
        """Notes which new tensors stand for which old ones."""
        self._tensors.update(zip(map(id, old), new))

    def follow(self, graph, inputs, call):
        """Makes all the calls of a graph.

        Args:
            graph: `Graph` of a model.
            inputs: Flat list of the new inputs.
            call: Function from a `Node`, new arguments and keyword arguments
                to what `make` gives for them.

        Returns:
            The new outputs, nested as the model nests them.
        """
        self.remember(keras.tree.flatten(graph.inputs), inputs)
        outputs = graph.run(inputs, call)
        self._graphs.append(graph)
        return outputs

    def make(self, call, node, args, kwargs):
        """Makes the new call for an old one.

        Args:
            call: Function that calls what has taken the place of the
                operation, of the three others.
            node: `Node`, the old call.
            args: Tuple of the new arguments.
            kwargs: Dict of the new keyword arguments.

        Returns:
            The new outputs, without masks.
        """
        masks = {id(self._tensors[id(x)]): None for x in node.unmasked}
        for x in node.unmasking:
            mask = self.mask_of(x)
            if mask is not None:
                masks[id(self._tensors[id(x)])] = mask
        if masks:
            args, kwargs = keras.tree.map_structure(
                lambda x: (
                    self._with_mask(x, masks[id(x)]) if id(x) in masks else x
                ),
                (args, kwargs),
            )
        outputs = call(node, args, kwargs)
        for x in keras.tree.flatten(outputs):
            self._masks[id(x)] = attached_mask(x)
        detach_masks(outputs)
        self.remember(node.outputs, keras.tree.flatten(outputs))
        return outputs

    def attach_masks(self):
        """Gives symbolic tensors the masks that the old ones have.

        For who builds on them: calls that are there have theirs.
        """
        for graph in self._graphs:
            for node in graph.nodes:
                for old in node.outputs:
                    mask = attached_mask(old)
                    if id(mask) in self._tensors:
                        attach_mask(
                            self._tensors[id(old)], self._tensors[id(mask)]
                        )

    def mask_of(self, old):
        """The new mask of an old tensor, or `None` if it is not in sight."""
        known = self._masks.get(id(self._tensors[id(old)]))
        mask = attached_mask(old)
        if known is None and mask is not None:
            known = self._computed_anew(mask)
        return known

    def _computed_anew(self, old):
        """The new tensor for one that only masks are computed from.

        Returns:
            `keras.KerasTensor`, or `None` if a layer gives the old one.
        """
        if id(old) in self._tensors:
            return self._tensors[id(old)]
        call = call_behind(old)
        if call is None or isinstance(call[0], keras.layers.Layer):
            return None
        operation, args, kwargs, outputs = call
        new = {
            id(x): self._computed_anew(x)
            for x in keras.tree.flatten((args, kwargs))
            if isinstance(x, keras.KerasTensor)
        }
        if None in new.values():
            return None
        args, kwargs = keras.tree.map_structure(
            lambda x: new.get(id(x), x), (args, kwargs)
        )
        made = keras.tree.flatten(operation(*args, **kwargs))
        self.remember(outputs, made)
        return self._tensors[id(old)]

    def _with_mask(self, tensor, mask):
        """The same numbers, in a tensor that carries this mask or none."""
        key = id(tensor), id(mask)
        if key not in self._copies:
            made = keras.ops.copy(tensor)
            if mask is not None:
                made = with_mask(made, mask, None)
            # They are kept, so that their ids stay their own.
            self._copies[key] = made, tensor, mask
        return self._copies[key][0]
