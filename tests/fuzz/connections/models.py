"""Models in models: Functional, Sequential and of one's own class."""

import re

from tests.fuzz.connections.registry import connection
from tests.fuzz.program import CALL, INPUT, LAYER, OTHER, RefusedError

MOST_DEPTH = 3


def contents(g, shapes):
    """Draws what is inside a model.

    Args:
        g: `Drawing`, in a scope of its own.
        shapes: List of the shapes of its inputs, without the batch.

    Returns:
        Pair of the names of the inputs and of the outputs.
    """
    if g.depth > MOST_DEPTH:
        raise RefusedError("too deep")
    start = len(g.program.statements)
    inputs = [g.input(*shape) for shape in shapes]
    for _ in range(g.integer(1, 4)):
        g.grow()
    unread = [name for name in g.unread(start) if name not in inputs]
    floats = [x for x in unread if g.value(x).dtype.startswith("float")]
    if not floats:
        raise RefusedError("an empty model")
    return inputs, floats[-g.integer(1, 2) :]


def listed(names):
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"


def read(g):
    """One or two sequences for a model to read."""
    return [g.sequence() for _ in range(g.choice((1, 1, 1, 2)))]


def functional(g, shapes):
    """Adds a Functional model.

    Returns:
        Pair of its name and of the keys of what it gives, or `None`.
    """
    with g.inner_scope():
        inputs, outputs = contents(g, shapes)
    name = g.name("model")
    keys = None
    given = listed(outputs)
    if len(outputs) > 1 and g.chance(0.4):
        keys = ["first", "second"]
        given = f'{{"first": {outputs[0]}, "second": {outputs[1]}}}'
    cls = "keras.Model"
    if g.chance(0.15) and not g.for_export:
        cls = g.choice(("OwnModel", "OwnStep"))
        g.tag(f"a nested model of the class {cls}")
    text = f'{name} = {cls}({listed(inputs)}, {given}, name="{name}")'
    g.program.run(text, LAYER, [name], g.depth)
    if g.chance(0.1) and cls == "OwnModel":
        g.define(f"{name}.temperature = 2.0")
    return name, keys


def called(g, model, keys, tensors):
    """Calls a nested model."""
    expression = f"{model}({listed(tensors)})"
    if keys is None:
        return g.call(expression)
    whole = g.name("d")
    g.define(f"{whole} = {expression}")
    return [g.call(f'{whole}["{key}"]')[0] for key in keys]


def shapes_of(g, tensors):
    return [g.shape(x)[1:] for x in tensors]


def again(g, tensors):
    """Other tensors of the same shapes."""
    return [g.like(x) for x in tensors]


@connection(4)
def nested(g):
    tensors = read(g)
    g.tag("nested Functional model")
    model, keys = functional(g, shapes_of(g, tensors))
    called(g, model, keys, tensors)
    if g.chance(0.3):
        g.tag("nested model called twice")
        called(g, model, keys, again(g, tensors))


@connection(2)
def sequential(g):
    x = g.sequence()
    with g.inner_scope():
        start = len(g.program.statements)
        h = g.input(*g.shape(x)[1:])
        shape = g.program.statements[-1].text.partition(" = ")[2]
        texts = [re.sub(r', name="\w+"', "", shape)]
        for _ in range(g.integer(2, 4)):
            text = simple_layer(g, len(g.shape(h)))
            (h,) = g.apply(text, h)
            made = g.program.statements[-2].text
            texts.append(made.partition(" = ")[2])
        del g.program.statements[start:]
    g.tag("nested Sequential model")
    model = g.layer(f"keras.Sequential([{', '.join(texts)}])", "model")
    g.call(f"{model}({x})")
    if g.chance(0.3):
        g.tag("nested model called twice")
        g.call(f"{model}({g.like(x)})")


def simple_layer(g, rank):
    """The text of a layer that reads and gives one tensor."""
    from tests.fuzz.connections.recurrent import kind, of_kind

    if rank == 2:
        return f"layers.Dense({g.size()}, activation={g.activation()})"
    name = g.choice(("LSTM", "GRU"))
    both = of_kind(g, name, directed=False, return_sequences=True)
    forms = {
        of_kind(g, kind(g), return_sequences=g.chance(0.8)): 4,
        f"layers.Bidirectional({both})": 2,
        f"layers.Dense({g.size()}, activation={g.activation()})": 2,
        "layers.BatchNormalization()": 1,
        "layers.LayerNormalization()": 1,
        'layers.Activation("tanh")': 1,
        f'layers.Conv1D({g.size()}, 2, padding="same")': 1,
        "layers.Masking()": 1,
        "layers.GlobalMaxPooling1D()": 1,
    }
    return g.choice(forms)


def stacked(g):
    """A tensor `(batch, several, time, units)`."""
    found = g.tensors(4, lambda shape: None not in shape[1:])
    if found and g.chance(0.4):
        return g.choice(found)
    x = g.sequence()
    (h,) = g.call(f"ops.stack([{x}, 2.0 * {g.like(x)}], axis=1)")
    return h


@connection(2)
def time_distributed_layer(g):
    from tests.fuzz.connections.recurrent import kind, of_kind

    z = stacked(g)
    name = kind(g)
    inner = of_kind(g, name, return_sequences=g.chance(0.5))
    if g.chance(0.3):
        inner = of_kind(g, "LSTM", directed=False, return_sequences=True)
        inner = f"layers.Bidirectional({inner})"
    if "stateful" in inner:
        raise RefusedError("another number of samples")
    g.tag("TimeDistributed of a recurrent layer")
    g.apply(f"layers.TimeDistributed({inner})", z)


@connection(2)
def time_distributed_model(g):
    z = stacked(g)
    shape = g.shape(z)[2:]
    batch, g.batch = g.batch, None
    try:
        model, keys = functional(g, [shape])
    finally:
        g.batch = batch
    if keys is not None:
        raise RefusedError("several outputs")
    g.tag("TimeDistributed of a model")
    calls = [lambda: g.apply(f"layers.TimeDistributed({model})", z)]
    if g.chance(0.4):
        x = g.tensor(3, lambda other: other[1:] == shape)
        g.tag("a model wrapped and called")
        calls.append(lambda: g.call(f"{model}({x})"))
        g.random.shuffle(calls)
    for draw in calls:
        draw()


@connection(3)
def subclassed(g):
    tensors = read(g)
    start = len(g.program.statements)
    with g.inner_scope():
        inputs, outputs = contents(g, shapes_of(g, tensors))
        depth = g.depth
    name = g.name("Model")
    text, init = class_of(g, name, start, depth, inputs, outputs)
    g.tag("nested subclassed model")
    instance(g, start, name, text, init)
    model = g.program.statements[-1].names[0]
    g.call(f"{model}({listed(tensors)})")
    if g.chance(0.3):
        g.tag("nested model called twice")
        g.call(f"{model}({listed(again(g, tensors))})")


def instance(g, start, name, text, hoisted):
    """Puts a class and an object of it in the place of statements."""
    del g.program.statements[start:]
    for earlier in hoisted:
        g.define(earlier)
    g.define(text)
    model = name.lower()
    g.program.run(f'{model} = {name}(name="{model}")', LAYER, [model], g.depth)


def class_of(g, name, start, depth, inputs, outputs):
    """The text of a subclassed model that does what statements do.

    Args:
        g: `Drawing`.
        name: String, the name of the class.
        start: Integer, the first of the statements.
        depth: Integer, their depth.
        inputs: List of the names of the inputs.
        outputs: List of the names of the outputs, or text.

    Returns:
        Pair of the text and of those that stand before it.
    """
    statements = g.program.statements[start:]
    made = {
        statement.names[0]
        for statement in statements
        if statement.kind == LAYER and statement.depth == depth
    }
    tensors = {
        n
        for statement in statements
        if statement.depth == depth
        for n in statement.names
    } - made
    tensors |= assigned_calls(statements, depth, made)

    def own(text):
        for layer in sorted(made):
            text = re.sub(
                rf'(?<![\w."]){layer}(?!["\w])', f"self.{layer}", text
            )
        return text

    hoisted, init, call = [], [], []
    for statement in statements:
        if statement.depth > depth:
            init.append(statement.text)
        elif statement.kind == INPUT:
            continue
        elif statement.kind == LAYER:
            init.append(own(statement.text))
        elif statement.kind == CALL or mentions(statement.text, tensors):
            call.append(own(statement.text))
        elif mentions(statement.text, made):
            init.append(own(statement.text))
        else:
            hoisted.append(statement.text)
    more_init, more_call = flow(g, outputs)
    returned = outputs if isinstance(outputs, str) else listed(outputs)
    parameter = inputs[0] if len(inputs) == 1 else "inputs"
    if len(inputs) > 1:
        call.insert(0, f"{', '.join(inputs)} = inputs")
    lines = [
        f"class {name}(keras.Model):",
        "    def __init__(self, **kwargs):",
        "        super().__init__(**kwargs)",
        *indented([*init, *more_init]),
        "",
        f"    def call(self, {parameter}, training=False):",
        *indented([*call, *more_call, f"return {returned}"]),
    ]
    return "\n".join(lines), hoisted


def assigned_calls(statements, depth, made):
    """Variables that other statements set by calling a layer."""
    return {
        statement.text.partition(" = ")[0]
        for statement in statements
        if statement.kind == OTHER
        and statement.depth == depth
        and re.match(r"[sd]\d+ = (\w+)\(", statement.text)
    }


def mentions(text, names):
    return any(re.search(rf"\b{name}\b", text) for name in names)


def indented(texts):
    return [f"        {line}" for text in texts for line in text.splitlines()]


def flow(g, outputs):
    """Statements with control flow, on an output of the model.

    Returns:
        Pair of what the constructor and what `call` does.
    """
    names = outputs if isinstance(outputs, list) else []
    names = [x for x in names if len(g.shape(x)) == 3]
    if not names or g.chance(0.3):
        return [], []
    x = g.choice(names)
    width = g.width(x)
    kinds = [
        "training",
        "length",
        "list",
        "dict",
        "passed on",
        "batch",
        "shape",
    ]
    if g.shape(x)[1] is None:
        # Keras does not say how long it is, whatever the inputs are.
        kinds = [kind for kind in kinds if kind not in ("length", "shape")]
    kind = g.choice(kinds)
    g.tag(f"subclassed call: {kind}")
    if kind == "training":
        g.is_random = True
        return (
            ["self.dropout = layers.Dropout(0.5)"],
            [f"if training:\n    {x} = self.dropout({x}, training=True)"],
        )
    if kind == "length":
        return [], [
            f"if {x}.shape[1] is not None:\n    {x} = {x} / {x}.shape[1]"
        ]
    if kind == "list":
        text = f"layers.Dense({width}) for _ in range(2)"
        return (
            [f"self.stack = [{text}]"],
            [f"for layer in self.stack:\n    {x} = layer({x})"],
        )
    if kind == "dict":
        text = f"layers.LSTM({width}, return_sequences=True)"
        return [f'self.parts = {{"a": {text}}}'], [
            f'{x} = self.parts["a"]({x})'
        ]
    if kind == "passed on":
        return (
            ["self.normalization = layers.BatchNormalization()"],
            [f"{x} = self.normalization({x}, training=training)"],
        )
    if kind == "batch":
        return [], [f"{x} = {x} + ops.zeros((ops.shape({x})[0], 1, 1))"]
    return [], [f"{x} = {x} * float({x}.shape[1] or 1)"]
