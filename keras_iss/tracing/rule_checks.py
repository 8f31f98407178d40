"""Checks of what a rule has said, and of what it has left out."""

import collections

import keras

from keras_iss.tracing.labels import FIXED, Traced


def check_outputs(statements, call, args, kwargs, outputs):
    """Pins what a rule says nothing of.

    Args:
        statements: `Statements` of the walk.
        call: `Call`.
        args: Its arguments, `Traced` in place of tensors.
        kwargs: Its keyword arguments.
        outputs: What its rule gives for them.

    Raises:
        ValueError: if an output has more or fewer labels than positions.
    """
    for output in keras.tree.flatten(outputs):
        for i in output.labelled:
            if output.shape[i] not in (None, len(output.axes[i])):
                raise ValueError(
                    f"The rule of {call.title} gives "
                    f"{len(output.axes[i])} labels to dimension {i} of an "
                    f"output of shape {output.shape}."
                )
    if not isinstance(call.operation, keras.layers.Layer):
        return
    for variable in call.operation.weights:
        if (id(variable), 0) not in statements.uses and len(variable.shape):
            why = (
                f"{call.title} has a variable `{variable.path}` that its "
                "rule does not know"
            )
            statements.pin((args, kwargs, outputs), why)
            for used in call.operation.weights:
                statements.fix(used, why)
            return


def pin_unexplained(statements, call, args, kwargs, outputs):
    """Pins the units that a rule of a user's own loses.

    Its arguments are those of `check_outputs`. The rule may have been written
    with the units of the last dimension in mind alone. Units along another
    one would be lost from sight.
    """
    tensors = [
        x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Traced)
    ]
    if not any(x.labelled for x in tensors):
        return
    handed_on = [a for x in keras.tree.flatten(outputs) for a in x.axes]
    said = []
    for axes in (handed_on, *call.consumed):
        said.append(collections.Counter())
        for axis in axes:
            said[-1].update(_different(statements, axis))
    for x in tensors:
        # The same units may run along several dimensions of one tensor.
        needed = collections.Counter()
        for i in x.labelled:
            found = _different(statements, x.axes[i])
            needed.update(found)
            if not all(
                any(counter[unit] >= needed[unit] for counter in said)
                for unit in found
            ):
                statements.pin(
                    x.axes[i],
                    f"{call.title} has a rule that does not say what "
                    f"becomes of the units along axis {i} of its input "
                    "(`call.output` hands them on, `call.weight` or "
                    "`call.contract` sums over them)",
                )


def _different(statements, axis):
    """Set of the units along an axis, tied ones being one."""
    if axis is None:
        return set()
    labels = axis.labels[axis.labels != FIXED]
    return set(statements.labels.roots(labels).tolist())
