"""What models give for samples, and which outputs of two are the same."""

import numpy as np

from keras_iss.runtimes.inputs import batches_of, plain_name
from keras_iss.runtimes.runners import Arrays, Outputs, Runner

BATCH = 32


def outputs_of(runner: Runner, arrays: Arrays) -> Outputs:
    """The outputs for all samples, by name.

    Args:
        runner: A `Runner`.
        arrays: List of arrays, in the order of its inputs.
    """
    count, found = len(arrays[0]), []
    for batch in batches_of(arrays, runner, BATCH):
        found.append(runner.run(batch))
    return {
        name: np.concatenate([np.asarray(x[name]) for x in found])[:count]
        for name in found[0]
    }


def paired(first: Outputs, second: Outputs, a: Runner, b: Runner) -> Outputs:
    """The outputs of one model under the names of another.

    Args:
        first: The outputs of `a`, by name.
        second: Those of `b`.
        a: A `Runner`.
        b: The other one.

    Returns:
        What `second` holds, under the names and in the order of `first`.

    Raises:
        ValueError: if the two do not give the same.
    """
    if len(first) != len(second):
        raise ValueError(
            f"`{a.name}` gives {len(first)} outputs, {list(first)}, and "
            f"`{b.name}` {len(second)}: {list(second)}."
        )
    named = {plain_name(name): value for name, value in second.items()}
    if {plain_name(name) for name in first} != set(named):
        named = _by_shape(first, second)
    found = {name: named[plain_name(name)] for name in first}
    for name, value in first.items():
        if value.shape != found[name].shape:
            raise ValueError(
                f"The output `{name}` of `{a.name}` has the shape "
                f"{value.shape}, and that of `{b.name}` {found[name].shape}."
            )
    return found


def _by_shape(first, second):
    """By their shapes where these tell them apart, else by their order."""
    shapes = [x.shape for x in first.values()]
    if len(set(shapes)) == len(shapes):
        by_shape = {x.shape: x for x in second.values()}
        if set(by_shape) == set(shapes):
            return {
                plain_name(name): by_shape[x.shape] for name, x in first.items()
            }
    return {
        plain_name(name): value for name, value in zip(first, second.values())
    }
