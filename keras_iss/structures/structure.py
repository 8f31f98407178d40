"""All the components of one layer axis."""

import dataclasses

import numpy as np

from keras_iss.structures.slices import Slice
from keras_iss.structures.values import norms_of, removed_of


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
