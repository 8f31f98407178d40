"""Operations of `keras.ops`: with a rule, and without."""

from tests.fuzz.connections.registry import connection
from tests.fuzz.program import RefusedError

# `{x}`, `{y}`: tensors of one shape.

UNARY = (
    "-{x}",
    "0.5 * {x} + 1.0",
    "{x} ** 2",
    "{x} / 3.0",
    "1.0 - {x}",
    "1.0 / (1.0 + ops.abs({x}))",
    "ops.abs({x})",
    "ops.square({x})",
    "ops.exp(-ops.square({x}))",
    "ops.expm1(ops.tanh({x}))",
    "ops.log1p(ops.square({x}))",
    "ops.log(1.0 + ops.exp({x}))",
    "ops.sqrt(ops.abs({x}) + 0.1)",
    "ops.rsqrt(ops.square({x}) + 1.0)",
    "ops.reciprocal(2.0 + ops.tanh({x}))",
    "ops.tanh({x})",
    "ops.sigmoid({x})",
    "ops.relu({x})",
    "ops.relu6({x})",
    "ops.leaky_relu({x})",
    "ops.gelu({x})",
    "ops.silu({x})",
    "ops.elu({x})",
    "ops.selu({x})",
    "ops.celu({x})",
    "ops.softplus({x})",
    "ops.softsign({x})",
    "ops.hard_sigmoid({x})",
    "ops.hard_tanh({x})",
    "ops.soft_shrink({x}, 0.1)",
    "ops.hard_shrink({x}, 0.1)",
    "ops.tanh_shrink({x})",
    "ops.threshold({x}, 0.1, 0.0)",
    "ops.squareplus({x})",
    "ops.log_sigmoid({x})",
    "ops.sparse_plus({x})",
    "ops.sin({x})",
    "ops.cos({x})",
    "ops.arctan({x})",
    "ops.arcsinh({x})",
    "ops.sinh(ops.tanh({x}))",
    "ops.cosh(ops.tanh({x}))",
    "ops.erf({x})",
    "ops.sinc({x})",
    "ops.cbrt({x})",
    "ops.exp2(ops.tanh({x}))",
    "ops.clip({x}, -0.5, 0.25)",
    "ops.clip({x}, 0.1, 0.5)",
    "ops.nan_to_num({x})",
    "ops.stop_gradient({x})",
    'ops.cast(ops.cast({x}, "float16"), "float32")',
    "ops.cast({x} > 0.1, {x}.dtype) * {x}",
    "ops.where({x} > 0.2, {x}, 0.0)",
    "ops.where({x} > 0.2, {x}, 1.0)",
    "ops.zeros_like({x}) + {x}",
    "ops.ones_like({x}) * {x}",
    "ops.full_like({x}, 2.0) * {x}",
    "ops.deg2rad({x})",
    "ops.power(ops.abs({x}), 1.5)",
    "ops.nn.normalize({x}, axis=1)",
)

BINARY = (
    "{x} + {y}",
    "{x} - ops.tanh({y})",
    "{x} * {y}",
    "{x} / (1.5 + ops.tanh({y}))",
    "ops.divide_no_nan({x}, {y})",
    "ops.maximum({x}, {y})",
    "ops.minimum({x}, -{y})",
    "ops.fmax({x}, {y})",
    "ops.where({x} > {y}, {x}, {y})",
    "ops.where({x} > {y}, 1.0, 0.0)",
    "ops.cast(ops.greater({x}, {y}), {x}.dtype) * {x}",
    "ops.cast(ops.logical_and({x} > 0.0, {y} > 0.0), {x}.dtype) * {y}",
    "ops.logaddexp({x}, {y})",
    "ops.arctan2({x}, 1.5 + ops.tanh({y}))",
    "ops.hypot({x}, {y})",
    "ops.cross({x}, {y})",
    "ops.add({x}, ops.multiply({y}, 2.0))",
    "ops.subtract({x}, {y})",
    "ops.mod({x}, 1.0) + {y}",
    "ops.power(1.5 + ops.tanh({x}), {y})",
    "{x} + {y}[:, :1]",
    "{x} * {y}[:, -1:]",
    "ops.select([{x} > 0.1, {y} > 0.1], [{x}, {y}], 0.0)",
)

# Of a sequence: over time, or along it.
OVER_TIME = (
    "ops.mean({x}, axis=1)",
    "ops.mean({x}, axis=1, keepdims=True) + {x}",
    "ops.sum({x}, axis=1)",
    "ops.max({x}, axis=1)",
    "ops.min({x}, axis=1, keepdims=True) * {x}",
    "ops.std({x}, axis=1)",
    "ops.var({x}, axis=1)",
    "ops.prod(1.0 + 0.1 * {x}, axis=1)",
    "ops.norm({x}, axis=1)",
    "ops.logsumexp({x}, axis=1)",
    "ops.median({x}, axis=1)",
    "ops.quantile({x}, 0.5, axis=1)",
    "ops.amax({x}, axis=1)",
    "ops.average({x}, axis=1)",
    "ops.ptp({x}, axis=1)",
    "ops.cumsum({x}, axis=1)",
    "ops.cumprod(ops.tanh({x}), axis=1)",
    "ops.flip({x}, axis=1)",
    "ops.roll({x}, 1, axis=1)",
    "ops.sort({x}, axis=1)",
    "ops.softmax({x}, axis=1)",
    "ops.log_softmax({x}, axis=1)",
    "ops.sparsemax({x}, axis=1)",
    "ops.diff({x}, axis=1)",
    "ops.logical_not(ops.any({x} > 0.1, axis=1))",
    "ops.count_nonzero({x} > 0.1, axis=1)",
    "ops.argmax({x}, axis=1)",
    "ops.take_along_axis({x}, ops.argsort({x}, axis=1), axis=1)",
    "ops.top_k(ops.transpose({x}, (0, 2, 1)), 2)[0]",
    "ops.moments({x}, axes=[1])[0]",
    "ops.logaddexp({x}, ops.mean({x}, axis=1, keepdims=True))",
    "ops.associative_scan(lambda a, b: a + b, {x}, axis=1)",
    "ops.trapezoid({x}, axis=1)",
)

OVER_UNITS = (
    "ops.mean({x}, axis=-1)",
    "ops.mean({x}, axis=-1, keepdims=True) + {x}",
    "ops.sum({x}, axis=-1, keepdims=True)",
    "ops.sum(ops.square({x}), axis=-1)",
    "ops.max({x}, axis=-1)",
    "ops.norm({x}, axis=-1, keepdims=True)",
    "ops.norm({x}, ord=1, axis=-1)",
    "ops.normalize({x}, axis=-1)",
    "ops.softmax({x})",
    "ops.log_softmax({x}, axis=-1)",
    "ops.sort({x}, axis=-1)",
    "ops.flip({x}, axis=-1)",
    "ops.cumsum({x}, axis=-1)",
    "ops.logsumexp({x}, axis=-1)",
    "ops.argmax({x}, axis=-1)",
    "ops.any({x} > 0.1, axis=-1)",
    "ops.count_nonzero({x}, axis=-1)",
    "ops.std({x}, axis=-1)",
    "ops.prod({x}, axis=-1)",
    "ops.sum({x}, axis=(1, 2), keepdims=True) * {x}",
    "ops.sqrt(ops.sum(ops.square({x}), axis=-1) + 0.1)",
    "ops.roll({x}, 1, axis=-1)",
    "ops.concatenate([{x}[:, :, :1], {x}[:, :, 1:]], axis=-1)",
    "{x}[:, :, 0]",
    "{x}[..., 1:]",
    "ops.take({x}, [1, 0], axis=-1)",
    "ops.split({x}, [1], axis=-1)",
    "ops.unstack({x}, axis=-1)[0]",
    "ops.glu(ops.concatenate([{x}, {x}], axis=-1))",
    "ops.reshape({x}, (-1, {width} * {time}))",
    "ops.rms_normalization({x})",
)

# The shape changes; the units go along.
SHAPES = (
    "ops.transpose({x}, (0, 2, 1))",
    "ops.transpose(ops.transpose({x}, (2, 0, 1)), (1, 2, 0))",
    "ops.swapaxes({x}, 1, 2)",
    "ops.moveaxis({x}, 1, 2)",
    "ops.expand_dims({x}, 1)",
    "ops.expand_dims({x}, -1)",
    "ops.squeeze(ops.expand_dims({x}, 2), 2)",
    "ops.reshape({x}, (-1, {time}, 1, {width}))",
    "ops.reshape({x}, (-1, 1, {time}, {width}))[:, 0]",
    "ops.reshape(ops.reshape({x}, (-1, {width})), (-1, {time}, {width}))",
    "ops.reshape({x}, (-1, {time} * {width}))",
    "ops.repeat({x}, 2, axis=1)",
    "ops.repeat({x}, 2, axis=-1)",
    "ops.tile({x}, (1, 2, 1))",
    "ops.tile({x}, (1, 1, 2))",
    "ops.pad({x}, ((0, 0), (1, 0), (0, 0)))",
    "ops.pad({x}, ((0, 0), (0, 0), (1, 0)))",
    "ops.broadcast_to({x}[:, None], (2, 3, {time}, {width}))",
    "{x}[:, -1]",
    "{x}[:, -1, :]",
    "{x}[:, 0] * {x}[:, -1]",
    "{x}[:, ::-1]",
    "{x}[:, 1:]",
    "{x}[:, :-1]",
    "{x}[:, ::2]",
    "{x}[:, None]",
    "{x}[..., None]",
    "{x}[..., :{width}]",
    "ops.concatenate([{x}[:, 1:], {x}[:, :1]], axis=1)",
    "ops.take({x}, [0, 0], axis=1)",
    "ops.take_along_axis({x}, np.zeros((1, 1, 1), int), axis=1)",
    "ops.split({x}, [1], axis=1)[0]",
    "ops.split({x}, [1], axis=1)",
    "ops.unstack({x}, axis=1)[0]",
    "ops.slice({x}, (0, 0, 0), (2, 1, {width}))",
    "ops.rot90({x}, axes=(1, 2))",
    "ops.tril({x})",
    "ops.diagonal({x}, axis1=1, axis2=2)",
    "ops.copy({x})",
)

TWO_OF_ONE_SHAPE = (
    "ops.stack([{x}, {y}], axis=1)",
    "ops.stack([{x}, {y}], axis=-1)",
    "ops.sum(ops.stack([{x}, {y}], axis=1), axis=1)",
    "ops.concatenate([{x}, {y}], axis=-1)",
    "ops.concatenate([{x}, {y}], axis=1)",
    "ops.append({x}, {y}, axis=-1)",
    "ops.hstack([{x}, {y}])",
    "({x}[:, None] + {y}[:, :, None])[:, 0]",
)

# `{a}` and `{b}` have one size at least in common.
PRODUCTS = (
    "ops.matmul({a}, {b})",
    "ops.matmul({a}, ops.transpose({b}, (0, 2, 1)))",
    "ops.matmul(ops.transpose({a}, (0, 2, 1)), {b})",
    'ops.einsum("btu,bsu->bts", {a}, {b})',
    'ops.einsum("btu,btv->buv", {a}, {b})',
    'ops.einsum("btu,btu->bt", {a}, {b})',
    'ops.einsum("btu,btu->bu", {a}, {b})',
    'ops.einsum("btu,btu->btu", {a}, {b})',
    'ops.einsum("btu,bsu->bu", {a}, {b})',
    'ops.einsum("...tu,...tu->...u", {a}, {b})',
    'ops.einsum("btu,bus->bts", {a}, {b})',
    'ops.einsum("btu,bsv->btsv", {a}, {b})',
    "ops.sum({a}[:, :, None] * {b}[:, None], axis=-1)",
)

WITH_VECTORS = (
    "{a} + {v}[:, None]",
    "{a} * {v}[:, None]",
    "{a} + {v}[:, None, :]",
    'ops.einsum("btu,bu->bt", {a}, {v})',
    'ops.einsum("btu,bu->btu", {a}, {v})',
    "ops.matmul({a}, {v}[:, :, None])[..., 0]",
    "ops.matmul({v}[:, None], ops.transpose({a}, (0, 2, 1)))[:, 0]",
    'ops.einsum("bu,bv->buv", {v}, {a}[:, 0])',
    "{v}[:, :, None] * {v}[:, None]",
)

WITH_CONSTANTS = (
    "ops.matmul({x}, constant({width}, 3))",
    'ops.einsum("btu,uv->btv", {x}, constant({width}, 3))',
    "ops.tensordot({x}, constant({width}, 3), axes=1)",
    "ops.tensordot({x}, constant({time}, 2), axes=[[1], [0]])",
    "ops.dot({x}, constant({width}, 3))",
    "{x} * constant({width})",
    "{x} + constant({time}, 1)",
    "{x} * constant({time}, {width})",
    "ops.maximum({x}, constant({width}))",
    "ops.where(constant({width}) > 0.0, {x}, -{x})",
    "ops.concatenate([{x}, ops.zeros_like({x})], axis=-1)",
    "ops.conv({x}, constant(2, {width}, 3), padding='same')",
    "ops.clip({x}, -abs(constant({width})), 1.0)",
    "ops.segment_sum({x}[0], np.array([0, 0, 1, 1]))",
)

VECTORS = (
    "ops.tanh({v})",
    "{v} * 2.0 + 1.0",
    "ops.expand_dims({v}, 1)",
    "{v}[:, None]",
    "ops.sum({v}, axis=-1, keepdims=True)",
    "ops.softmax({v})",
    "ops.repeat({v}[:, None], 4, axis=1)",
    "ops.tile({v}[:, None], (1, 4, 1))",
    "ops.transpose(ops.transpose({v}))",
    "ops.outer({v}[0], {v}[0])",
    "ops.max({v}, axis=-1, keepdims=True) + {v}",
    "ops.stack([{v}, 2.0 * {v}], axis=1)",
    "ops.one_hot(ops.argmax({v}, axis=-1), 4)",
    "ops.batch_normalization({v}, constant({width}), abs(constant({width})), "
    "-1)",
    "ops.layer_normalization({v})",
)

RANK_FOUR = (
    "ops.sum({z}, axis=1)",
    "ops.mean({z}, axis=2)",
    "ops.max({z}, axis=3)",
    "{z}[:, 0]",
    "{z}[:, :, -1]",
    "{z}[..., 0]",
    "ops.transpose({z}, (0, 2, 1, 3))",
    "ops.transpose({z}, (0, 1, 3, 2))",
    "ops.squeeze({z}, 1)",
    "ops.squeeze({z}, -1)",
    "ops.tanh({z})",
    "ops.matmul({z}, ops.transpose({z}, (0, 1, 3, 2)))",
    'ops.einsum("abcd,abcd->abc", {z}, {z})',
    'ops.einsum("abcd->acbd", {z})',
    "ops.softmax({z}, axis=1)",
    "ops.norm({z}, axis=(1, 2))",
)

FROM_OTHER_DTYPES = (
    'ops.cast({x}, "float32")',
    'ops.cast(ops.logical_not({x}), "float32")',
    "ops.one_hot({x}, 4)",
)


def drawn(g, texts, **names):
    """Adds one of the operations."""
    written(g, g.choice(texts), names)


def written(g, text, names):
    """Adds an operation.

    Args:
        g: `Drawing`.
        text: String, one of those above.
        names: Dict from the letters in it to the names of tensors.
    """
    shape = g.shape(next(iter(names.values())))
    sizes = {"width": shape[-1]}
    if len(shape) > 1:
        sizes["time"] = shape[1]
    if any(
        "{" + size + "}" in text and value is None
        for size, value in sizes.items()
    ):
        raise RefusedError("needs a fixed size")
    g.tag(text)
    g.call(text.format(**names, **sizes))


@connection(6, streams=True)
def unary(g):
    drawn(g, UNARY, x=g.tensor(None, lambda s: len(s) < 5))


@connection(6, streams=True)
def binary(g):
    x = g.tensor(None, lambda shape: 1 < len(shape) < 5)
    drawn(g, BINARY, x=x, y=g.like(x))


@connection(4)
def over_time(g):
    drawn(g, OVER_TIME, x=g.sequence())


@connection(2)
def over_units(g):
    drawn(g, OVER_UNITS, x=g.sequence())


@connection(5)
def shapes(g):
    drawn(g, SHAPES, x=g.sequence())


@connection(2)
def two_of_one_shape(g):
    x = g.sequence()
    drawn(g, TWO_OF_ONE_SHAPE, x=x, y=g.like(x))


@connection(4)
def products(g):
    drawn(g, PRODUCTS, a=g.sequence(), b=g.sequence())


@connection(3)
def with_vectors(g):
    a = g.sequence()
    width = g.width(a)
    v = g.tensor(2, lambda shape: shape[-1] == width)
    drawn(g, WITH_VECTORS, a=a, v=v)


@connection(2)
def with_constants(g):
    drawn(g, WITH_CONSTANTS, x=g.sequence())


@connection(3)
def vectors(g):
    drawn(g, VECTORS, v=g.vector())


@connection(3)
def of_rank_four(g):
    drawn(g, RANK_FOUR, z=g.tensor(4))


@connection(2)
def from_other_dtypes(g):
    found = [
        name
        for name in g.scope.tensors
        if not g.value(name).dtype.startswith("float")
        and name not in g.scope.inputs
    ]
    x = g.choice(found)
    is_bool = g.value(x).dtype == "bool"
    drawn(g, FROM_OTHER_DTYPES[: 2 if is_bool else 1], x=x)
