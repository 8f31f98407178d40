"""Building the smaller model, from the layers that are there.

The result is made of the layer classes of the original.
"""

import collections.abc
import dataclasses
import warnings

import keras

from keras_iss._keras.configs import trusted_configs
from keras_iss._keras.distribution import distribution_scope
from keras_iss._messages import quoted
from keras_iss._scopes import known_objects
from keras_iss.surgery.building import Builder
from keras_iss.surgery.compiling import compile_like
from keras_iss.surgery.loading import loading_problem, shares_layers
from keras_iss.tracing.errors import UntraceableError


@dataclasses.dataclass(frozen=True, eq=False)
class Rebuilt:
    """A smaller model, and how it hangs together with the old one.

    Attributes:
        model: The new `keras.Model`.
        variables: Dict from the `id` of an old variable to the new one.
        stays: Function from an array of unit labels to a boolean array.
        call: Function from a `Node` of the old graph, arguments and keyword
            arguments to what the new operation gives for them.
    """

    model: keras.Model
    variables: dict
    stays: collections.abc.Callable
    call: collections.abc.Callable


def rebuild(found, alive, zero):
    """Builds a model without the components that are not alive.

    Args:
        found: `Found` of the model.
        alive: Boolean array: which components stay, numbered as in `found`.
        zero: Boolean array: which of them are to be zero.

    Returns:
        `Rebuilt`: a new model, with the weights that stay, compiled like the
        old one.
    """
    old = found.trace.root
    # What is read here was made here: a `Lambda` need not be trusted anew.
    with distribution_scope(old), known_objects(old), trusted_configs():
        builder = Builder(found, alive, zero)
        try:
            new = builder.model(old)
        except UntraceableError as error:
            raise ValueError(
                f"`{old.name}` ({type(old).__name__}) cannot be made smaller: "
                f"it {error}."
            ) from error
        builder.carry_weights()
        builder.attach_masks()
        new = _loadable(old, new, builder)
        _warn_of_losses(old, new, builder.variables)
        compile_like(old, new, builder.variables, builder.cut.of_value)
    return Rebuilt(new, builder.variables, builder.cut.stays, builder.new_call)


def _loadable(old, new, builder):
    """The new model; or where Keras could not load it, one of the old class.

    Warns if neither can be loaded.
    """
    another_class = type(new) is not type(old)
    if not builder.classes_changed and not shares_layers(new):
        return new
    problem = loading_problem(new, old)
    if problem is None:
        return new
    if another_class and not isinstance(old, keras.Sequential):
        of_the_class = builder.of_the_same_class(old)
        if of_the_class is not None:
            return of_the_class
    warnings.warn(
        f"The smaller model of `{old.name}` computes what it should, but a "
        f"file that it is saved to cannot be loaded as that: {problem}",
        stacklevel=5,
    )
    return new


def _warn_of_losses(old, new, variables):
    """Says what of a model of the user's own class does not go over."""
    left = [v.path for v in old.weights if id(v) not in variables]
    if left:
        warnings.warn(
            f"The variables {quoted(left)} belong to no layer of the graph of "
            f"`{old.name}`: the smaller model does without them.",
            stacklevel=5,
        )
    if type(new) is not type(old) and type(old) is not keras.Sequential:
        kind = (
            "Sequential" if isinstance(new, keras.Sequential) else "Functional"
        )
        warnings.warn(
            f"`{old.name}` is a `{type(old).__name__}`. The smaller model is a "
            f"{kind} one of the same layers: it has no methods of that class, "
            "such as a `train_step` of its own.",
            stacklevel=5,
        )
