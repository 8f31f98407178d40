"""Operations that multiply tensors and sum over dimensions."""

import numpy as np

from keras_iss.tracing.labels import Traced
from keras_iss.tracing.registry import operation_rule
from keras_iss.tracing.rules.common import (
    as_traced,
    broadcast,
    contraction,
    elementwise,
)

_ALL_ZERO = np.logical_and.reduce
_ANY_ZERO = np.logical_or.reduce


@operation_rule("Matmul")
def matmul(call, x1, x2):
    x1, x2 = as_traced(x1), as_traced(x2)
    first = _from_back(x1, ["row", "summed"])
    second = _from_back(x2, ["summed", "column"])
    if len(x2.shape) == 1:
        second = ["summed"]
    if len(x1.shape) == 1:
        first = ["summed"]
    longest = max(first[:-2], second[:-2], key=len)
    kept = longest + [x for x in ("row", "column") if x in first + second]
    return call.output(contraction(call, [first, second], [x1, x2], kept))


def _from_back(x, last):
    """Letters for the dimensions, those of the batch counted from the back."""
    rank = len(x.shape)
    return [f"batch{i}" for i in range(rank - 2, 0, -1)] + last[-rank:]


@operation_rule("Dot Tensordot")
def tensordot(call, x1, x2):
    if any(len(as_traced(x).shape) == 0 for x in (x1, x2)):
        return elementwise(call, [x1, x2], _ANY_ZERO)
    x1, x2 = as_traced(x1), as_traced(x2)
    ranks = len(x1.shape), len(x2.shape)
    axes = getattr(call.operation, "axes", None)
    if axes is None:
        axes = [-1], [-2 if ranks[1] > 1 else -1]
    elif isinstance(axes, int):
        axes = range(ranks[0] - axes, ranks[0]), range(axes)
    letters = [f"first{i}" for i in range(ranks[0])]
    others = [f"second{i}" for i in range(ranks[1])]
    for n, (i, j) in enumerate(zip(*map(_as_list, axes))):
        letters[i] = others[j] = f"summed{n}"
    kept = [x for x in letters + others if not x.startswith("summed")]
    return call.output(contraction(call, [letters, others], [x1, x2], kept))


@operation_rule("Inner")
def inner(call, x1, x2):
    if any(len(as_traced(x).shape) == 0 for x in (x1, x2)):
        return elementwise(call, [x1, x2], _ANY_ZERO)
    x1, x2 = as_traced(x1), as_traced(x2)
    letters = [f"first{i}" for i in range(len(x1.shape) - 1)]
    others = [f"second{i}" for i in range(len(x2.shape) - 1)]
    terms = [[*letters, "summed"], [*others, "summed"]]
    return call.output(contraction(call, terms, [x1, x2], letters + others))


@operation_rule("Vdot")
def vdot(call, x1, x2):
    """The product of all the elements, in order."""
    x1, x2 = as_traced(x1), as_traced(x2)
    if x1.shape != x2.shape:
        call.pin([x1, x2], "flattens it")
        return call.output()
    letters = list(range(len(x1.shape)))
    return call.output(contraction(call, [letters, letters], [x1, x2], []))


@operation_rule("CDist")
def distances(call, x, y):
    """Square roots of sums of squares of differences: both have to be zero."""
    x, y = as_traced(x), as_traced(y)
    features = [
        Traced.of(tensor.shape[-1:], {0: tensor.axes[-1]}) for tensor in (x, y)
    ]
    (common,) = broadcast(call, features, _ALL_ZERO)
    call.contract(common)
    for tensor in (x, y):
        call.pin(tensor.axes[:-1], "measures distances between the units")
    return call.output()


def _as_list(axes):
    return list(axes) if isinstance(axes, (list, tuple, range)) else [axes]


@operation_rule("Einsum")
def einsum(call, *operands):
    operands = [as_traced(x) for x in operands]
    subscripts = call.operation.subscripts.replace(" ", "")
    terms, arrow, output = subscripts.partition("->")
    if not arrow:
        # What occurs once is kept, in the order of the alphabet.
        letters = terms.replace(",", "").replace("...", "")
        once = sorted(x for x in set(letters) if letters.count(x) == 1)
        output = "".join(["..." * ("..." in terms), *once])
    terms = [
        _einsum_letters(term, len(x.shape))
        for term, x in zip(terms.split(","), operands)
    ]
    elided = max((t for t in terms), key=lambda t: sum(map(_is_elided, t)))
    elided = [letter for letter in elided if _is_elided(letter)]
    before, dots, after = output.partition("...")
    kept = [*before, *(elided if dots else []), *after]
    return call.output(contraction(call, terms, operands, kept))


def _is_elided(letter):
    return letter.isdigit()


def _einsum_letters(term, rank):
    """Letters for the dimensions; those elided are counted from the back."""
    before, dots, after = term.partition("...")
    elided = rank - len(before) - len(after) if dots else 0
    return [*before, *map(str, range(elided - 1, -1, -1)), *after]
