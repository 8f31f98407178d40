"""Models in all forms are run, compared and measured alike."""

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.runtimes.formats import format_of, size_of
from keras_iss.runtimes.inputs import arrays_of, batches_of, random_arrays
from keras_iss.runtimes.runners import InputSpec, runner_of

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def classifier(batch=None, time=6):
    """A model of tokens that knows four classes, with random weights."""
    model = keras.Sequential(
        [
            keras.Input((time,), batch, dtype="int32", name="tokens"),
            keras.layers.Embedding(20, 4),
            keras.layers.LSTM(8, name="lstm"),
            keras.layers.Dense(4, activation="softmax", name="classes"),
        ]
    )
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def samples(count=24, time=6):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 20, (count, time))
    return x, rng.integers(0, 4, count)


def two_inputs():
    a = keras.Input((5, 3), name="signal")
    b = keras.Input((2,), name="person")
    x = keras.layers.LSTM(6, name="lstm")(a)
    x = keras.layers.Concatenate()([x, b])
    outputs = {
        "risk": keras.layers.Dense(1, name="risk")(x),
        "kind": keras.layers.Dense(3, name="kind")(x),
    }
    return keras.Model([a, b], outputs)


def test_a_model_and_its_copy_differ_in_nothing():
    model = classifier()
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    found = keras_iss.compare(model, copy, samples(), latency=False)
    assert found.largest < 1e-6
    assert found.outputs["classes"].same_class == 1
    assert found.samples == 24 and not found.random
    assert found.a.latency is None


def test_the_metrics_are_those_that_evaluate_gives():
    model = classifier()
    x, y = samples()
    loss, accuracy = model.evaluate(x, y, verbose=0)
    found = keras_iss.compare(model, model, (x, y), latency=False).a.metrics
    assert found["sparse_categorical_crossentropy"] == pytest.approx(loss, 1e-4)
    assert found["accuracy"] == pytest.approx(accuracy)


def test_a_model_that_was_loaded_has_the_metrics_it_was_compiled_with(tmp_path):
    classifier().save(tmp_path / "model.keras")
    path = tmp_path / "model.keras"
    found = keras_iss.compare(path, path, samples(), latency=False)
    assert set(found.b.metrics) == {
        "accuracy",
        "sparse_categorical_crossentropy",
    }
    assert found.a.size == path.stat().st_size
    assert found.a.name == "model.keras"


def test_metrics_by_name_and_by_the_kind_of_the_targets():
    model = classifier()
    model = keras.Model(model.inputs, model.outputs)
    x, y = samples()

    def of(targets, **options):
        found = keras_iss.compare(
            model, model, (x, targets), latency=False, **options
        )
        return set(found.a.metrics)

    assert of(y) == {"accuracy"}
    assert of(np.zeros((24, 4), "float32")) == {
        "mean_squared_error",
        "mean_absolute_error",
    }
    name = "sparse_categorical_crossentropy"
    assert of(y, metrics=[name]) == {name}
    with pytest.raises(ValueError, match="no metric `goodness`"):
        of(y, metrics=["goodness"])


def test_what_is_further_off_is_said_to_be():
    model, other = classifier(), classifier()
    x, _ = samples()
    expected, got = model.predict(x, verbose=0), other.predict(x, verbose=0)
    found = keras_iss.compare(model, other, x, latency=False)
    difference = found.outputs["classes"]
    assert difference.largest == pytest.approx(
        np.abs(expected - got).max(), rel=1e-4
    )
    assert difference.same_class == np.mean(
        expected.argmax(-1) == got.argmax(-1)
    )


def test_several_inputs_and_outputs_go_by_their_names():
    model = two_inputs()
    rng = np.random.default_rng(0)
    data = {
        "person": rng.random((7, 2), "float32"),
        "signal": rng.random((7, 5, 3), "float32"),
    }
    targets = {"risk": np.zeros((7, 1)), "kind": np.zeros(7, int)}
    found = keras_iss.compare(model, model, (data, targets), latency=False)
    assert set(found.outputs) == {"risk", "kind"}
    assert set(found.a.metrics) == {
        "risk_mean_squared_error",
        "risk_mean_absolute_error",
        "kind_accuracy",
    }
    expected = model.predict([data["signal"], data["person"]], verbose=0)
    outputs = runner_of(model).run(arrays_of(data, runner_of(model)))
    np.testing.assert_allclose(outputs["kind"], expected["kind"], atol=1e-6)


def test_a_benchmark_counts_its_calls_and_leaves_the_model_as_it_was():
    model = classifier(time=None)
    before = model.get_weights()
    found = keras_iss.benchmark(model, batch_size=2, length=4, runs=3)
    assert found.latency.runs == 3 and found.latency.batch_size == 2
    assert 0 < found.latency.p10 <= found.latency.median <= found.latency.p90
    assert found.shapes == {"tokens": (2, 4)}
    assert found.weights == model.count_params() and found.size is None
    assert keras_iss.benchmark(model, seconds=0).latency.runs == 1
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_states_begin_at_zero_and_are_given_back():
    model = keras.Sequential(
        [
            keras.Input((3, 2), 2),
            keras.layers.LSTM(4, stateful=True, name="lstm"),
        ]
    )
    x = np.ones((2, 3, 2), "float32")
    runner = runner_of(model)
    first = runner.run([x])["lstm"]
    model.predict(x, batch_size=2, verbose=0)
    state = keras.ops.convert_to_numpy(model.layers[0].states[0]).copy()
    assert np.abs(state).max() > 0
    np.testing.assert_allclose(runner.run([x])["lstm"], first, atol=1e-6)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model.layers[0].states[0]), state
    )


def test_random_integers_stay_within_the_tables_they_are_looked_up_in():
    (tokens,) = random_arrays([runner_of(classifier())], 200)
    assert tokens.shape == (200, 6) and tokens.dtype == "int32"
    assert tokens.min() >= 0 and 10 < tokens.max() < 20


class Fixed:
    inputs = (InputSpec("x", (4, None), "float32"),)
    name = "fixed"


def test_batches_of_a_fixed_size_are_filled_up_with_the_last_sample():
    x = np.arange(6, dtype="float32")[:, None]
    first, second = (batch[0][:, 0] for batch in batches_of([x], Fixed(), 2))
    assert list(first) == [0, 1, 2, 3] and list(second) == [4, 5, 5, 5]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 5)), r"shape \(4, 5\); expected \(samples, 6\)"),
        (np.zeros((0, 6)), "hold no samples"),
        ([np.zeros((4, 6))] * 2, r"shape \(2, 4, 6\)"),
        ({"words": np.zeros((4, 6))}, "have no `tokens`"),
        (np.full((4, 6), "a"), "dtype"),
    ],
)
def test_data_that_do_not_fit_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        keras_iss.benchmark(classifier(), data)


def test_models_that_are_not_the_same_are_refused():
    model = classifier()
    with pytest.raises(ValueError, match="are not the same"):
        keras_iss.compare(model, two_inputs())
    other = keras.Sequential(
        [keras.Input((6,), dtype="int32"), keras.layers.Embedding(20, 3)]
    )
    with pytest.raises(ValueError, match=r"has the shape \(16, 4\)"):
        keras_iss.compare(model, other)


def test_a_batch_size_that_a_file_does_not_take_is_refused():
    with pytest.raises(ValueError, match="takes 3 samples in a call"):
        keras_iss.benchmark(classifier(batch=3), batch_size=2)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no"):
        format_of(tmp_path / "nothing.keras")
    with pytest.raises(ValueError, match=r"no `saved_model.pb`"):
        format_of(tmp_path)
    (tmp_path / "a.txt").write_text("12345")
    with pytest.raises(ValueError, match=r"`\.txt`"):
        keras_iss.benchmark(tmp_path / "a.txt")
    assert size_of(tmp_path) == 5


@pytest.mark.skipif(not ON_TENSORFLOW, reason="exports of TensorFlow")
def test_files_of_all_forms_compare_with_the_model(tmp_path):
    pytest.importorskip("ai_edge_litert")
    model, data = classifier(), samples()
    lite, saved = tmp_path / "model.tflite", tmp_path / "saved"
    keras_iss.export_tflite(model, lite, quantize="int8", verify=False)
    keras_iss.export_saved_model(model, saved, verify=False)
    for path, tolerance in ((lite, 0.1), (saved, 1e-5)):
        found = keras_iss.compare(model, path, data, runs=2)
        assert found.largest < tolerance
        assert found.b.size == size_of(path)
        assert found.b.latency.runs == 2
        assert found.b.metrics["accuracy"] == pytest.approx(
            found.a.metrics["accuracy"], abs=0.1
        )
    # Neither of these two says what it was compiled with.
    found = keras_iss.compare(saved, lite, data, latency=False)
    assert found.largest < 0.1 and set(found.a.metrics) == {"accuracy"}
    assert found.a.format == "saved_model" and found.b.format == "tflite"
    assert keras_iss.benchmark(lite, runs=2).shapes == {"tokens": (1, 6)}


@pytest.mark.skipif(not ON_TENSORFLOW, reason="exports of TensorFlow")
def test_a_file_of_integers_that_another_converter_wrote_is_run(tmp_path):
    pytest.importorskip("ai_edge_litert")
    import tensorflow as tf

    weights = tf.constant(np.eye(3, 2, dtype="float32"))
    product = tf.function(
        lambda x: x @ weights,
        input_signature=[tf.TensorSpec((1, 3), tf.float32)],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [product.get_concrete_function()]
    )
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (50, 3)).astype("float32")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in x)
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    path = tmp_path / "integers.tflite"
    path.write_bytes(converter.convert())
    runner = runner_of(path)
    assert runner.inputs[0].dtype == "float32"
    (output,) = runner.run([x[:1]]).values()
    np.testing.assert_allclose(output, x[:1, :2], atol=0.05)


def test_an_onnx_file_is_run(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import helper, numpy_helper

    kernel = np.arange(6, dtype="float32").reshape(3, 2)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "kernel"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", 1, ["n", 3])],
        [helper.make_tensor_value_info("y", 1, ["n", 2])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    onnx.save(proto, tmp_path / "model.onnx")
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, use_bias=False)]
    )
    model.set_weights([kernel])
    x = np.random.default_rng(0).random((5, 3), "float32")
    found = keras_iss.compare(model, tmp_path / "model.onnx", x, runs=2)
    assert found.largest < 1e-5 and found.b.format == "onnx"


def test_what_runs_a_file_is_named_where_it_is_missing(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"keras-iss\[onnx\]"):
        keras_iss.benchmark(tmp_path / "model.onnx")
