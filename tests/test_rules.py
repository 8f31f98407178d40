"""Rules of layers and operations: what may go is cut, and nothing changes.

The functions of a table are in one model, each behind recurrent layers of its
own, so that one surgery tells of all of them.
"""

import importlib
import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_iss
from keras_iss import tracing
from tests.cases import FEATURES, TIME, inputs_for, lstm, randomize

UNITS = 6
BACKEND = keras.backend.backend()

FAIL_IN_KERAS = {
    "tensorflow": [],
    # There is no negative step.
    "torch": ["turned_around"],
    # Keras gives it lists of axes, which it does not take.
    "jax": """norm norm_0 norm_1 norm_3 norm_inf norm_fro norm_nuc
        norm_of_matrices norm_1_of_matrices norm_inf_of_matrices
        cosine_by_norms quantile quantiles median""".split(),
}[BACKEND]


def flat_head(x):
    """A dense layer over all that a function gives."""
    heads = [
        layers.Dense(2)(layers.Flatten()(ops.cast(output, "float32")))
        for output in keras.tree.flatten(x)
    ]
    return heads[0] if len(heads) == 1 else ops.concatenate(heads)


def tried(functions):
    """Those of some functions that Keras does here; on JAX, a third of them.

    It compiles every operation by itself.
    """
    names = [name for name in functions if name not in FAIL_IN_KERAS]
    return {
        name: functions[name]
        for name in (names[::3] if BACKEND == "jax" else names)
    }


def model_of(functions, shape=(TIME, FEATURES), maker=lstm):
    """One output for each function of what two recurrent layers give."""
    x = keras.Input(shape)
    outputs = {}
    for name, function in functions.items():
        h, g = maker(name=f"{name}_h")(x), maker(name=f"{name}_g")(x)
        outputs[name] = flat_head(function(h, g))
    model = keras.Model(x, outputs)
    randomize(model)
    return model


def pruned_and_shrunk(model, include=("recurrent",), seed=0):
    """Prunes about half of what may go, and shrinks.

    Returns:
        The smaller model.
    """
    rng = np.random.default_rng(seed)
    structures = keras_iss.find_structures(model, include)
    keep = {
        structure.name: rng.choice(
            structure.size, max(1, structure.size // 2), replace=False
        )
        for structure in structures.free
    }
    keras_iss.prune(model, keep=keep, include=include)
    small = keras_iss.shrink(model, include=include)
    assert small.count_params() == structures.counts(shrunk=True).weights
    return small


def assert_equal(model, small):
    x = inputs_for(model)
    # JAX compiles a model faster than the operations in it.
    wanted, found = (
        called.predict(x, verbose=0) if BACKEND == "jax" else called(x)
        for called in (model, small)
    )
    for name in wanted:
        np.testing.assert_allclose(
            ops.convert_to_numpy(found[name]),
            ops.convert_to_numpy(wanted[name]),
            rtol=1e-5,
            atol=1e-5,
            err_msg=name,
        )


def pinned(structures, names):
    """What is pinned of what ought not to be, and why."""
    return {
        name: structures[f"{name}_h"].pinned
        for name in names
        if structures[f"{name}_h"].pinned
    }


# Units that are zero when removed add nothing.
REDUCTIONS = {
    "sum": lambda h, g: ops.sum(h, axis=-1),
    "sum_of_all": lambda h, g: ops.sum(h, axis=(1, 2), keepdims=True),
    "sum_of_squares": lambda h, g: ops.sum(ops.square(h - g), axis=-1),
    "root_of_a_sum": lambda h, g: ops.sqrt(
        ops.sum(ops.square(h - g), axis=-1) + 1e-6
    ),
    "manhattan": lambda h, g: ops.exp(
        -ops.sum(ops.abs(h - g), axis=-1, keepdims=True)
    ),
    "chebyshev": lambda h, g: ops.max(ops.abs(h - g), axis=-1),
    "max_of_relu": lambda h, g: ops.max(ops.relu(h), axis=(1, 2)),
    "norm": lambda h, g: ops.norm(h - g, axis=-1),
    "norm_1": lambda h, g: ops.norm(h, ord=1, axis=-1),
    "norm_3": lambda h, g: ops.norm(h, ord=3, axis=-1, keepdims=True),
    "norm_0": lambda h, g: ops.norm(h, ord=0, axis=-1),
    "norm_inf": lambda h, g: ops.norm(h, ord=float("inf"), axis=-1),
    "norm_fro": lambda h, g: ops.norm(h, ord="fro", axis=(1, 2)),
    "norm_of_matrices": lambda h, g: ops.norm(h, ord=2, axis=(1, 2)),
    "norm_1_of_matrices": lambda h, g: ops.norm(h, ord=1, axis=(1, 2)),
    "norm_inf_of_matrices": lambda h, g: ops.norm(
        h, ord=float("inf"), axis=(1, 2)
    ),
    "norm_nuc": lambda h, g: ops.norm(h, ord="nuc", axis=(1, 2)),
    "normalize": lambda h, g: ops.normalize(h, axis=-1) * g,
    "normalize_1": lambda h, g: ops.normalize(h, axis=-1, order=1),
    "unit_normalization": lambda h, g: layers.UnitNormalization()(h),
    "unit_normalization_of_all": lambda h, g: layers.UnitNormalization(
        axis=(1, 2)
    )(h),
    "cosine": lambda h, g: ops.sum(
        ops.normalize(h, axis=-1) * ops.normalize(g, axis=-1), axis=-1
    ),
    "cosine_by_norms": lambda h, g: (
        ops.sum(h * g, axis=-1)
        / (ops.norm(h, axis=-1) * ops.norm(g, axis=-1) + 1e-6)
    ),
    "cosine_loss": lambda h, g: keras.losses.cosine_similarity(h, g),
    "normalized_dot": lambda h, g: layers.Dot(axes=1, normalize=True)(
        [h[:, -1], g[:, -1]]
    ),
    "any": lambda h, g: ops.any(h > 0.1, axis=-1),
    "count_nonzero": lambda h, g: ops.count_nonzero(ops.relu(h), axis=(1, 2)),
    "nansum": lambda h, g: ops.nansum(h, axis=-1),
    "cumsum": lambda h, g: ops.cumsum(h, axis=-1),
    "product_sum": lambda h, g: ops.sum(h * g, axis=-1),
    "einsum": lambda h, g: ops.einsum("bti,bti->bt", h, g),
    "einsum_without_output": lambda h, g: ops.expand_dims(
        ops.einsum("ti,si", h[0], g[0]), 0
    ),
    "einsum_of_one": lambda h, g: ops.einsum("bti->bt", h),
    "einsum_of_three": lambda h, g: ops.einsum("bti,bsi,bsi->bt", h, g, g),
    "matmul": lambda h, g: ops.matmul(h[:, :, None], g[..., None])[:, :, 0],
    "inner": lambda h, g: ops.expand_dims(ops.inner(h[0], g[0]), 0),
    "vdot": lambda h, g: ops.reshape(ops.vdot(h[0, 0], g[0, 1]), (1, 1)),
    "tensordot": lambda h, g: ops.expand_dims(
        ops.tensordot(h[0], g[0], axes=[[1], [1]]), 0
    ),
    "dot": lambda h, g: ops.expand_dims(ops.dot(h[0], ops.transpose(g[0])), 0),
    "cdist": lambda h, g: ops.cdist(h, g),
    "where_sum": lambda h, g: ops.sum(ops.where(h > 0, h, 0.0), axis=-1),
    "maximum_sum": lambda h, g: ops.sum(ops.maximum(h, 0.0), axis=-1),
    "masking": lambda h, g: layers.GRU(3)(layers.Masking()(h)),
    "einsum_dense": lambda h, g: layers.EinsumDense("btu,tc->bc", 3)(h),
}


def test_sums_over_units_that_are_zero_when_removed_let_them_go():
    functions = tried(REDUCTIONS)
    model = model_of(functions)
    structures = keras_iss.find_structures(model)
    assert pinned(structures, functions) == {}
    assert all(structures[f"{name}_h"].contracted for name in functions)
    assert_equal(model, pruned_and_shrunk(model))


# Along other dimensions, or along the units where each stays itself.
CARRIED = {
    "flip": lambda h, g: ops.flip(h, axis=-1) + g,
    "flip_all": lambda h, g: ops.flip(h[0]),
    "fliplr": lambda h, g: ops.fliplr(h) * g,
    "turned_around": lambda h, g: h[:, 1:, ::-1],
    "repeat": lambda h, g: ops.repeat(h, 2, axis=-1),
    "tile": lambda h, g: ops.tile(h, (1, 2, 3)),
    "pad": lambda h, g: ops.pad(h, ((0, 0), (1, 0), (1, 2))),
    "pad_with_ones": lambda h, g: ops.pad(
        h, ((0, 0), (0, 1), (1, 0)), constant_values=1.0
    ),
    "pad_edge_of_time": lambda h, g: ops.pad(
        h, ((0, 0), (1, 1), (0, 0)), mode="reflect"
    ),
    "take_along_axis": lambda h, g: ops.take_along_axis(
        h, ops.argsort(g, axis=1), axis=1
    ),
    "take_along_axis_for_all": lambda h, g: ops.take_along_axis(
        h, np.full((1, 2, UNITS), 1, "int32")[:, :, :1], axis=1
    ),
    "slice": lambda h, g: ops.slice(h, (0, 1, 0), (1, 3, UNITS)),
    "slice_update": lambda h, g: ops.slice_update(h, (0, 2, 0), g[:, :2]),
    "hstack": lambda h, g: ops.hstack([h, g]),
    "vstack": lambda h, g: ops.vstack([h, g]),
    "dstack": lambda h, g: ops.dstack([h, g]),
    "diff": lambda h, g: ops.diff(h, axis=1),
    "trapezoid": lambda h, g: ops.trapezoid(h, axis=1),
    "average": lambda h, g: ops.average(h, axis=1),
    "quantile": lambda h, g: ops.quantile(h, 0.3, axis=1),
    "quantiles": lambda h, g: ops.moveaxis(
        ops.quantile(h, np.array([0.3, 0.6], "float32"), axis=1), 0, 1
    ),
    "median": lambda h, g: ops.median(h, axis=1, keepdims=True),
    "moments": lambda h, g: list(ops.moments(h, axes=[1])),
    "triangle": lambda h, g: ops.tril(ops.transpose(h[:, None], (0, 3, 1, 2))),
    "top_k": lambda h, g: list(ops.top_k(ops.transpose(h, (0, 2, 1)), 2)),
    "select": lambda h, g: ops.select([h > 0.1, g > 0.1], [h, g], 0.0),
    "logical": lambda h, g: ops.logical_and(h > 0, g < 0),
    "hypot": lambda h, g: ops.hypot(h, g),
    "arctan2": lambda h, g: ops.arctan2(h, g + 3.0),
    "power_of_two": lambda h, g: 2.0**h,
    "modulo": lambda h, g: (h % 0.3) * 0.0 + g,
    "dot_with_a_number": lambda h, g: ops.dot(h, 2.0) + ops.inner(g, 3.0),
    "divided_by_what_stays": lambda h, g: (
        h / (1.0 + ops.abs(layers.Dense(1)(g)))
    ),
    "max_pool": lambda h, g: ops.max_pool(h, 2, 1, data_format="channels_last"),
    "average_pool": lambda h, g: ops.average_pool(
        h, 2, 1, data_format="channels_last"
    ),
    "cumsum_over_time": lambda h, g: ops.cumsum(h, axis=1),
    "softmax_activation": lambda h, g: layers.Activation("softmax")(
        layers.Dense(3)(h)
    ),
    "softmax_of_time": lambda h, g: layers.Dense(4, activation="softmax")(
        ops.transpose(h, (0, 2, 1))
    ),
    "softmax_of_einsum": lambda h, g: layers.EinsumDense(
        "btu,tc->buc", (UNITS, 4), activation="softmax"
    )(h),
    "rescaling": lambda h, g: layers.Rescaling(2.0, offset=0.5)(h),
    "alpha_dropout": lambda h, g: layers.AlphaDropout(
        0.3, noise_shape=(None, 1, UNITS)
    )(h),
    "unit_normalization_of_time": lambda h, g: layers.UnitNormalization(axis=1)(
        h
    ),
    "adaptive_pooling": lambda h, g: layers.AdaptiveAveragePooling1D(2)(h),
    "separable_convolution": lambda h, g: layers.SeparableConv1D(
        4, 2, depth_multiplier=2
    )(h),
    "depthwise_convolution": lambda h, g: layers.DepthwiseConv1D(
        2, depth_multiplier=2, activation="relu"
    )(h),
    "sum_of_a_depthwise_convolution": lambda h, g: ops.sum(
        layers.DepthwiseConv1D(2, depth_multiplier=2)(ops.sigmoid(h)), axis=-1
    ),
    "transposed_convolution": lambda h, g: layers.Conv1DTranspose(3, 2, 2)(h),
    "grouped_query_attention": lambda h, g: layers.GroupQueryAttention(2, 2, 1)(
        layers.Dense(3)(h), layers.Dense(3)(h), g
    ),
    "additive_attention_of_one_key": lambda h, g: layers.AdditiveAttention()(
        [h, g, layers.Dense(1)(g)]
    ),
}


@pytest.mark.on_torch
def test_what_is_carried_along_is_cut():
    functions = tried(CARRIED)
    model = model_of(functions)
    structures = keras_iss.find_structures(model)
    assert pinned(structures, functions) == {}
    small = pruned_and_shrunk(model)
    assert_equal(model, small)
    if BACKEND != "jax":
        small(inputs_for(model), training=True)  # Noise has shapes, too.


# Behind convolutions over time: images in a row, and the last of them.
OVER_TIME_AND_SPACE = {
    "conv": lambda f: layers.Conv3D(3, 2, data_format=f),
    "transposed": lambda f: layers.Conv3DTranspose(3, 2, data_format=f),
    "max_pooling": lambda f: layers.MaxPooling3D(2, data_format=f),
    "average_pooling": lambda f: layers.AveragePooling3D(2, data_format=f),
    "global_max": lambda f: layers.GlobalMaxPooling3D(data_format=f),
    "global_average": lambda f: layers.GlobalAveragePooling3D(
        data_format=f, keepdims=True
    ),
    "up_sampling": lambda f: layers.UpSampling3D(2, data_format=f),
    "zero_padding": lambda f: layers.ZeroPadding3D(1, data_format=f),
    "cropping": lambda f: layers.Cropping3D((0, 1, 1), data_format=f),
    "dropout": lambda f: layers.SpatialDropout3D(0.5, data_format=f),
    "batch": lambda f: layers.BatchNormalization(
        axis=-1 if f == "channels_last" else 1
    ),
}
OVER_SPACE = {
    "conv": lambda f: layers.Conv2D(3, 2, data_format=f),
    "transposed": lambda f: layers.Conv2DTranspose(
        3, 2, strides=2, data_format=f
    ),
    "separable": lambda f: layers.SeparableConv2D(
        3, 2, depth_multiplier=2, data_format=f
    ),
    "depthwise": lambda f: layers.DepthwiseConv2D(
        2, depth_multiplier=2, activation="tanh", data_format=f
    ),
    "max_pooling": lambda f: layers.MaxPooling2D(2, data_format=f),
    "up_sampling": lambda f: layers.UpSampling2D(2, data_format=f),
    "up_sampling_between": lambda f: layers.UpSampling2D(
        2, data_format=f, interpolation="bilinear"
    ),
    "zero_padding": lambda f: layers.ZeroPadding2D((1, 2), data_format=f),
    "cropping": lambda f: layers.Cropping2D(1, data_format=f),
    "dropout": lambda f: layers.SpatialDropout2D(0.5, data_format=f),
}
FORMATS = ["channels_last", "channels_first"]


@pytest.mark.parametrize("data_format", FORMATS)
def test_what_convolutions_over_time_give_is_cut(data_format):
    last = data_format == "channels_last"
    if BACKEND == "tensorflow" and not last:
        pytest.skip("TensorFlow convolves channels first on no CPU")
    kwargs = {"padding": "same", "data_format": data_format}
    x = keras.Input((3, 4, 4, 2) if last else (3, 2, 4, 4))
    h = layers.ConvLSTM2D(6, 2, return_sequences=True, name="time", **kwargs)(x)
    g = layers.ConvLSTM2D(6, 2, name="space", **kwargs)(h)
    if not last:
        h = ops.transpose(h, (0, 2, 1, 3, 4))
    outputs = {}
    for name, layer in OVER_TIME_AND_SPACE.items():
        outputs[f"{name}_3"] = flat_head(layer(data_format)(h))
    for name, layer in OVER_SPACE.items():
        outputs[f"{name}_2"] = flat_head(layer(data_format)(g))
    model = keras.Model(x, outputs)
    randomize(model)
    structures = keras_iss.find_structures(model)
    assert [structure.pinned for structure in structures] == [None, None]
    assert_equal(model, pruned_and_shrunk(model))


def test_a_convolution_over_time_and_three_dimensions_is_cut():
    x = keras.Input((2, 3, 2, 2, 2))
    h = layers.ConvLSTM3D(4, 2, padding="same", return_sequences=True)(x)
    h = layers.ConvLSTM3D(4, (1, 2, 2))(h)
    model = keras.Model(x, {"y": flat_head(layers.GlobalMaxPooling3D()(h))})
    randomize(model)
    assert len(keras_iss.find_structures(model).free) == 2
    assert_equal(model, pruned_and_shrunk(model))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("merge_mode", ["concat", "sum", None])
@pytest.mark.parametrize("sequences", [False, True])
def test_convolutions_over_time_in_both_directions_are_cut(
    data_format, merge_mode, sequences
):
    last = data_format == "channels_last"
    if BACKEND == "tensorflow" and not last:
        pytest.skip("TensorFlow convolves channels first on no CPU")
    if BACKEND == "jax" and (merge_mode == "sum" or not sequences):
        pytest.skip("the others will do: JAX compiles for long")
    x = keras.Input((3, 5, 2) if last else (3, 2, 5))
    layer = layers.ConvLSTM1D(
        6,
        2,
        padding="same",
        return_sequences=sequences,
        data_format=data_format,
    )
    h = layers.Bidirectional(layer, merge_mode=merge_mode)(x)
    model = keras.Model(x, {"y": flat_head(h)})
    randomize(model)
    assert keras_iss.find_structures(model).free
    assert_equal(model, pruned_and_shrunk(model))


# Operations of `keras.ops` without a rule: what they read keeps its units.
OPAQUE = """
AffineTransform AllClose Arange AssociativeScan BatchNorm BinaryCrossentropy
Bincount BitwiseLeftShift BitwiseRightShift CTCDecode CTCLoss
CategoricalCrossentropy Cholesky CholeskyInverse Cond Conj Conv ConvTranspose
Corrcoef Correlate CropImages Cross DepthToSpace DepthwiseConv Det Diag
Diagflat Diagonal Digitize DotProductAttention Eig Eigh ElasticTransform
EmptyLike ExtractPatches ExtractSequences FFT FFT2 Fold ForiLoop Full
GaussianBlur Gcd Geomspace HSVToRGB Histogram IFFT2 IRFFT ISTFT InTopK Inv IsIn
Isclose JVP Kron LayerNorm Lcm Ldexp LeftShift Linspace Logdet Logspace Lstsq
LuFactor Map MapCoordinates MatrixRank Meshgrid MultiHot Ndim Nextafter Nonzero
OneHot Outer PSNR PadImages PerspectiveTransform Pinv Polar Qr RFFT
RGBToGrayscale RGBToHSV RMSNorm Rearrange Resize RightShift Rot90 SSIM STFT SVD
ScaleAndTranslate Scan Scatter SearchSorted SegmentMax SegmentMin SegmentProd
SegmentReduction SegmentSum SeparableConv Size Slogdet SobelEdges Solve
SolveTriangular SpaceToDepth SparseCategoricalCrossentropy Switch Trace Unfold
Unique UnravelIndex Vander VectorizedMap View ViewAsComplex ViewAsReal WhileLoop
""".split()

# And layers.
OPAQUE_LAYERS = """
FlaxLayer InputLayer JaxLayer Lambda Layer SpectralNormalization TFSMLayer
TorchModuleWrapper Wrapper
""".split()


def classes(module, base):
    return {
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base)
    }


@pytest.mark.skipif(
    not keras.__version__.startswith("3.15."),
    reason="other versions have other operations",
)
def test_every_operation_and_layer_of_keras_was_decided_on():
    from keras_iss.tracing import registry

    families = "core einops image linalg math nn numpy".split()
    found = set()
    for family in families:
        module = importlib.import_module(f"keras.src.ops.{family}")
        found |= classes(module, keras.Operation)
    found -= {"KerasTensor", "Operation"}
    assert found == {*OPAQUE, *registry._OPERATION_RULES}
    preprocessing = classes(layers, keras.layers.Layer) - {
        name
        for name in classes(layers, keras.layers.Layer)
        if ".preprocessing." not in getattr(layers, name).__module__
    }
    unknown = {
        name
        for name in classes(layers, keras.layers.Layer) - preprocessing
        if getattr(layers, name) not in registry._LAYER_RULES
    }
    assert unknown == set(OPAQUE_LAYERS)


@pytest.mark.parametrize(
    "function",
    [
        lambda h: ops.segment_sum(h, np.array([0, 0]), 2),
        lambda h: ops.dot_product_attention(*[h[:, :, None]] * 3),
        lambda h: ops.outer(h[0], h[0]),
        lambda h: ops.map(lambda x: x * 2, h),
        lambda h: ops.one_hot(ops.cast(h, "int32"), 3),
        lambda h: ops.kron(h[0], h[0]),
    ],
)
def test_what_has_no_rule_keeps_the_units_of_what_it_reads(function):
    x = keras.Input((TIME, FEATURES))
    h = lstm(UNITS, name="lstm")(x)
    y = layers.Dense(2)(layers.Flatten()(ops.cast(function(h), "float32")))
    assert keras_iss.find_structures(keras.Model(x, y))["lstm"].pinned


@keras.saving.register_keras_serializable(package="tests")
class LeakyCell(layers.Layer):
    """A cell of a user's own: half of the state stays in each step."""

    def __init__(self, units, activation="tanh", **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units))
        self.recurrent = self.add_weight(shape=(self.units, self.units))
        self.bias = self.add_weight(shape=(self.units,))

    def call(self, inputs, states, training=False):
        (state,) = states
        read = ops.matmul(inputs, self.kernel) + self.bias
        read = read + ops.matmul(state, self.recurrent)
        state = (self.activation(read) + state) / 2
        return state, [state]

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        config = {"units": self.units, "activation": activation}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="tests")
class LeakyRNN(layers.RNN):
    def __init__(self, units, activation="tanh", **kwargs):
        super().__init__(LeakyCell(units, activation), **kwargs)

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        activation = keras.activations.serialize(self.cell.activation)
        return {**config, "units": self.cell.units, "activation": activation}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


@keras_iss.register_rule(LeakyCell)
def leaky_cell(call: tracing.Call, inputs, states, training=None):
    cell = call.operation
    (before,) = states
    units = call.units(cell.units, "recurrent")
    state = call.tie(units, before.axis(-1))
    call.weight(cell.kernel, {0: inputs.axes[-1], 1: units})
    call.weight(cell.recurrent, {0: units, 1: units})
    call.bias(cell.bias, {0: units})
    tracing.pin_unless_elementwise(call, units, activation=cell.activation)
    zero = before.axis(-1).zero & tracing.keeps_zero(cell.activation)
    output = tracing.Traced.of(
        (inputs.shape[0], cell.units), {-1: state.with_zero(zero)}
    )
    return output, [output]


@keras_iss.register_rule(LeakyRNN)
def leaky_rnn(
    call: tracing.Call, sequences, initial_state=None, mask=None, training=None
):
    return tracing.run_over_time(call, sequences, initial_state)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_a_recurrent_layer_of_ones_own_is_cut_by_the_public_names(activation):
    x = keras.Input((TIME, FEATURES))
    h = LeakyRNN(UNITS, activation, return_sequences=True, name="own")(x)
    h = lstm(name="reader")(h)
    model = keras.Model(x, {"out": flat_head(h)})
    randomize(model)
    small = pruned_and_shrunk(model)
    assert small.get_layer("own").cell.units == UNITS // 2
    assert_equal(model, small)


def test_a_cell_of_ones_own_is_cut_in_the_rnn_of_keras():
    x = keras.Input((TIME, FEATURES))
    h = layers.RNN(LeakyCell(UNITS), return_state=True, name="own")(x)
    model = keras.Model(x, {"out": flat_head(h[0])})
    randomize(model)
    small = pruned_and_shrunk(model)
    assert small.get_layer("own").cell.units == UNITS // 2
    assert_equal(model, small)


def test_an_activation_that_may_mix_the_units_of_ones_own_layer_keeps_them():
    x = keras.Input((TIME, FEATURES))
    h = LeakyRNN(UNITS, "softmax", name="own")(x)
    model = keras.Model(x, layers.Dense(2)(h))
    (structure,) = keras_iss.find_structures(model).values()
    assert "activation `softmax`" in structure.pinned


def test_rhn_comes_in_by_the_public_names():
    source = inspect.getsource(importlib.import_module("keras_iss.layers.rhn"))
    assert "keras_iss.tracing import" in source
    assert "keras_iss.tracing." not in source
