"""Layers, functions and classes of one's own."""

from tests.fuzz.connections.registry import connection


@connection(3)
def function_in_a_lambda(g):
    x = g.sequence()
    text = g.choice(
        (
            "doubled",
            "shifted",
            "over_units",
            "scaled_by(0.5)",
            "scaled_by(-1.5)",
            "Scaling(-0.5)",
            "Scaling(2.0).method",
            "by_a_global",
            "lambda x: x * FACTOR",
            "lambda x, by=3.0: x * by",
            "lambda x: ops.concatenate([x, ops.tanh(x)], axis=-1)",
            "lambda x: x[:, ::-1]",
        )
    )
    g.tag(f"Lambda of {text}")
    g.apply(f"layers.Lambda({text})", x)


@connection(1)
def lambda_with_arguments(g):
    x = g.sequence()
    g.tag("Lambda with arguments")
    g.apply('layers.Lambda(lambda x, by: x * by, arguments={"by": -0.5})', x)


@connection(1)
def functions_of_one_name(g):
    """Two functions have one name, and the layers keep both."""
    x = g.sequence()
    g.tag("functions of one name")
    for factor in (1.0, -2.0):
        g.define(f"def scale(x):\n    return ops.tanh({factor} * x)")
        text = g.choice(
            (
                "layers.Lambda(scale)",
                f"layers.Dense({g.size()}, activation=scale)",
                "layers.Activation(scale)",
                f"layers.LSTM({g.size()}, activation=scale, "
                "return_sequences=True)",
            )
        )
        (x,) = g.apply(text, x)


@connection(1)
def function_named_like_one_of_keras(g):
    x = g.sequence()
    g.tag("a function named like one of Keras'")
    g.define("def relu(x):\n    return -0.5 * ops.tanh(x)")
    g.apply(f"layers.Dense({g.size()}, activation=relu)", x)
    g.apply('layers.Activation("relu")', x)


@connection(1)
def global_that_changes(g):
    x = g.sequence()
    g.tag("a lambda that reads a name")
    name = g.name("number")
    g.define(f"{name} = {g.choice((0.5, -2.0))}")
    g.apply(f"layers.Lambda(lambda x: x * {name})", x)


@connection(3, export=False)
def with_a_rule(g):
    x = g.sequence()
    text = g.choice(("Gain()", f"Offset({g.width(x)})"))
    g.tag(f"own layer with a rule: {text.partition('(')[0]}")
    g.apply(text, x)


@connection(1)
def without_a_rule(g):
    x = g.sequence()
    text = g.choice(
        (
            f"Residual({g.width(x)})",
            f"Branches({g.size()})",
            f"Dense({g.size()})",
        )
    )
    g.tag(f"own layer without a rule: {text.partition('(')[0]}")
    g.apply(text, x)


@connection(1, export=False)
def without_a_config(g):
    x = g.sequence()
    function = g.choice(("doubled", "lambda x: 0.5 * x", "scaled_by(2.0)"))
    g.tag("own layer without a config")
    layer = g.layer(
        f"WithoutConfig({function}, {g.size()})", "own", named=False
    )
    g.call(f"{layer}({x})")


@connection(1)
def attribute_set_later(g):
    x = g.sequence()
    g.tag("attribute set after the constructor")
    layer = g.layer("Multiplied()")
    g.define(f"{layer}.factor = {g.choice((0.5, -2.0))}")
    g.call(f"{layer}({x})")


@connection(1, export=False)
def activation_set_later(g):
    x = g.sequence()
    g.tag("activation set after the constructor")
    layer = g.layer(f"layers.Dense({g.size()})")
    g.define(f"{layer}.activation = keras.activations.get({g.activation()})")
    g.call(f"{layer}({x})")


@connection(1, export=False)
def loss_of_a_layer(g):
    x = g.sequence()
    g.tag("activity_regularizer")
    g.apply(
        f"layers.Dense({g.size()}, "
        "activity_regularizer=keras.regularizers.L2(0.1))",
        x,
    )
