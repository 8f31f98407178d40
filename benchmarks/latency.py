"""How fast is what a user ships, beside what else a user could ship?

The dense language model of the paper, two LSTMs of 1500, and its ISS model of
(373, 315): embedding 1500, vocabulary 10,000, 30 steps, one sequence and ten
of them, on two threads. Every row computes the same weights in a process of
its own. The processes take turns; of each, the median over the turns counts.

    python benchmarks/latency.py           # about ten minutes on two cores
    python benchmarks/latency.py --quick   # a small model, to try it
    python benchmarks/latency.py --only 373 10   # one column anew

Writes results/latency.json and results/latency.png.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

STEPS = 30
EMBEDDING = 1500
THREADS = 2
TURNS = 9
SECONDS = 0.4  # Of one row in one turn, at most about.


# Each row: a function from the task to (run, extra). It is called in its own
# process; `run()` gives the logits, `extra` says what was found.


def keras_model(task):
    """The model with the task's weights."""
    import keras
    from common import language_model

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    model = language_model(task.units, task.vocabulary, task.embedding)
    model.set_weights(list(task.weights().values()))
    return model


def keras_call(task):
    """`tf.function` of the Keras model."""
    import tensorflow as tf

    model = keras_model(task)
    call = tf.function(lambda x: model(x, training=False))
    tokens = tf.constant(task.tokens())
    return lambda: call(tokens).numpy(), {}


def keras_export(task):
    """`model.export(format="litert")`, loaded in a plain LiteRT."""
    path = task.folder / "keras.tflite"
    keras_model(task).export(str(path), format="litert", verbose=False)
    return lite(task, path)


def plain_converter(task):
    """TensorFlow's converter with builtin operations, the batch fixed."""
    import tensorflow as tf

    model = keras_model(task)
    call = tf.function(
        lambda tokens: model(tokens, training=False),
        input_signature=[tf.TensorSpec((task.batch, None), tf.int32)],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [call.get_concrete_function()]
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    path = task.folder / "plain.tflite"
    path.write_bytes(converter.convert())
    return lite(task, path)


def ours(quantize=None, recurrent_op="loop"):
    """`keras_iss.export_tflite`."""

    def row(task):
        import psutil

        import keras_iss

        model = keras_model(task)
        path = task.folder / f"ours_{quantize}_{recurrent_op}.tflite"
        before = psutil.Process().memory_info().rss
        start = time.perf_counter()
        keras_iss.export_tflite(
            model,
            path,
            batch_size=task.batch,
            quantize=quantize,
            recurrent_op=recurrent_op,
            verify=False,
        )
        seconds = time.perf_counter() - start
        run, extra = lite(task, path)
        extra["export_seconds"] = seconds
        extra["export_memory"] = (peak_memory() - before) / task.size()
        return run, extra

    return row


def ours_saved_model(task):
    """`keras_iss.export_saved_model`."""
    import tensorflow as tf

    import keras_iss

    path = task.folder / "saved_model"
    exported = keras_iss.export_saved_model(
        keras_model(task), path, verify=False
    )
    loaded = tf.saved_model.load(str(path))
    tokens = tf.constant(task.tokens())
    return (
        lambda: loaded.serve(tokens)["logits"].numpy(),
        {"megabytes": exported.size / 1e6},
    )


def onnx_runtime(task):
    """ONNX's LSTM operation in ONNX Runtime."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weights = task.weights()

    def reordered(x):
        i, f, g, o = np.split(x, 4, axis=-1)
        return np.concatenate([i, o, f, g], axis=-1)

    constants = {
        "embedding": weights["embedding"],
        "kernel": weights["kernel"],
        "bias": weights["bias"],
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Transpose", ["tokens"], ["by_time"], perm=[1, 0]),
        helper.make_node("Gather", ["embedding", "by_time"], ["x_0"]),
    ]
    for i, units in enumerate(task.units, start=1):
        bias = reordered(weights[f"bias_{i}"])
        constants |= {
            f"W_{i}": reordered(weights[f"kernel_{i}"]).T[None],
            f"R_{i}": reordered(weights[f"recurrent_{i}"]).T[None],
            f"B_{i}": np.concatenate([bias, np.zeros_like(bias)])[None],
        }
        names = [f"x_{i - 1}", f"W_{i}", f"R_{i}", f"B_{i}"]
        nodes += [
            helper.make_node("LSTM", names, [f"y_{i}"], hidden_size=units),
            helper.make_node("Squeeze", [f"y_{i}", "axis"], [f"x_{i}"]),
        ]
    nodes += [
        helper.make_node(
            "Transpose", [f"x_{len(task.units)}"], ["last"], perm=[1, 0, 2]
        ),
        helper.make_node("MatMul", ["last", "kernel"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "language_model",
        [
            helper.make_tensor_value_info(
                "tokens", TensorProto.INT32, [task.batch, None]
            )
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.ascontiguousarray(value), name)
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    content = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"]
    )
    tokens = task.tokens()
    return (
        lambda: session.run(None, {"tokens": tokens})[0],
        {"megabytes": len(content) / 1e6},
    )


def pytorch(quantized):
    """PyTorch's LSTM and Linear, in float32 or with dynamic int8."""

    def row(task):
        import torch

        torch.set_num_threads(THREADS)
        weights = task.weights()

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding = torch.nn.Embedding(
                    task.vocabulary, task.embedding
                )
                sizes = [task.embedding, *task.units]
                self.lstms = torch.nn.ModuleList(
                    torch.nn.LSTM(inputs, units, batch_first=True)
                    for inputs, units in itertools.pairwise(sizes)
                )
                self.logits = torch.nn.Linear(sizes[-1], task.vocabulary)

            def forward(self, x):
                x = self.embedding(x)
                for lstm in self.lstms:
                    x, _ = lstm(x)
                return self.logits(x)

        model = Model().eval()

        def put(parameter, value):
            parameter.data = torch.from_numpy(np.ascontiguousarray(value))

        put(model.embedding.weight, weights["embedding"])
        for i, lstm in enumerate(model.lstms, start=1):
            put(lstm.weight_ih_l0, weights[f"kernel_{i}"].T)
            put(lstm.weight_hh_l0, weights[f"recurrent_{i}"].T)
            put(lstm.bias_ih_l0, weights[f"bias_{i}"])
            put(lstm.bias_hh_l0, 0 * weights[f"bias_{i}"])
        put(model.logits.weight, weights["kernel"].T)
        put(model.logits.bias, weights["bias"])
        if quantized:
            model = torch.ao.quantization.quantize_dynamic(
                model, {torch.nn.LSTM, torch.nn.Linear}
            )
        path = task.folder / f"torch_{quantized}.pt"
        torch.save(model.state_dict(), path)
        tokens = torch.from_numpy(task.tokens()).long()

        def run():
            with torch.inference_mode():
                return model(tokens).numpy()

        return run, {"megabytes": path.stat().st_size / 1e6}

    return row


def bare_products(task):
    """Only the products over all steps, in LiteRT: what is left to win."""
    import tensorflow as tf

    weights = task.weights()
    sizes = [task.embedding, *task.units]

    def call(tokens):
        x = tf.gather(weights["embedding"], tf.transpose(tokens))
        for i, units in enumerate(sizes[1:], start=1):
            x = tf.matmul(x, weights[f"kernel_{i}"]) + weights[f"bias_{i}"]
            x = x[:, :, :units]
        x = tf.transpose(x, [1, 0, 2])
        return tf.matmul(x, weights["kernel"]) + weights["bias"]

    call = tf.function(
        call, input_signature=[tf.TensorSpec((task.batch, STEPS), tf.int32)]
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [call.get_concrete_function()]
    )
    path = task.folder / "bare.tflite"
    path.write_bytes(converter.convert())
    return lite(task, path)


ROWS = {
    "Keras, tf.function": keras_call,
    "Keras, export(format='litert')": keras_export,
    "plain converter, builtins only": plain_converter,
    "fused operation, float32": ours(recurrent_op="fused"),
    "fused operation, int8": ours("int8", recurrent_op="fused"),
    "keras-iss, float32": ours(),
    "keras-iss, float16": ours("float16"),
    "keras-iss, int8": ours("int8"),
    "keras-iss, SavedModel": ours_saved_model,
    "ONNX Runtime, float32": onnx_runtime,
    "PyTorch, float32": pytorch(quantized=False),
    "PyTorch, dynamic int8": pytorch(quantized=True),
    # Its result is another one: nothing is recurrent in it.
    "(no loops: products only, float32)": bare_products,
}


def lite(task, path):
    """A TFLite file in LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    from keras_iss.export import flatbuffer

    content = path.read_bytes()
    extra = {
        "megabytes": len(content) / 1e6,
        "operators": flatbuffer.operators(content),
    }
    interpreter = Interpreter(model_content=content, num_threads=THREADS)
    (details,) = interpreter.get_input_details()
    tokens = task.tokens()
    interpreter.resize_tensor_input(details["index"], tokens.shape)
    interpreter.allocate_tensors()
    (output,) = interpreter.get_output_details()

    def run():
        interpreter.set_tensor(details["index"], tokens)
        interpreter.invoke()
        return interpreter.get_tensor(output["index"])

    return run, extra


def peak_memory():
    """The most bytes that this process has held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Task:
    """A model, a batch, and a folder for files.

    Attributes:
        units: Tuple of the sizes of the LSTMs.
        batch: Number of sequences.
        vocabulary: Integer.
        embedding: Integer.
        folder: `pathlib.Path`.
    """

    def __init__(self, units, batch, vocabulary, embedding, folder):
        self.units = units
        self.batch = batch
        self.vocabulary = vocabulary
        self.embedding = embedding
        self.folder = folder

    def weights(self):
        """Dict of arrays in the order of the Keras model's weights."""
        random = np.random.default_rng(0)

        def array(*shape):
            scale = 1 / np.sqrt(shape[0]) if len(shape) > 1 else 0.1
            return (scale * random.standard_normal(shape)).astype("float32")

        weights = {
            "embedding": array(self.vocabulary, self.embedding)
            * np.sqrt(self.vocabulary, dtype="float32")
        }
        inputs = self.embedding
        for i, units in enumerate(self.units, start=1):
            weights[f"kernel_{i}"] = array(inputs, 4 * units)
            weights[f"recurrent_{i}"] = array(units, 4 * units)
            weights[f"bias_{i}"] = array(4 * units)
            inputs = units
        weights["kernel"] = array(inputs, self.vocabulary)
        weights["bias"] = array(self.vocabulary)
        return weights

    def size(self):
        """Bytes of the weights."""
        return sum(x.nbytes for x in self.weights().values())

    def tokens(self):
        """Integers of shape (batch, steps)."""
        random = np.random.default_rng(1)
        shape = (self.batch, STEPS)
        return random.integers(0, self.vocabulary, shape).astype("int32")


def work(name, task, pipe):
    """A row's process: gets ready, then runs whenever it is asked to."""
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        run, extra = ROWS[name](task)
        logits = np.array(run())
        start = time.perf_counter()
        run()
        spent = time.perf_counter() - start
        reference = task.folder / "reference.npy"
        if name == next(iter(ROWS)):
            np.save(reference, logits)
        expected = np.load(reference)
        extra["error"] = float(np.abs(logits - expected).max())
        repeats = int(np.clip(SECONDS / spent, 1, 20))
        pipe.send(("ready", extra))
    except BaseException as error:
        text = str(error).strip() or traceback.format_exc()
        pipe.send(("failed", text.splitlines()[0][:300]))
        return
    while pipe.recv():
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        pipe.send(1000 * statistics.median(times))


def measure(task, turns):
    """All rows on one task.

    Returns:
        Dict from the name of a row to what was found.
    """
    context = multiprocessing.get_context("spawn")
    found, workers = {}, {}
    for name in ROWS:
        here, there = context.Pipe()
        process = context.Process(
            target=work, args=(name, task, there), daemon=True
        )
        process.start()
        there.close()
        try:
            state, value = here.recv()
        except EOFError:
            process.join()
            state, value = "failed", f"process ended with {process.exitcode}"
        if state == "ready":
            found[name] = value
            workers[name] = (process, here, [])
        else:
            found[name] = {"failed": value}
        print(f"    {name}: {state}", flush=True)
    for _ in range(turns):
        for _, pipe, times in workers.values():
            pipe.send(True)
            times.append(pipe.recv())
            time.sleep(0.05)
    for name, (process, pipe, times) in workers.items():
        pipe.send(False)
        process.join()
        found[name]["milliseconds"] = statistics.median(times)
        found[name]["turns"] = times
    ours = found["keras-iss, float32"].get("milliseconds")
    for row in found.values():
        if "milliseconds" in row and ours:
            row["ratio_to_ours"] = row["milliseconds"] / ours
    return found


def draw(results, path):
    """A group of bars for each model and batch."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(results), figsize=(5 * len(results), 5), layout="constrained"
    )
    for axis, (title, rows) in zip(np.atleast_1d(axes), results.items()):
        rows = {k: v for k, v in rows.items() if "milliseconds" in v}
        colors = [
            "tab:blue" if name.startswith("keras-iss") else "tab:gray"
            for name in rows
        ]
        bars = axis.barh(
            list(rows), [v["milliseconds"] for v in rows.values()], color=colors
        )
        axis.bar_label(bars, fmt="%.1f", padding=2)
        axis.set(title=title, xlabel="milliseconds", xscale="log")
        axis.invert_yaxis()
        if axis is not np.atleast_1d(axes)[0]:
            axis.set_yticklabels([])
    figure.savefig(path, dpi=100)


def main():
    """Reads the command line, measures, and writes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument(
        "--only",
        nargs=2,
        type=int,
        metavar=("UNITS", "BATCH"),
        help="one column anew: units of the first LSTM, and sequences",
    )
    arguments = parser.parse_args()
    quick, only = arguments.quick, arguments.only
    sizes = [(24, 20)] if quick else [(373, 315), (1500, 1500)]
    vocabulary, embedding = (200, 24) if quick else (10_000, EMBEDDING)
    # Here, so that the processes of the rows can choose their own backend.
    import common

    results, path = {}, common.RESULTS / "latency.json"
    if only:
        results = json.loads(path.read_text())["results"]
    for units in sizes:
        for batch in (1, 10):
            if only and only != [units[0], batch]:
                continue
            title = f"{units}, batch {batch}"
            print(title, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                task = Task(
                    units, batch, vocabulary, embedding, pathlib.Path(folder)
                )
                results[title] = measure(task, 2 if quick else TURNS)
            for name, row in results[title].items():
                print(
                    f"  {name:36s}",
                    row.get("failed")
                    or f"{row['milliseconds']:9.2f} ms "
                    f"{row['ratio_to_ours']:6.2f} "
                    f"{row.get('megabytes', 0):7.1f} MB "
                    f"error {row['error']:.1e}"
                    f" memory {row.get('export_memory', 0):.1f}",
                    flush=True,
                )
    if quick:
        return
    common.write("latency", {"cpu": cpu(), "results": results})
    draw(results, common.RESULTS / "latency.png")


def cpu():
    """What /proc/cpuinfo calls the processor, where there is one."""
    path = pathlib.Path("/proc/cpuinfo")
    if not path.is_file():
        return None
    lines = path.read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in found.items()}
    flags = found.get("flags", "").split()
    return {
        "name": found.get("model name"),
        "features": [x for x in flags if x.startswith(("avx", "amx", "fma"))],
    }


if __name__ == "__main__":
    main()
