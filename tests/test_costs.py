"""What a model costs, told by what it costs at some sizes; and as a target."""

import dataclasses
import importlib.util
import itertools
import json
import pathlib
import subprocess

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.costs import measuring
from keras_iss.costs.fitting import non_negative
from keras_iss.costs.shapes import shapes_of, sizes_of
from keras_iss.costs.table import CostTable, Probe
from tests.cases import CASES, head, lstm, randomize, sequence

BACKEND = keras.backend.backend()
on_torch = pytest.mark.on_torch


def two(first=24, second=16):
    x = sequence()
    h = lstm(first, return_sequences=True, name="first")(x)
    h = keras.layers.GRU(second, name="second")(h)
    model = keras.Model(x, head(h))
    randomize(model)
    return model


def true_ms(sizes):
    """A device on which the two layers are of different speeds."""
    a, b = sizes["first"], sizes["second"]
    return 0.2 + 4e-4 * a * (a + 3) + 1e-4 * b * (a + b) + 2e-3 * b


def true_bytes(sizes):
    a, b = sizes["first"], sizes["second"]
    return 9000 + 16 * a * (a + 3) + 12 * b * (a + b) + 4 * (7 * b + 4 * a)


def table_of(model, timed=True, round_to=1, include=("recurrent",)):
    structures = keras_iss.find_structures(model, include)
    full = sizes_of(structures)
    shares = itertools.product((1, 0.6, 0.3, 0.1), repeat=2)
    probes = []
    for i, part in enumerate(shares):
        sizes = {n: max(1, int(p * full[n])) for n, p in zip(full, part)}
        spent = true_ms(sizes) if timed else None
        probes.append(Probe(f"{i}.tflite", sizes, true_bytes(sizes), spent))
    return CostTable(
        model.name,
        full,
        shapes_of(structures),
        tuple(probes),
        round_to=round_to,
        device="a device" if timed else "",
    )


def alive(model):
    return {s.name: s.alive for s in keras_iss.find_structures(model)}


@on_torch
def test_costs_between_the_probes_are_told():
    table = table_of(two())
    for a, b in itertools.product((2, 5, 11, 20), (3, 7, 16)):
        sizes = {"first": a, "second": b}
        assert table.latency_ms(sizes) == pytest.approx(true_ms(sizes), 0.01)
        told = table.size_kb(sizes) * 1e3
        assert told == pytest.approx(true_bytes(sizes), 0.01)
    assert table.latency_error < 0.02


@on_torch
@pytest.mark.parametrize("name", sorted(CASES)[::5])
def test_elements_of_weights_are_those_that_shrink_leaves(name):
    model = CASES[name]()
    model, include = model if isinstance(model, tuple) else (model, None)
    structures = keras_iss.find_structures(model, include or ("recurrent",))
    if not structures.free:
        pytest.skip("its structures are pinned")
    kept = {x.name: np.arange(max(1, x.size // 2)) for x in structures.free}
    left, full = sizes_of(structures, kept), sizes_of(structures)
    fewer = sum(
        weight.elements(full) - weight.elements(left)
        for weight in shapes_of(structures)
    )
    counts = structures.counts(), structures.counts(keep=kept)
    assert fewer == counts[0].weights - counts[1].weights
    multiplied = sum(
        weight.uses * (weight.elements(full) - weight.elements(left))
        for weight in shapes_of(structures)
    )
    assert multiplied == counts[0].mult_adds - counts[1].mult_adds


@on_torch
def test_costs_never_fall_with_a_size():
    table = table_of(two())
    rng = np.random.default_rng(0)
    noisy = {
        x.file: x.milliseconds * rng.uniform(0.7, 1.3) for x in table.probes
    }
    table = table.timed(noisy, "a busy device")
    assert table.latency_error > 0.02
    for a, b in itertools.product(range(1, 24, 5), range(1, 16, 4)):
        now = table.latency_ms({"first": a, "second": b})
        assert now <= table.latency_ms({"first": a + 1, "second": b})
        assert now <= table.latency_ms({"first": a, "second": b + 1})


@on_torch
def test_no_probe_is_larger_than_it_is_told():
    table = table_of(two())
    uneven = tuple(
        Probe(x.file, x.sizes, x.bytes + 37 * (i % 5), x.milliseconds)
        for i, x in enumerate(table.probes)
    )
    table = CostTable("model", table.sizes, table.weights, uneven)
    for probe in table.probes:
        assert probe.bytes <= 1e3 * table.size_kb(probe.sizes) + 1e-6


@on_torch
def test_least_squares_without_negative_numbers():
    rng = np.random.default_rng(0)
    for _ in range(20):
        matrix, goal = rng.normal(size=(12, 5)), rng.normal(size=12)
        found = non_negative(matrix, goal)
        slope = matrix.T @ (goal - matrix @ found)
        assert (found >= 0).all()
        np.testing.assert_allclose(slope[found > 0], 0, atol=1e-9)
        assert (slope[found == 0] <= 1e-9).all()


@on_torch
@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("round_to", [1, 4])
def test_milliseconds_are_met_over_all_structures(share, round_to):
    model = two()
    table = table_of(model, round_to=round_to)
    least, full = 0.21, true_ms(table.sizes)
    asked = least + share * (full - least)
    keras_iss.prune(model, latency_ms=asked, costs=table)
    left = alive(model)
    assert 0.9 * asked < true_ms(left) <= 1.01 * asked
    fewer = [left[name] < table.sizes[name] for name in left]
    assert any(fewer) if share > 0.5 else all(fewer)
    assert all(size % round_to == 0 for size in left.values())


@on_torch
def test_kilobytes_are_met_and_never_exceeded():
    model = two()
    table = table_of(model, timed=False)
    for asked in (20, 15, 11):
        keras_iss.prune(model, size_kb=asked, costs=table)
        assert 0.94 * asked < true_bytes(alive(model)) / 1e3 <= asked


@on_torch
def test_what_a_large_block_leaves_is_used():
    """A unit of the first layer costs more than one of the second."""
    model = two()
    table = table_of(model, timed=False)
    names = {"first": np.full(24, 1.0), "second": np.linspace(0.5, 1.5, 16)}
    for asked in np.linspace(11, 21, 11):
        model = two()
        keras_iss.prune(model, size_kb=asked, costs=table, importance=names)
        left = alive(model)
        assert table.size_kb(left) <= asked
        for name, size in left.items():
            # Not one more of any would do.
            if size < table.sizes[name]:
                assert table.size_kb({**left, name: size + 1}) > asked


@on_torch
def test_multiples_of_the_target_and_of_the_costs_go_together():
    model = two()
    table = table_of(model, round_to=4)
    keras_iss.prune(model, latency_ms=0.35, costs=table, round_to={"first": 6})
    left = alive(model)
    assert left["first"] % 12 == 0 and left["second"] % 4 == 0


@on_torch
def test_what_counts_is_what_stays():
    """Components that are removed already cost nothing."""
    model = two()
    table = table_of(model)
    keras_iss.prune(model, keep={"first": 6})
    assert true_ms(alive(model)) < 0.4
    keras_iss.prune(model, latency_ms=0.4, costs=table)
    assert alive(model) == {"first": 6, "second": 16}


@on_torch
def test_the_path_of_costs_does_as_well(tmp_path):
    model = two()
    table = table_of(model, round_to=4)
    table = dataclasses.replace(table, options={"batch_size": np.int64(2)})
    table.save(tmp_path / "costs.json")
    loaded = CostTable.load(tmp_path / "costs.json")
    assert loaded == table
    assert str(loaded) == str(table) and "a device" in str(loaded)
    keras_iss.prune(model, latency_ms=0.35, costs=str(tmp_path / "costs.json"))
    assert true_ms(alive(model)) <= 0.35 * 1.01


@on_torch
@pytest.mark.parametrize("asked", [{"latency_ms": 0.3}, {"size_kb": 14}])
def test_a_training_ends_at_the_cost(asked):
    model = two()
    model.compile("adam", "mse")
    x = np.ones((8, 5, 3), "float32")
    y = np.zeros((8, *model.output_shape[1:]), "float32")
    budget = keras_iss.ISSBudget(**asked, costs=table_of(model))
    small = keras_iss.fit(model, x, y, epochs=4, verbose=0, callbacks=[budget])
    left = {s.name: s.size for s in keras_iss.find_structures(small)}
    (amount,) = asked.values()
    spent = true_ms(left) if "latency_ms" in asked else true_bytes(left) / 1e3
    assert 0.85 * amount < spent <= 1.01 * amount


@on_torch
@pytest.mark.parametrize("asked", [{"latency_ms": 0.4}, {"size_kb": 15}])
def test_without_costs_they_are_measured(monkeypatch, asked):
    called = []

    def measured(model, **how):
        called.append((model.name, how))
        return table_of(model, timed=how["latency"])

    monkeypatch.setattr(measuring, "measure_costs", measured)
    model = two()
    keras_iss.prune(model, **asked)
    how = {"latency": "latency_ms" in asked, "include": ("recurrent",)}
    assert called == [(model.name, how)]
    (amount,) = asked.values()
    left = alive(model)
    spent = true_ms(left) if "latency_ms" in asked else true_bytes(left) / 1e3
    assert 0.9 * amount < spent <= 1.01 * amount

    # A training measures the model at full size, which it may be told.
    model = two()
    model.compile("adam", "mse")
    x = np.ones((8, 5, 3), "float32")
    y = np.zeros((8, *model.output_shape[1:]), "float32")
    keras_iss.prune(model, keep={"first": 20})
    small, full = keras_iss.shrink(model), two()
    budget = keras_iss.ISSBudget(**asked, of=full)
    small.fit(x, y, epochs=2, verbose=0, callbacks=[budget])
    assert [name for name, _ in called[1:]] == [full.name]
    left = alive(small)
    spent = true_ms(left) if "latency_ms" in asked else true_bytes(left) / 1e3
    assert 0.9 * amount < spent <= 1.01 * amount


@on_torch
def test_a_layer_that_is_not_trained_keeps_its_cost():
    model = two()
    model.get_layer("first").trainable = False
    model.compile("adam", "mse")
    x = np.ones((8, 5, 3), "float32")
    y = np.zeros((8, *model.output_shape[1:]), "float32")
    budget = keras_iss.ISSBudget(latency_ms=0.5, costs=table_of(model))
    with pytest.warns(UserWarning, match="leaves `first` alone"):
        model.fit(x, y, epochs=2, verbose=0, callbacks=[budget])
    left = alive(model)
    assert left["first"] == 24 and 0.45 < true_ms(left) <= 0.505


@on_torch
def test_a_cost_that_is_met_already_is_refused_by_a_training():
    model = two()
    model.compile("adam", "mse")
    x = np.ones((8, 5, 3), "float32")
    y = np.zeros((8, *model.output_shape[1:]), "float32")
    budget = keras_iss.ISSBudget(latency_ms=50, costs=table_of(model))
    with pytest.raises(ValueError, match=r"met already: 0.5.* ms are left, 50"):
        model.fit(x, y, epochs=2, verbose=0, callbacks=[budget])


@on_torch
@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"latency_ms": 0}, ValueError, "`latency_ms` must be above zero"),
        ({"latency_ms": -1.0}, ValueError, "must be above zero"),
        ({"latency_ms": np.nan}, ValueError, "above zero and finite"),
        ({"size_kb": np.inf}, ValueError, "above zero and finite"),
        ({"size_kb": "8"}, TypeError, "`size_kb` must be a number"),
        ({"size_kb": True}, TypeError, "`size_kb` must be a number"),
        ({"latency_ms": 0.1}, ValueError, r"cannot be reached: .* ms stay"),
        ({"size_kb": 5}, ValueError, r"cannot be reached: .* kB stay"),
        ({"size_kb": 5, "units": 3}, ValueError, "Exactly one of"),
        ({"weights": 0.5}, ValueError, "`costs` goes with `latency_ms`"),
        ({"size_kb": 8, "costs": 3}, TypeError, "must be a `CostTable`"),
        ({"size_kb": 8, "costs": "no.json"}, OSError, "no.json"),
    ],
)
def test_costs_that_make_no_sense(asked, error, message):
    model = two()
    before = model.get_weights()
    with pytest.raises(error, match=message):
        keras_iss.prune(model, **{"costs": table_of(model), **asked})
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@on_torch
def test_costs_without_milliseconds_say_how_to_get_some():
    model = two()
    with pytest.raises(ValueError, match="Measure them here with"):
        keras_iss.ISSBudget(latency_ms=1, costs=table_of(model, timed=False))


@on_torch
def test_costs_of_another_model_are_refused():
    table = table_of(two())
    with pytest.raises(ValueError, match="Measure them at full size"):
        keras_iss.prune(two(25), latency_ms=0.3, costs=table)
    with pytest.raises(ValueError, match="`dense` is none of them"):
        keras_iss.prune(
            keras.Sequential(
                [
                    keras.Input((5, 3)),
                    keras.layers.LSTM(8, name="first"),
                    keras.layers.Dense(4, name="dense"),
                    keras.layers.Dense(1, name="out"),
                ]
            ),
            latency_ms=0.3,
            costs=table,
            include=("recurrent", "dense"),
        )
    with pytest.raises(ValueError, match="`second`, whose size is not given"):
        table.latency_ms({"first": 3})


@on_torch
@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"format": "other"}'])
def test_a_file_that_holds_no_costs(tmp_path, text):
    (tmp_path / "costs.json").write_text(text)
    with pytest.raises(ValueError, match="holds no table of costs"):
        CostTable.load(tmp_path / "costs.json")


def printed(name, average, median=None):
    """As `benchmark_model` prints it, on a phone."""
    spread = f" p5=1 median={median} p95=9" if median else ""
    return f"""STARTING!
Log parameter values verbosely: [0]
Num threads: [1]
Graph: [/data/local/tmp/probes/{name}]
Loaded model /data/local/tmp/probes/{name}
The input model file size (MB): 0.06
Initialized session in 1.2ms.
count=1390 first=900 curr=353 min=300 max=1200 avg=359.1 std=21{spread}
Running benchmark for at least 50 iterations
count=2802 first=355 curr=350 min=340 max=1211 avg={average} std=17{spread}
Inference timings in us: Init: 1200, First inference: 900, \
Warmup (avg): 359.1, Inference (avg): {average}
Note: as the benchmark tool itself affects memory footprint
"""


@pytest.fixture
def folder(tmp_path):
    table_of(two(), timed=False).save(tmp_path / "probes.json")
    return tmp_path


@on_torch
def test_times_of_a_phone_in_one_file(folder):
    log = folder / "results.txt"
    log.write_text(
        printed("0.tflite", "1.5e+03")
        + printed("1.tflite", "1100.5", "1050")
        + printed("5.tflite", "700")
    )
    table = CostTable.from_benchmark_model(folder, log, "a phone")
    spent = {x.file: x.milliseconds for x in table.probes if x.milliseconds}
    # The median, where it is printed.
    assert spent == {"0.tflite": 1.5, "1.tflite": 1.05, "5.tflite": 0.7}
    assert table.device == "a phone" and table.has_times
    model = two()
    keras_iss.prune(model, latency_ms=1.0, costs=table)
    assert table.latency_ms(alive(model)) <= 1.0


@on_torch
def test_times_of_a_phone_in_other_forms(folder):
    line = printed("x", "800").splitlines()[-2]
    for name in ("0", "1"):
        (folder / f"{name}.txt").write_text(f"INFO: {line}\n")
    (folder / "a.csv").write_text("file,us\n0.tflite,800\n1.tflite,800,2\n")
    (folder / "b.csv").write_text("0.tflite, 800\n\n1.tflite, 800\n")
    (folder / "c.json").write_text(
        json.dumps({"0.tflite": 800, "1.tflite": 800})
    )
    for results in (
        [folder / "0.txt", folder / "1.txt"],
        folder / "a.csv",
        str(folder / "b.csv"),
        folder / "c.json",
        {"0.tflite": 0.8, "1.tflite": 0.8},
    ):
        table = CostTable.from_benchmark_model(folder, results)
        assert [x.milliseconds for x in table.probes[:3]] == [0.8, 0.8, None]


@on_torch
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.txt", "Segmentation fault", "no line with `Inference"),
        ("r.txt", printed("0.tflite", "3"), "at least two are needed"),
        ("r.txt", printed("y.tflite", "3"), "`y.tflite` is no file of this"),
        ("r.csv", "0.tflite,fast\n", "the name of a .tflite file"),
        ("r.json", "[3]", "the name of a .tflite file"),
        ("r.json", '{"0.tflite": 0, "1.tflite": 3}', "a time is above zero"),
    ],
)
def test_times_that_cannot_be_read(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        CostTable.from_benchmark_model(folder, folder / name)
    with pytest.raises(TypeError, match="`results` must be"):
        CostTable.from_benchmark_model(folder, 3)
    same = [folder / "two.json"] * 2
    same[0].write_text('{"0.tflite": 2}')
    with pytest.raises(ValueError, match="an earlier file has, too"):
        CostTable.from_benchmark_model(folder, same)


@on_torch
def test_times_that_vela_estimates(folder, monkeypatch):
    """As it writes them, in seconds."""

    def vela(command, **_):
        path = pathlib.Path(command[3])
        place = pathlib.Path(command[command.index("--output-dir") + 1])
        number = int(path.stem)
        if "ethos-x" in command:
            return subprocess.CompletedProcess(command, 2, "", "unknown NPU")
        (place / f"{path.stem}_summary_Embedded.csv").write_text(
            "network,batch_size,inference_time,cycles_total\n"
            f"{path.stem},1,{0.004 - number * 1e-4},2075748\n"
        )
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", vela)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    table = CostTable.from_vela(folder)
    assert [x.milliseconds for x in table.probes[:3]] == pytest.approx(
        [4.0, 3.9, 3.8]
    )
    assert table.device == "ethos-u55-128, estimated by Vela"
    with pytest.raises(ValueError, match="does not take `.*`: unknown NPU"):
        CostTable.from_vela(folder, "ethos-x")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="Vela is not installed"):
        CostTable.from_vela(folder)


on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="exports run on TensorFlow"
)


@on_tensorflow
@pytest.mark.parametrize(
    "quantize", ["int8", pytest.param(None, marks=pytest.mark.on_torch)]
)
def test_costs_that_are_measured_here(tmp_path, quantize):
    """Without a look at how long anything took."""
    x = sequence()
    model = keras.Model(x, head(keras.layers.GRU(24, name="gru")(x)))
    folder = tmp_path / "probes"
    costs = keras_iss.measure_costs(
        model, quantize=quantize, probes=4, seconds=0.2, folder=folder
    )
    names = [x.file for x in costs.probes]
    assert [x.name for x in sorted(folder.iterdir())] == [
        "costs.json",
        *names,
        "probes.json",
    ]
    assert [x.sizes["gru"] for x in costs.probes] == [24, 16, 12, 8]
    assert costs.has_times and costs.options == {"quantize": quantize}
    assert CostTable.load(folder / "costs.json") == costs
    spent = [costs.latency_ms({"gru": n}) for n in (1, 10, 20, 24)]
    assert spent[0] > 0 and spent == sorted(spent)
    asked = costs.size_kb({"gru": 14})
    keras_iss.prune(model, size_kb=asked, costs=costs)
    done = keras_iss.export_tflite(
        keras_iss.shrink(model, verify=False),
        tmp_path / "small.tflite",
        quantize=quantize,
        verify=False,
    )
    assert 0.97 * asked < done.size / 1e3 <= 1.01 * asked


@on_tensorflow
def test_probes_are_all_written_or_none(tmp_path, monkeypatch):
    model = two()
    with pytest.raises(TypeError, match="`verify` is of no use"):
        keras_iss.write_cost_probes(model, tmp_path / "new", verify=True)
    with pytest.raises(ValueError, match="quantize='int4' is unknown"):
        keras_iss.write_cost_probes(model, tmp_path / "new", quantize="int4")
    with pytest.raises(FileNotFoundError, match="to put `new` in"):
        keras_iss.write_cost_probes(model, tmp_path / "none" / "new")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").write_text("")
    with pytest.raises(FileExistsError, match="a folder of their own"):
        keras_iss.write_cost_probes(model, tmp_path)


@pytest.mark.skipif(
    BACKEND != "tensorflow" or importlib.util.find_spec("ethosu") is None,
    reason="no ethos-u-vela",
)
@pytest.mark.long
def test_vela_tells_that_smaller_files_take_less(tmp_path):
    x = keras.Input((6, 4))
    h = keras.layers.LSTM(16, name="lstm")(x)
    model = keras.Model(x, keras.layers.Dense(2)(h))
    keras_iss.write_cost_probes(
        model,
        tmp_path / "probes",
        probes=3,
        target="micro",
        representative_data=np.ones((4, 6, 4), "float32"),
    )
    costs = CostTable.from_vela(tmp_path / "probes")
    spent = [x.milliseconds for x in costs.probes]
    assert spent == sorted(spent, reverse=True)
    keras_iss.prune(model, latency_ms=spent[1], costs=costs)
    assert 4 <= alive(model)["lstm"] <= 12
