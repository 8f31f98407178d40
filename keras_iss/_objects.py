"""New layers from configs, with the functions and classes of the old ones.

Keras writes a function or a class of one's own into a config by its name, and
a lambda as its code. Several may have one name, and code finds other globals
than it had. Here the real objects go over: for the time of the construction
each function has a stand-in with a name that no other has, and each class is
found by a name that leads to it alone.
"""

import contextlib
import inspect
import itertools
import types

import keras

from keras_iss._keras.layers import names_no_config_tells

_numbers = itertools.count()


def remade(old, edit=lambda config, stand_ins: config):
    """A new object of the class of another one, from its config.

    Args:
        old: A layer, or anything else with a `get_config`.
        edit: Function that takes the config and the `StandIns` it is read
            with, and gives the config to use.

    Returns:
        The object, not built if it is a layer. The functions in it are those
        of the old one.
    """
    stand_ins = StandIns()
    proxy = stand_ins.proxy(old)
    config = edit(stand_ins.replaced(type(old).get_config(proxy)), stand_ins)
    with stand_ins.scope():
        new = type(old).from_config(config)
    stand_ins.put_real_ones_into(new)
    return new


def unbuilt(config):
    """A config whose inner layers are built when they are called.

    Else they are built at once, for the inputs that the old ones had.
    """
    if isinstance(config, dict):
        return {
            key: unbuilt(value)
            for key, value in config.items()
            if key != "build_config"
        }
    if isinstance(config, (list, tuple)):
        return type(config)(map(unbuilt, config))
    return config


class StandIns:
    """Named stand-ins for the functions and classes of one object."""

    def __init__(self):
        self._by_name = {}
        self._real = {}
        self._proxies = {}

    @contextlib.contextmanager
    def scope(self):
        """Configs that are read inside find the stand-ins and the classes."""
        with keras.saving.custom_object_scope(self._by_name):
            yield

    def serialized(self, layer):
        """A config with its class, to be read in the scope of these."""
        return keras.saving.serialize_keras_object(self.proxy(layer))

    def entry(self, made):
        """What stands in a config for an object that is made already."""
        name = f"object_{next(_numbers)}"
        self._by_name[name] = made
        return {
            "module": "builtins",
            "class_name": "function",
            "config": name,
            "registered_name": name,
        }

    def proxy(self, value):
        """The same object, its functions replaced by their stand-ins.

        A shallow copy that can tell its config; nothing else is to be done
        with it. A model with a graph stays itself.
        """
        if id(value) not in self._proxies:
            self._make_proxy(value)
        return self._proxies[id(value)][0]

    def _make_proxy(self, value):
        def remember(proxy):
            # The value is kept, so that its id stays its own.
            self._proxies[id(value)] = (proxy, value)
            return proxy

        if is_function(value):
            remember(self._stand_in(value))
        elif isinstance(value, list):
            remember([]).extend(map(self.proxy, value))
        elif type(value) is tuple:
            remember(tuple(map(self.proxy, value)))
        elif isinstance(value, dict):
            copy = remember({})
            copy.update((key, self.proxy(part)) for key, part in value.items())
        elif not _tells_config(value) or _has_graph(value):
            remember(value)
        else:
            copy = remember(object.__new__(self._class(type(value))))
            hidden = _hidden_names(value)
            vars(copy).update(
                (name, part if name in hidden else self.proxy(part))
                for name, part in vars(value).items()
            )

    def _stand_in(self, function):
        if id(function) not in self._real:

            def stand_in(*args, **kwargs):
                return function(*args, **kwargs)

            name = f"function_{next(_numbers)}"
            stand_in.__name__ = stand_in.__qualname__ = name
            with contextlib.suppress(TypeError, ValueError):
                stand_in.__signature__ = inspect.signature(function)
            self._by_name[name] = stand_in
            self._real[id(function)] = (stand_in, function)
        return self._real[id(function)][0]

    def _class(self, cls):
        """The class, or where its name is another's too, one like it."""
        if not is_own(cls):
            return cls
        name = keras.saving.get_registered_name(cls)
        if self._by_name.setdefault(name, cls) is cls:
            return cls
        name = f"{cls.__name__}_{next(_numbers)}"
        self._by_name[name] = cls
        return type(name, (cls,), {"__module__": cls.__module__})

    def _real_by_id(self):
        """Dict from the `id` of each stand-in to what it stands for."""
        return {
            id(stand_in): function for stand_in, function in self._real.values()
        }

    def replaced(self, config):
        """The config, with real functions that stand in it by themselves."""
        real = self._real_by_id()
        return _mapped(config, lambda x: real.get(id(x), x))

    def put_real_ones_into(self, new):
        """Puts functions where their stand-ins are, in all that is held."""
        real = self._real_by_id()
        # Keras leaves some functions as what a config says of them, such as
        # the mask of a `Lambda`.
        real.update(
            (stand_in.__name__, function)
            for stand_in, function in self._real.values()
        )
        if real:
            _swap(new, real, set())


def is_own(value):
    """Whether a class is neither of Keras nor of this package."""
    module = getattr(value, "__module__", None) or ""
    known = ("keras", "keras_iss", "builtins", "numpy")
    return module.split(".")[0] not in known


def is_function(value):
    """Whether a value is a function, or the like, that Keras does not know.

    Keras writes its own functions by their names, and finds them.
    """
    if isinstance(value, type) or not callable(value) or _tells_config(value):
        return False
    if hasattr(type(value), "state_dict"):
        # A module of PyTorch, with weights of its own.
        return False
    plain = isinstance(value, (types.FunctionType, types.BuiltinFunctionType))
    known = plain and (getattr(value, "__module__", None) or "").startswith(
        "keras."
    )
    return not known


def _tells_config(value):
    return hasattr(type(value), "get_config") and hasattr(value, "__dict__")


def _has_graph(value):
    return isinstance(value, (keras.Function, keras.Sequential))


def _hidden_names(value):
    """Names of what Keras keeps in a layer, which no config tells of."""
    if not isinstance(value, keras.layers.Layer):
        return ()
    return names_no_config_tells(value)


def _mapped(value, function):
    """A nested value with a function applied to its leaves."""
    if isinstance(value, dict):
        return {key: _mapped(part, function) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(part, function) for part in value)
    return function(value)


def _told_function(value):
    """The name of the function that a config stands for, or `None`."""
    if isinstance(value, dict) and value.get("class_name") == "function":
        name = value.get("config")
        return name if isinstance(name, str) else None
    return None


def _swap(holder, real, seen):
    """Replaces what is held in attributes, lists and dicts.

    Args:
        holder: A layer, a list or a dict.
        real: Dict to the real functions, from the `id`s of their stand-ins
            and from their names.
        seen: Set of the `id`s of what has been looked at.
    """
    if id(holder) in seen:
        return
    seen.add(id(holder))
    if isinstance(holder, dict):
        items, put = list(holder.items()), holder.__setitem__
    elif isinstance(holder, list):
        items, put = list(enumerate(holder)), holder.__setitem__
    elif _tells_config(holder):
        items, put = list(vars(holder).items()), vars(holder).__setitem__
    else:
        return
    for name, value in items:
        if id(value) in real:
            put(name, real[id(value)])
        elif _told_function(value) in real:
            put(name, real[_told_function(value)])
        elif type(value) is tuple and any(id(part) in real for part in value):
            put(name, tuple(real.get(id(part), part) for part in value))
        else:
            _swap(value, real, seen)
