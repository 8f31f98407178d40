"""The weights that stay, from the layers of one model to those of another."""

import tempfile

from keras_iss._attachments import STRENGTH
from keras_iss._keras.layers import carried_states
from keras_iss._messages import quoted


class Weights:
    """Carries the weights of pairs of layers.

    Args:
        cut: `Cut`.
        inner: Function from an old layer and the new one to a list of the
            pairs of the layers inside them, where they are known.

    Attributes:
        variables: Dict from the `id` of an old variable to the new one.
    """

    def __init__(self, cut, inner):
        self._cut = cut
        self._inner = inner
        self._pairs = []
        self.variables = {}

    def add(self, old, new):
        """Notes a pair of layers, which may not be built yet."""
        self._pairs.append((old, new))

    def carry(self, then):
        """Gives the new layers the weights of the old ones that stay.

        Args:
            then: Function that is called with each pair of layers when the
                new one has its weights.
        """
        for old, new in self._pairs:
            self._carry(old, new)
            then(old, new)
        self._pairs.clear()

    def _carry(self, old, new):
        inner = self._inner(old, new)
        for old_layer, new_layer in inner:
            self._carry(old_layer, new_layer)
        below = {
            id(v) for pair in inner for layer in pair for v in _state(layer)
        }
        self.assign(
            old,
            [v for v in _state(old) if id(v) not in below],
            [v for v in _state(new) if id(v) not in below],
        )
        _carry_the_rest(old, new)

    def assign(self, layer, old_variables, new_variables):
        """Gives new variables what stays of the old ones."""
        if len(old_variables) != len(new_variables):
            raise ValueError(
                f"`{layer.name}` ({type(layer).__name__}) holds the variables "
                f"{quoted(v.path for v in old_variables)}, and a new one made "
                f"from its config {quoted(v.path for v in new_variables)}. "
                "Is something in it quantized, given LoRA weights or held "
                "twice? Shrink first, then change the layer."
            )
        by_name = {v.name: v for v in new_variables}
        if by_name.keys() == {v.name for v in old_variables} and (
            len(by_name) == len(new_variables)
        ):
            # A quantized layer makes them in another order.
            new_variables = [by_name[v.name] for v in old_variables]
        else:
            new_variables = _by_path(old_variables, new_variables)
        for old, new in zip(old_variables, new_variables):
            known = self.variables.get(id(old))
            if known is not None:
                if known is not new:
                    raise ValueError(
                        f"`{layer.name}` ({type(layer).__name__}) shares the "
                        f"variable `{old.path}` with another layer in a way "
                        "that keras-iss cannot make anew. Share the whole "
                        "layer instead, by calling it twice."
                    )
                continue
            value = self._cut.of_value(old.value, old)
            if tuple(value.shape) != tuple(new.shape):
                raise RuntimeError(
                    f"`{layer.name}`: the variable `{old.path}` should become "
                    f"{tuple(value.shape)}, and the new layer made it "
                    f"{tuple(new.shape)}. A rule and a config disagree."
                )
            new.assign(value)
            new.trainable = old.trainable
            new.constraint = old.constraint
            self.variables[id(old)] = new


def _by_path(old_variables, new_variables):
    """The new variables in the order of the old ones, where paths tell it."""
    by_path = {v.path: v for v in new_variables}
    paths = [v.path for v in old_variables]
    if len(by_path) == len(paths) and by_path.keys() == set(paths):
        return [by_path[path] for path in paths]
    return new_variables


def _carry_the_rest(old, new):
    """What a layer keeps beside its variables and its config."""
    if hasattr(old, "lora_alpha"):
        new.lora_alpha = old.lora_alpha
    if hasattr(old, "save_assets") and hasattr(new, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)
    if hasattr(new, "finalize_state"):
        new.finalize_state()


def _state(layer):
    """Everything a layer keeps: variables, and the states of an RNN."""
    variables = [v for v in layer.variables if v.name != STRENGTH]
    return [*variables, *carried_states(layer)]
