"""The one representation: slices, structures, and the structures of a model.

A *component* is one hidden unit with every weight it owns, in every layer. A
*structure* is all the components of one layer axis. Where a structure lies in
one variable is a *slice*. Penalty, pruning, reports and surgery are computed
from slices alone; nothing here knows what an LSTM is.
"""

import collections.abc
import dataclasses
import difflib
import functools
import io
import math
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_iss.counts import Counts, Weights, count

OVERLAPS = ("count_twice", "once")

# Columns of the table.
_NUMBERS = ("size", "alive", "weights")


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """Where a structure's components lie in one variable.

    A slice unpacks into its first three attributes:
    `variable, axis, index = slice`.

    Attributes:
        variable: `keras.Variable`.
        axis: Integer, the axis of `variable` that the components divide.
        index: Integer array of shape `(size, m)`. Component `k` owns the
            positions `index[k]` along `axis`.
        role: `"weight"` counts in the group norm and is zeroed with its
            component; `"bias"` (also the scale and offset of a normalization)
            and `"state"` are zeroed but not counted; a `"statistic"` is
            neither, only cut.
    """

    variable: keras.Variable
    axis: int
    index: np.ndarray
    role: str = "weight"

    def __iter__(self) -> Iterator:
        return iter((self.variable, self.axis, self.index))

    @property
    def counted(self) -> bool:
        return self.role == "weight"

    @property
    def zeroed(self) -> bool:
        return self.role != "statistic"

    @property
    def other_axes(self) -> tuple[int, ...]:
        """The axes of `variable` other than `axis`."""
        ndim = len(self.variable.shape)
        return tuple(i for i in range(ndim) if i != self.axis)

    def owners(self) -> np.ndarray:
        """Integer array along `axis`: the owning component, or -1."""
        owners = np.full(self.variable.shape[self.axis], -1)
        owners[self.index] = np.arange(len(self.index))[:, None]
        return owners

    def per_component(self, along: np.ndarray) -> np.ndarray:
        """Gathers an array along `axis` into one of shape `(size, m)`."""
        return along[self.index]


def already_owned(part, earlier):
    """Which elements of a slice lie in an earlier slice of their component.

    Args:
        part: A `Slice`.
        earlier: Slices of the same structure in the same variable, on other
            axes.

    Returns:
        Boolean array that broadcasts against the variable.
    """
    ndim = len(part.variable.shape)

    def owners(lying):
        shape = [1] * ndim
        shape[lying.axis] = -1
        return lying.owners().reshape(shape)

    mine = owners(part)
    return np.any(
        np.broadcast_arrays(
            *((mine >= 0) & (mine == owners(other)) for other in earlier)
        ),
        axis=0,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """All the components of one layer axis.

    Attributes:
        name: String, the name of the layer whose units these are. A layer
            inside another one is named with its path, `"encoder/lstm"`.
        size: Integer, the number of components.
        slices: Tuple of `Slice`, everywhere the components lie.
        pinned: `None`, or a string: why the structure must keep its size.
        makers: Tuple of strings, the layers whose units are tied in this
            structure, `name` first.
        consumers: Tuple of strings, the other layers that hold weights of it.
        contracted: Boolean. Somewhere the units are summed without weights
            (attention scores, a dot product), so that a component may only
            be cut when its biases are zero too.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    pinned: str | None = None
    makers: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    contracted: bool = False

    def norms(self, overlap: str = "count_twice") -> np.ndarray:
        """The group norm of every component.

        Args:
            overlap: `"count_twice"` (default) counts an element that lies in
                both a row and a column of its component in both, as the code
                of the paper does; `"once"` counts it once.

        Returns:
            Float array of shape `(size,)`: the L2 norm of all the weights of
            each component, biases left out.

        Raises:
            ValueError: if `overlap` is neither of the two.

        Source: Wen et al., "Learning Intrinsic Sparse Structures within Long
        Short-Term Memory", ICLR 2018, section 3.2.
        """
        return norms_of([self], overlap)[self.name]

    def removed(self) -> np.ndarray:
        """Which components are removed.

        Returns:
            Boolean array of shape `(size,)`, true where every weight of the
            component is exactly zero (and, in a `contracted` structure, every
            bias too).
        """
        return removed_of([self])[self.name]

    @property
    def alive(self) -> int:
        """Integer, the number of components that are not removed."""
        return int(self.size - self.removed().sum())

    def decides(self, part: Slice) -> bool:
        """Whether a component is removed only if it is zero in this slice."""
        return part.zeroed if self.contracted else part.counted


class UnknownStructureError(KeyError, ValueError):
    """A name that fits no structure, or more than one."""

    def __str__(self):
        # A `KeyError` shows its message quoted.
        return self.args[0]


class Structures(collections.abc.Collection):
    """The structures of a model, in the order of its layers.

    `structures["lstm_1"]` finds one by its name, by the name of any layer
    tied into it, or by the end of its path (`"forward_lstm"` for
    `"bidirectional/forward_lstm"`) where only one fits. Iterating gives the
    `Structure` objects; printing gives a table.

    Args:
        structures: The `Structure` objects.
        weights: A `Weights` for every weight variable of the model.
        equal_sizes: Tuples of integer arrays. Each array holds, for the
            positions along an axis, the number of the component (counted
            through all the structures in order) or -1; axes in one tuple have
            to stay of one size.

    Attributes:
        refit: What `prune(..., refit=True)` did to what reads the components
            that it removed, or `None`.
    """

    def __init__(
        self,
        structures: Iterable[Structure],
        weights: Iterable[Weights] = (),
        equal_sizes: Iterable[tuple[np.ndarray, ...]] = (),
    ) -> None:
        self.refit: Any = None
        self._by_name = {structure.name: structure for structure in structures}
        self._weights = tuple(weights)
        self._equal_sizes = tuple(equal_sizes)
        # By the last part of the path of each maker.
        self._by_ending: dict[str, list[tuple[str, Structure]]] = {}
        for structure in self:
            for maker in dict.fromkeys((structure.name, *structure.makers)):
                ending = maker.rpartition("/")[2]
                self._by_ending.setdefault(ending, []).append(
                    (maker, structure)
                )

    def __iter__(self) -> Iterator[Structure]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, key: object) -> bool:
        return len(self._find(key)) == 1

    def __getitem__(self, key: "str | Structure") -> Structure:
        found = self._find(key)
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownStructureError(
                f"`{key}` fits several structures: "
                f"{quoted(structure.name for structure in found)}. Give a "
                "full name."
            )
        key = key.name if isinstance(key, Structure) else key
        near = difflib.get_close_matches(str(key), self.keys(), n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise UnknownStructureError(
            f"`{key}` is no structure of this model.{hint} Its structures "
            f"are {quoted(self.keys())}."
        )

    def _find(self, key):
        if isinstance(key, Structure):
            key = key.name
        try:
            hash(key)
        except TypeError as error:
            raise TypeError(
                "A structure is found by its name, a string. Received: "
                f"{key!r} (of type {type(key).__name__})"
            ) from error
        if key in self._by_name:
            return [self._by_name[key]]
        fitting = {
            structure.name: structure
            for maker, structure in self._by_ending.get(
                str(key).rpartition("/")[2], ()
            )
            if maker == key or maker.endswith(f"/{key}")
        }
        return list(fitting.values())

    def keys(self) -> KeysView[str]:
        """The names of the structures."""
        return self._by_name.keys()

    def values(self) -> ValuesView[Structure]:
        """The structures."""
        return self._by_name.values()

    def items(self) -> ItemsView[str, Structure]:
        """Pairs of name and structure."""
        return self._by_name.items()

    @property
    def free(self) -> tuple[Structure, ...]:
        """Tuple of the structures that are not pinned."""
        return tuple(structure for structure in self if not structure.pinned)

    def pinning(self, reasons: Mapping[str, str]) -> "Structures":
        """The same structures, some of them pinned.

        Args:
            reasons: Dict from the full name of a structure to a string.
        """
        structures = [
            structure
            if structure.pinned or structure.name not in reasons
            else dataclasses.replace(structure, pinned=reasons[structure.name])
            for structure in self
        ]
        return Structures(structures, self._weights, self._equal_sizes)

    def staying(self, keep: Mapping | None = None) -> dict[str, np.ndarray]:
        """What surgery leaves.

        Args:
            keep: Optional dict from the name of a structure to the indices
                of what stays of it. Of the others, what is not removed stays.

        Returns:
            Dict from name to boolean array: all of a pinned structure, at
            least one component of any other, and more where axes have to stay
            of one size.
        """
        keep = {
            name: kept
            for name, kept in (keep or {}).items()
            if kept is not None
        }
        asked = [
            structure
            for structure in self
            if not structure.pinned and structure.name not in keep
        ]
        removed = removed_of(asked)
        bare = norms_of(
            [structure for structure in asked if removed[structure.name].all()]
        )
        for name, norms in bare.items():
            removed[name][np.argmax(norms)] = False
        stays = {}
        for structure in self:
            if structure.name in removed:
                stays[structure.name] = ~removed[structure.name]
                continue
            stays[structure.name] = np.full(
                structure.size, bool(structure.pinned)
            )
            if not structure.pinned:
                stays[structure.name][np.asarray(keep[structure.name], int)] = (
                    True
                )
        if not self._equal_sizes:
            return stays
        joined = np.concatenate(list(stays.values()))
        self._equalize(joined)
        ends = np.cumsum([structure.size for structure in self])[:-1]
        return dict(zip(stays, np.split(joined, ends)))

    def _equalize(self, stays):
        """Lets components stay until axes that have to be are of one size."""
        waiting = collections.deque(range(len(self._equal_sizes)))
        while waiting:
            axes = self._equal_sizes[waiting.popleft()]
            sizes = [((axis < 0) | stays[axis]).sum() for axis in axes]
            for axis, size in zip(axes, sizes):
                added = _first_gone(axis, stays, max(sizes) - size)
                stays[added] = True
                waiting += {
                    place
                    for component in added.tolist()
                    for place in self._places_of_equal_size[component]
                }

    @functools.cached_property
    def _places_of_equal_size(self):
        """Dict from a component to where it is in axes of one size."""
        places = collections.defaultdict(set)
        for i, axes in enumerate(self._equal_sizes):
            for component in np.unique(np.concatenate(axes)).tolist():
                places[component].add(i)
        return places

    def counts(
        self, shrunk: bool = False, keep: Mapping | None = None
    ) -> Counts:
        """Counts units, weights and multiply-adds.

        Args:
            shrunk: Boolean, whether to count what `shrink` would leave.
                Defaults to `False`: the model as it is.
            keep: Optional dict from the name of a structure to the indices
                of what stays of it: counts what `shrink` with it would leave.

        Returns:
            A `Counts`.
        """
        stays = self.staying(keep) if shrunk or keep is not None else {}
        return count(self, self._weights, stays)

    def _share(self, structure):
        """The part of the model's weights that one structure owns."""
        owned = 0
        for variable, parts in by_variable(structure.slices, lambda _: True):
            outside = math.prod(
                1 - part.index.size / variable.shape[part.axis]
                for part in parts
            )
            owned += (1 - outside) * math.prod(variable.shape)
        return owned / self._total if self._total else 0.0

    @functools.cached_property
    def _total(self):
        """Integer, all the weights of the model."""
        return sum(math.prod(entry.variable.shape) for entry in self._weights)

    def __str__(self) -> str:
        table = Table(box=None, pad_edge=False)
        for title in "structure size alive weights consumers pinned".split():
            table.add_column(
                title,
                justify="right" if title in _NUMBERS else "left",
                no_wrap=True,
            )
        removed = removed_of(self)
        for structure in self:
            name = " = ".join(structure.makers or (structure.name,))
            table.add_row(
                name,
                str(structure.size),
                str(structure.size - int(removed[structure.name].sum())),
                f"{self._share(structure):.1%}",
                ", ".join(structure.consumers),
                structure.pinned or "",
            )
        # Wide enough that no reason is broken: a line can be searched for.
        text = io.StringIO()
        Console(file=text, width=10_000, markup=False).print(table)
        lines = text.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines)

    def __repr__(self):
        return f"<Structures: {', '.join(self.keys()) or 'none'}>"


def _first_gone(axis, stays, count):
    """The first components along an axis that do not stay.

    Args:
        axis: Integer array of components, -1 for none.
        stays: Boolean array.
        count: Integer, how many positions they are to have at least.

    Returns:
        Integer array.
    """
    gone, times = np.unique(
        axis[(axis >= 0) & ~stays[axis]], return_counts=True
    )
    before = np.cumsum(times) - times
    return gone[before < count]


def removed_of(structures):
    """Which components of some structures are removed.

    Reads each variable once, however many of the structures lie in it.

    Returns:
        Dict from name to the boolean array that `Structure.removed` gives.
    """
    structures = list(structures)
    nonzero = {
        structure.name: np.zeros(structure.size, bool)
        for structure in structures
    }
    for variable, owned in _owned(structures, Structure.decides):
        value = to_numpy(variable) != 0
        along = {}
        for structure, parts in owned:
            for part in parts:
                if part.axis not in along:
                    along[part.axis] = value.any(axis=part.other_axes)
                found = part.per_component(along[part.axis])
                nonzero[structure.name] |= found.any(axis=1)
    return {
        structure.name: ~nonzero[structure.name]
        if any(part.counted for part in structure.slices)
        else np.zeros(structure.size, bool)
        for structure in structures
    }


def norms_of(structures, overlap="count_twice"):
    """The group norms of some structures.

    Reads each variable once, however many of the structures lie in it.

    Returns:
        Dict from name to the float array that `Structure.norms` gives.
    """
    check_overlap(overlap)
    structures = list(structures)
    squares = {
        structure.name: np.zeros(structure.size) for structure in structures
    }
    for variable, owned in _owned(structures, lambda _, part: part.counted):
        value = np.square(to_numpy(variable), dtype="float32")
        along = {}
        for structure, parts in owned:
            for i, part in enumerate(parts):
                if overlap == "once" and i:
                    repeated = already_owned(part, parts[:i])
                    counted = np.where(repeated, 0, value).sum(
                        axis=part.other_axes, dtype="float64"
                    )
                else:
                    if part.axis not in along:
                        along[part.axis] = value.sum(
                            axis=part.other_axes, dtype="float64"
                        )
                    counted = along[part.axis]
                squares[structure.name] += part.per_component(counted).sum(
                    axis=1
                )
    return {name: np.sqrt(total) for name, total in squares.items()}


def _owned(structures, chosen):
    """Where structures lie, by variable.

    Returns:
        List of pairs of a variable and a list of pairs `(structure, slices)`.
    """
    owned = {}
    for structure in structures:
        for variable, parts in by_variable(
            structure.slices, lambda part: chosen(structure, part)
        ):
            owned.setdefault(id(variable), (variable, []))[1].append(
                (structure, parts)
            )
    return list(owned.values())


def by_variable(slices, chosen=lambda part: part.counted):
    """Groups the chosen slices by their variable.

    Returns:
        List of pairs `(variable, slices)`, in order of first appearance.
    """
    groups = {}
    for part in slices:
        if chosen(part):
            groups.setdefault(id(part.variable), []).append(part)
    return [(parts[0].variable, parts) for parts in groups.values()]


def frozen(structures, model):
    """What a training of the model does not move.

    Args:
        structures: Iterable of `Structure`.
        model: The `keras.Model` they are of.

    Returns:
        Dict from the name of a structure to the path of its first weight or
        bias that is not trainable, of those that have one.
    """
    trained = {id(v) for v in model.trainable_variables}
    found = {}
    for structure in structures:
        for part in structure.slices:
            is_weight = part.role in ("weight", "bias")
            if is_weight and id(part.variable) not in trained:
                found.setdefault(structure.name, part.variable.path)
    return found


def to_numpy(variable):
    """The value of a variable as a float array that NumPy can compute with."""
    value = keras.ops.convert_to_numpy(variable)
    return value if value.dtype.kind == "f" else value.astype("float32")


def check_finite(structures):
    """Raises if a weight of a structure is NaN or infinite."""
    slices = [part for structure in structures for part in structure.slices]
    for variable, _ in by_variable(slices, lambda part: part.zeroed):
        if not np.isfinite(to_numpy(variable)).all():
            owner = next(
                structure.name
                for structure in structures
                for part in structure.slices
                if part.variable is variable
            )
            raise ValueError(
                f"`{owner}`: the variable `{variable.path}` holds NaN or "
                "infinite values, so that group norms mean nothing. Load "
                "weights from before the training diverged."
            )


def is_finite(structures):
    """Whether no weight of a structure is NaN or infinite."""
    try:
        check_finite(structures)
    except ValueError:
        return False
    return True


def check_overlap(overlap):
    """Raises unless `overlap` is one of the two ways to count."""
    if overlap not in OVERLAPS:
        raise ValueError(
            f"`overlap` must be {quoted(OVERLAPS)}. Received: {overlap!r}"
        )


def quoted(names):
    """Names for a message: `a`, `b`."""
    return ", ".join(f"`{name}`" for name in names)
