"""Copies of models that share their variables.

A copy can be changed, and called, without a trace on the model: what another
thread computes with the model meanwhile, and what an error leaves of it, is
as if nothing had been done.
"""

import collections
import functools
import types

import keras
from keras.src.ops.node import Node
from keras.src.ops.operation import Operation
from keras.src.random.seed_generator import SeedGenerator
from keras.src.utils.tracking import Tracker

# Of what Keras defines, only these can hold a layer that a call runs.
_OF_KERAS = (Operation, Node, Tracker, SeedGenerator, keras.Metric)
# Nothing that these packages define is looked into.
_FOREIGN = (
    "builtins",
    "jax",
    "keras",
    "numpy",
    "tensorflow",
    "torch",
    "wrapt",
)
# Graphs that a layer is part of elsewhere: a copy is part of none.
_GRAPHS = ("_inbound_nodes", "_outbound_nodes")
_SEQUENCES = (list, tuple, set, frozenset, collections.deque)
# An `OrderedDict` keeps its order beside what a `dict` keeps.
_FILLED_LATER = (collections.OrderedDict, dict, list, set, collections.deque)
_PROXIES = ("_DictWrapper", "_TupleWrapper")
_MUTABLE = (list, dict, set)
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type)


def copy_sharing_variables(model, replaced=None, unwrapped=lambda x: None):
    """A copy of a model and all its layers that shares their variables.

    Layers are copied wherever the model holds them: in attributes, lists,
    dicts, objects of the user's own, closures, bound methods and the graph of
    a Functional model. What leads to no layer is shared, but for the lists,
    dicts and sets that a layer holds itself.

    Args:
        model: A built `keras.Model`.
        replaced: Dict from the `id` of a variable to another variable that
            stands in its place in the copy.
        unwrapped: Function from an object to the function that it wraps, or
            `None`: a copy holds that function, copied, instead.

    Returns:
        The copy, of the same class.
    """
    return _Copier(replaced or {}, unwrapped).copy_of(model)


class _Copier:
    def __init__(self, replaced, unwrapped):
        self._replaced = replaced
        self._unwrap = unwrapped
        self._wrapped = {}

    def copy_of(self, model):
        # Held until the end: what is known of an object is known by its id.
        self._children = self._children_of_all(model)
        self._copied = self._to_copy(self._children)
        self._copies = {}
        return self._copy(model)

    def _unwrapped(self, x):
        if id(x) not in self._wrapped:
            # TensorFlow puts what a model holds into such a thing.
            proxy = type(x).__name__ in _PROXIES
            self._wrapped[id(x)] = x.__wrapped__ if proxy else self._unwrap(x)
        return self._wrapped[id(x)]

    def _children_of_all(self, root):
        """Dict from the id of each object to it and what it holds."""
        found, waiting = {}, [root]
        while waiting:
            x = waiting.pop()
            if isinstance(x, _ATOMS) or id(x) in found:
                continue
            parts = list(self._parts(x))
            found[id(x)] = x, parts
            waiting += parts
        return found

    def _to_copy(self, children):
        """Ids of the layers, and of all that leads to one."""
        parents = {}
        for key, (_, parts) in children.items():
            for part in parts:
                parents.setdefault(id(part), []).append(key)
        waiting = [key for key in children if key in self._replaced]
        for key, (x, parts) in children.items():
            if isinstance(x, keras.Layer):
                # With what a call may put into its lists, losses among it.
                waiting.append(key)
                waiting += [id(y) for y in parts if type(y) in _MUTABLE]
        reached = set()
        while waiting:
            key = waiting.pop()
            if key not in reached:
                reached.add(key)
                waiting += parents.get(key, ())
        return reached

    def _parts(self, x):
        wrapped = self._unwrapped(x)
        if wrapped is not None:
            return [wrapped]
        if _is(x, dict):
            items = [part for item in list(x.items()) for part in item]
            return [*items, *_attributes(x).values()]
        if _is(x, _SEQUENCES):
            return [*x, *_attributes(x).values()]
        if isinstance(x, types.FunctionType):
            return [
                *(x.__closure__ or ()),
                *(x.__defaults__ or ()),
                *(x.__kwdefaults__ or {}).values(),
                *vars(x).values(),
            ]
        if isinstance(x, types.CellType):
            return _contents(x)
        if isinstance(x, types.MethodType):
            return [x.__self__, x.__func__]
        if isinstance(x, functools.partial):
            return [x.func, *x.args, *x.keywords.values()]
        if _is_looked_into(x):
            attributes = _attributes(x)
            return [v for k, v in attributes.items() if k not in _GRAPHS]
        return []

    def _copy(self, x):
        key = id(x)
        if key in self._replaced:
            return self._replaced[key]
        if isinstance(x, _ATOMS) or key not in self._copied:
            return x
        if key not in self._copies:
            self._copies[key] = self._new(x)
        return self._copies[key]

    def _new(self, x):
        wrapped = self._unwrapped(x)
        if wrapped is not None:
            return self._copy(wrapped)
        if _is(x, tuple):
            return self._new_tuple(x)
        if _is(x, frozenset):
            return type(x)(map(self._copy, x))
        if isinstance(x, types.FunctionType):
            return self._new_function(x)
        if isinstance(x, types.MethodType):
            return types.MethodType(
                self._copy(x.__func__), self._copy(x.__self__)
            )
        if isinstance(x, functools.partial):
            keywords = {k: self._copy(v) for k, v in x.keywords.items()}
            return type(x)(
                self._copy(x.func), *map(self._copy, x.args), **keywords
            )
        if isinstance(x, types.CellType):
            new = self._copies[id(x)] = types.CellType()
            new.cell_contents = self._copy(x.cell_contents)
            return new
        return self._new_object(x)

    def _new_tuple(self, x):
        parts = map(self._copy, x)
        new = tuple.__new__(type(x), parts)
        if type(x) is not tuple and hasattr(x, "__dict__"):
            self._copy_attributes(x, new)
        return new

    def _new_function(self, x):
        # Known before what it closes over, which may hold the function.
        closure = x.__closure__ and tuple(map(self._copy, x.__closure__))
        if id(x) in self._copies:
            return self._copies[id(x)]
        new = types.FunctionType(
            x.__code__, x.__globals__, x.__name__, None, closure
        )
        self._copies[id(x)] = new
        new.__defaults__ = x.__defaults__ and tuple(
            map(self._copy, x.__defaults__)
        )
        new.__kwdefaults__ = x.__kwdefaults__ and {
            k: self._copy(v) for k, v in x.__kwdefaults__.items()
        }
        new.__qualname__, new.__module__ = x.__qualname__, x.__module__
        new.__doc__, new.__annotations__ = x.__doc__, x.__annotations__
        new.__dict__.update({k: self._copy(v) for k, v in vars(x).items()})
        return new

    def _new_object(self, x):
        base = next((b for b in _FILLED_LATER if _is(x, b)), object)
        new = self._copies[id(x)] = base.__new__(type(x))
        self._copy_attributes(x, new)
        if _is(x, collections.defaultdict):
            new.default_factory = self._copy(x.default_factory)
        # By the plain type's methods: those of Keras' own lists track.
        if _is(x, dict):
            for k, v in list(x.items()):
                base.__setitem__(new, self._copy(k), self._copy(v))
        elif base is set:
            set.update(new, map(self._copy, list(x)))
        elif base is not object:
            base.extend(new, map(self._copy, list(x)))
        return new

    def _copy_attributes(self, x, new):
        held = getattr(new, "__dict__", None)
        for name, value in _attributes(x).items():
            value = (
                []
                if name in _GRAPHS and isinstance(x, keras.Layer)
                else self._copy(value)
            )
            if held is not None and name in vars(x):
                # Past `__setattr__`: Keras would track it anew.
                held[name] = value
            else:
                object.__setattr__(new, name, value)


def _is(x, kinds):
    # By the type itself: TensorFlow wraps dicts in what passes for one.
    return issubclass(type(x), kinds)


def _attributes(x):
    """Dict of what an object holds in its `__dict__` and its slots."""
    attributes = {}
    for kind in type(x).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name.startswith("__"):
                continue
            if isinstance(vars(kind).get(name), types.MemberDescriptorType):
                with_value = getattr(x, name, _ATOMS)
                if with_value is not _ATOMS:
                    attributes[name] = with_value
    held = getattr(x, "__dict__", None)
    return attributes | dict(held) if isinstance(held, dict) else attributes


def _contents(cell):
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _is_looked_into(x):
    if isinstance(x, _OF_KERAS):
        return True
    if isinstance(x, types.ModuleType):
        return False
    foreign = [
        kind
        for kind in type(x).__mro__[:-1]
        if kind.__module__.split(".")[0] in _FOREIGN
    ]
    return not foreign
