"""What a rule sees of the layer that it is for: its `call`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_iss.tracing.called_operation import Axes, CalledOperation
from keras_iss.tracing.config_entries import ConfigEntries
from keras_iss.tracing.conflicts import Conflict
from keras_iss.tracing.labels import FIXED, Axis, Traced
from keras_iss.tracing.statements import Child, Setting

if TYPE_CHECKING:
    from keras_iss.tracing.nodes import Node
    from keras_iss.tracing.trace import Trace


class Call(CalledOperation):
    """One call of a layer or operation, as its rule sees it.

    A rule gets one as its first argument, and makes none itself.

    Attributes:
        operation: The `keras.layers.Layer` or `keras.Operation`.
        name: String, its name with the path to it.
        args: Tuple of its arguments, `Traced` in place of tensors.
        kwargs: Dict of its keyword arguments.
        node: The `Node` of the graph, or `None` inside another layer.
        is_first: Boolean, whether the operation stands in a graph and was
            not called before.
        consumed: List of lists of `Axis`, what each statement of its rule
            says that the output holds no more.

    Examples:
        >>> import keras, keras_iss
        >>> class Offset(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.offset = self.add_weight(shape=(shape[-1],))
        ...     def call(self, x):
        ...         return x + self.offset
        >>> @keras_iss.register_rule(Offset)
        ... def offset(call: keras_iss.tracing.Call, x):
        ...     call.bias(call.operation.offset, {0: x.axis(-1)})
        ...     return call.output(dict(enumerate(x.axes)))
    """

    def __init__(
        self,
        trace: "Trace",
        operation: keras.Operation,
        name: str,
        node: "Node | None" = None,
        config: ConfigEntries | None = None,
    ) -> None:
        super().__init__(trace, operation, name, node)
        self.is_first = True
        self.consumed: list[list[Axis]] = []
        self._statements = trace.statements
        self._config = config or ConfigEntries(operation)

    def units(
        self,
        size: int,
        kind: str,
        zero: bool = False,
        key: str | tuple = "units",
    ) -> Axis:
        """Makes units.

        Args:
            size: Integer, how many.
            kind: `"recurrent"`, `"dense"` or `"embedding"`: what `include`
                must name for the units to be a structure.
            zero: Boolean, whether the layer's output is exactly zero for a
                unit whose weights and biases are all zero.
            key: String or tuple, where the layer's config holds `size`.

        Returns:
            An `Axis` of `size` labels.
        """
        labels = self._statements.units(self, size, kind, key)
        if kind == "recurrent":
            for variable in self.operation.weights:
                self._statements.recurrent.add(id(variable))
        axis = Axis(labels, np.full(size, zero))
        self.set_size(key, axis)
        return axis

    def unbound(self, size: int) -> Axis:
        """An `Axis` that takes the units of whatever it is tied to.

        For tensors that the layer makes to measure, such as initial states
        of zeros, and for variables that are read in several ways.

        Args:
            size: Integer, how many positions it has.

        Returns:
            An `Axis` of `size` labels, all zero when removed.
        """
        labels = self._statements.unbound(self.operation, size)
        return Axis(labels, np.full(size, True))

    def weight(
        self, variable: keras.Variable | None, axes: Axes, uses: int = 1
    ) -> None:
        """Says which units the axes of a weight matrix divide.

        Args:
            variable: `keras.Variable`, or `None` where the layer has none.
            axes: Dict from an axis of the variable to an `Axis`, or to
                `None` where its positions must stay. Axes that are left out
                must stay too.
            uses: Integer, how often each element is multiplied in one time
                step; 0 where rows are only looked up.

        Raises:
            ValueError: if an `Axis` has not the size of the variable's axis.
        """
        multiplied = self._statements.multiplied
        multiplied[id(variable)] = multiplied.get(id(variable), 0) + uses
        self._consume(axes)
        self._use(variable, axes, "weight")

    def bias(self, variable: keras.Variable | None, axes: Axes) -> None:
        """Like `weight`, for a bias, scale or offset: no part of the norm.

        Args:
            variable: `keras.Variable`, or `None` where the layer has none.
            axes: Dict from an axis of the variable to an `Axis` or `None`, as
                in `weight`.

        Raises:
            ValueError: if an `Axis` has not the size of the variable's axis.
        """
        self._use(variable, axes, "bias")

    def state(self, variable: keras.Variable | None, axes: Axes) -> None:
        """Like `weight`, for a state that is kept between calls.

        Args:
            variable: `keras.Variable`, or `None` where the layer has none.
            axes: Dict from an axis of the variable to an `Axis` or `None`, as
                in `weight`.

        Raises:
            ValueError: if an `Axis` has not the size of the variable's axis.
        """
        self._use(variable, axes, "state")

    def statistic(self, variable: keras.Variable | None, axes: Axes) -> None:
        """Like `weight`, for a statistic: cut, but never zeroed.

        Args:
            variable: `keras.Variable`, or `None` where the layer has none.
            axes: Dict from an axis of the variable to an `Axis` or `None`, as
                in `weight`.

        Raises:
            ValueError: if an `Axis` has not the size of the variable's axis.
        """
        self._use(variable, axes, "statistic")

    def _use(
        self, variable: keras.Variable | None, axes: Axes, role: str
    ) -> None:
        if variable is None:
            return
        axes = {i % len(variable.shape): axis for i, axis in axes.items()}
        for axis, size in enumerate(variable.shape):
            given = axes.get(axis)
            labels = (Axis.fixed(size) if given is None else given).labels
            if len(labels) != size:
                raise ValueError(
                    f"The rule of {self.title} gives {len(labels)} labels to "
                    f"axis {axis} of `{variable.path}`, of size {size}."
                )
            self._statements.use(
                variable,
                axis,
                labels,
                role,
                self.name,
                f"{self.title} uses `{variable.path}` for these units and "
                "for what must stay",
            )

    def _consume(self, tensors: Any) -> None:
        """Notes that the output need not hold the units of some axes."""
        found: list[Axis] = []
        for leaf in keras.tree.flatten(tensors):
            if isinstance(leaf, Axis):
                found.append(leaf)
            elif isinstance(leaf, Traced):
                found += [x for x in leaf.axes if x is not None]
        self.consumed.append(found)

    def tie(
        self,
        *axes: Axis | None,
        where: str = "joins it with an axis that must stay",
    ) -> Axis | None:
        """Says that axes must stay equal, position by position.

        Args:
            *axes: `Axis` objects of one length, or `None` for an axis that
                must stay.
            where: String, said of the operation where units meet an axis
                that must stay.

        Returns:
            An `Axis` with the common labels, or `None` if none has any. It is
            zero where all of them are.
        """
        labelled = [axis for axis in axes if axis is not None and axis.labelled]
        if not labelled:
            return None
        first = labelled[0]
        if len({len(axis) for axis in axes if axis is not None}) > 1:
            self._statements.pin(labelled, f"{self.title} stretches an axis")
            return None
        zero = first.zero
        for axis in axes:
            axis = Axis.fixed(len(first)) if axis is None else axis
            self._statements.labels.tie(
                first.labels, axis.labels, f"{self.title} {where}"
            )
            zero = zero & axis.zero
        common = np.where(
            first.labels == FIXED,
            np.max([axis.labels for axis in labelled], axis=0),
            first.labels,
        )
        return Axis(common, zero)

    def pin(self, tensors: Any, what: str) -> None:
        """Says that units must stay.

        Args:
            tensors: Nested structure of `Traced` and `Axis`.
            what: String, what the operation does with them:
                `"sorts the units"`.
        """
        self._consume(tensors)
        self._statements.pin(tensors, f"{self.title} {what}")

    def pin_all_but(
        self, tensor: Traced, dimensions: Iterable[int], what: str
    ) -> Traced:
        """Pins the labels of every dimension but the given ones.

        Args:
            tensor: `Traced`.
            dimensions: Integers, may be negative: those not to pin.
            what: String, what the operation does with the units, as in `pin`.

        Returns:
            The tensor without those labels.
        """
        keep = {i % len(tensor.shape) for i in dimensions}
        for i in tensor.labelled:
            if i not in keep:
                self.pin(tensor.axes[i], what)
        return tensor.replace(
            axes=[x if i in keep else None for i, x in enumerate(tensor.axes)]
        )

    def may_go(self, axis: Axis | None) -> bool:
        """Whether any unit along an axis may go, as far as is known yet.

        Args:
            axis: `Axis`, or `None`, along which nothing may go.

        Returns:
            Boolean.
        """
        return axis is not None and not (
            self._statements.labels.pinned(axis.labels).all()
        )

    def only_one(self, axes: list[Axis], what: str, size: int) -> Axis:
        """Says that units may go along one of several axes at most.

        Args:
            axes: List of `Axis` along which some may go, as far as is known
                yet. If no unit but those of one of them may go in the end,
                the model is walked once more, and `may_go` says so from the
                start.
            what: String, what the operation does to them, as in `pin`.
            size: Integer, the size of the axis that they come to.

        Returns:
            An `Axis` that stands for it until then.
        """
        self._consume(axes)
        labels = self._statements.labels.new(size)
        self._statements.conflicts.append(
            Conflict(
                [axis.labels for axis in axes], labels, f"{self.title} {what}"
            )
        )
        return Axis(labels, np.full(size, True))

    def contract(self, *axes: Axis | None) -> None:
        """Says that a product is summed over the units without weights.

        Args:
            *axes: The `Axis` (or `None`) of each factor. Removed units are
                missed by nobody where one of the factors is zero.
        """
        self._consume(axes)
        common = self.tie(
            *axes, where="sums products with an axis that must stay"
        )
        if common is None:
            return
        zero = np.any([axis.zero for axis in axes if axis is not None], axis=0)
        free = common.labels != FIXED
        self._statements.labels.pin(
            common.labels[free & ~zero],
            f"{self.title} sums over the units without weights, and they are "
            "not zero when removed",
        )
        self._statements.contracted.append(common.labels[free & zero])

    def set_size(self, key: str | tuple, axis: Axis | None) -> None:
        """Says that a config entry is the size of an axis.

        Args:
            key: String or tuple, a path into the layer's config.
            axis: `Axis` or `None`, which says nothing.
        """
        if axis is None:
            return
        operation, path = self._config.locate(key)
        if axis.labelled and not self._statements.can_resize(
            self, operation, path
        ):
            self.pin(
                axis,
                f"cannot be made with another `{path[-1]}`: its constructor "
                "and `get_config` would have to hand it on",
            )
        known = self._statements.sizes.setdefault((id(operation), path), axis)
        self.tie(known, axis, where="is called on an axis that must stay, too")
        if axis.labelled:
            self._add_setting(key, labels=axis.labels)

    def set_value(self, key: str | tuple, value: Any) -> None:
        """Says that a config entry must be given, as it was inferred.

        Args:
            key: String or tuple, a path into the layer's config.
            value: What the entry is to be.
        """
        self._add_setting(key, value=value)

    def _add_setting(self, key: str | tuple, **entry: Any) -> None:
        operation, path = self._config.locate(key)
        self._statements.settings.append(Setting(operation, path, **entry))

    def inner(
        self,
        layer: keras.layers.Layer,
        *args: Any,
        config: tuple | dict,
        name: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Traces a layer or cell whose config is part of this one's.

        Args:
            layer: The inner layer.
            *args: Its arguments, `Traced`.
            config: Where the entries of its config stand in this layer's:
                a tuple put before its keys, or a dict from its keys.
            name: String, what its units are called. Defaults to
                `"{name of this layer}/{name of the inner layer}"`.
            **kwargs: Its keyword arguments.

        Returns:
            What its rule returns; `None` if it has none.
        """
        self._consume((args, kwargs))
        call = Call(
            self._trace,
            layer,
            name or f"{self.name}/{layer.name}",
            config=ConfigEntries(self.operation, config, self._config),
        )
        return self._trace.apply(call, args, kwargs)

    def child(
        self,
        layer: keras.layers.Layer,
        path: tuple,
        *args: Any,
        **kwargs: Any,
    ) -> list[Traced] | None:
        """Traces a layer that this one wraps.

        Args:
            layer: The wrapped layer.
            path: Tuple of keys, where this layer's config holds it.
            *args: Its arguments, `Traced`.
            **kwargs: Its keyword arguments.

        Returns:
            Flat list of its outputs, `Traced`; `None` if it has no rule.
        """
        self._consume((args, kwargs))
        self._statements.children.append(Child(self.operation, path, layer))
        call = Call(self._trace, layer, f"{self.name}/{layer.name}")
        outputs = self._trace.apply(call, args, kwargs)
        return None if outputs is None else keras.tree.flatten(outputs)

    def same_size(self, *axes: Axis) -> None:
        """Says that axes must stay of one size, whichever units go.

        None becomes smaller than what must stay of another.

        Args:
            *axes: `Axis` objects.
        """
        self._statements.equal_sizes.append(tuple(axis.labels for axis in axes))

    def at_least(self, axis: Axis, size: int) -> None:
        """Says that an axis must keep a number of positions.

        Args:
            axis: `Axis`.
            size: Integer, how many have to stay if there are as many.
        """
        self.same_size(axis, Axis.fixed(min(size, len(axis))))
