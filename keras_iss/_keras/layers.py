"""What Keras layers and models hold."""

import functools

import keras


def inner_layers(layer, include_self=True):
    """List of a layer and all the layers inside it, at any depth."""
    return list(layer._flatten_layers(include_self=include_self))


def attributes(layer):
    """Dict of everything that an object holds, by name.

    PyTorch keeps apart the modules that a module holds, and Keras' layers are
    modules there.
    """
    held = vars(layer)
    modules = held.get("_modules")
    if isinstance(modules, dict) and isinstance(layer, keras.layers.Layer):
        held = {**held, **modules}
    return held


_LATE_NAMES = (
    "_already_warned",
    "torch_params",
    # Of TensorFlow, on a layer that holds variables.
    "_self_unconditional_checkpoint_dependencies",
    "_self_unconditional_dependency_names",
    "_self_unconditional_deferred_dependencies",
    "_self_name_based_restores",
    "_self_saveable_object_factories",
    "_self_update_uid",
)

_LATE_NAMES_OF_MODELS = (
    "_jax_state",
    "_layers",
    "history",
    "layers",
    "stop_evaluating",
    "stop_predicting",
)


def internal_names(layer):
    """Names of what Keras and its backend keep in a layer for themselves."""
    if isinstance(layer, keras.Model):
        return _names_in_models()
    return _names_in_layers()


@functools.cache
def _names_in_layers():
    layer = keras.layers.Layer()
    # Some come with the first state.
    layer.a_variable = layer.add_weight(shape=(), name="a_variable")
    layer.a_layer = keras.layers.Identity()
    layer.build(())
    layer.a_variable.assign(1.0)
    names = {*attributes(layer), *_LATE_NAMES}
    return frozenset(names - {"a_variable", "a_layer"})


@functools.cache
def _names_in_models():
    x = keras.Input((1,))
    functional = keras.Model(x, keras.layers.Identity()(x))
    sequential = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    names = {*_names_in_layers(), *_LATE_NAMES_OF_MODELS}
    for model in (functional, sequential):
        model.compile("sgd", "mse")
        names.update(attributes(model))
    return frozenset(names)


def names_no_config_tells(layer):
    """Names of what Keras keeps in a layer and never writes to its config."""
    return internal_names(layer) - {"activity_regularizer", "_modules"}


def replace_layer(holder, name, layer):
    """Puts another layer into an attribute, also of a layer that is built."""
    holder._tracker.untrack(attributes(holder)[name])
    setattr(holder, name, layer)


def own_variables(layer):
    """The variables of a layer that belong to no layer inside it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def bare_layer(like):
    """A layer of the same class on which no constructor of it has run."""
    cls = type(like)
    layer = cls.__new__(cls)
    keras.layers.Layer.__init__(
        layer,
        name=like.name,
        trainable=like.trainable,
        dtype=like.dtype_policy,
        autocast=like.autocast,
    )
    return layer


def copied_variable(variable):
    """A variable of the same value and settings."""
    new = keras.Variable(
        keras.ops.copy(variable.value),
        shape=variable.shape,
        dtype=variable.dtype,
        trainable=variable.trainable,
        name=variable.name,
    )
    new.regularizer = variable.regularizer
    new.constraint = variable.constraint
    return new


def copied_seed_generator(generator):
    """A generator of the same seed that goes on where the other one is."""
    new = keras.random.SeedGenerator(
        generator._initial_seed, name=generator.name
    )
    new.state.assign(generator.state.value)
    return new


def finish_building(old, new):
    """Takes a layer for built, with the shapes that another was built for."""
    new._build_shapes_dict = old._build_shapes_dict
    new.built = True
    new._post_build()
    new._lock_state()


def name_scope_of(layer):
    """The scope in which the variables of a layer get their paths."""
    return layer._open_name_scope()


def build_shapes(layer):
    """Dict of the shapes that a layer was built with, by argument."""
    return dict(getattr(layer, "_build_shapes_dict", None) or {})


def set_trainable_alone(layer, trainable):
    """Sets whether a layer trains, and leaves the layers inside it."""
    layer._trainable = trainable


def track_variable(layer, variable):
    """Makes a variable one of the weights of a layer."""
    layer._track_variable(variable)


def seed_states(layer):
    """The variables of all generators of random numbers in a layer."""
    return [
        generator.state
        for inner in inner_layers(layer)
        for generator in inner._seed_generators
        if isinstance(generator, keras.random.SeedGenerator)
    ]


def state_of(model):
    """The weights of a model, and the seeds; not those of its metrics."""
    return [*model.weights, *seed_states(model)]


def takes_mask(operation):
    """Whether an operation is told the mask of what it is called on."""
    return bool(getattr(operation, "_call_has_mask_arg", False))


def takes_training(operation):
    """Whether an operation is told if it is called in training."""
    return bool(getattr(operation, "_call_has_training_arg", False))


def carried_states(layer):
    """What a stateful layer carries on, which is no variable of a model."""
    return keras.tree.flatten(getattr(layer, "states", None) or [])
