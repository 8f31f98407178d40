"""The examples of real jobs, small and on made-up data."""

import dataclasses
import importlib
import json
import pathlib
import sys
from unittest import mock

import keras
import numpy as np
import pytest

import keras_iss

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import real_job

random = np.random.default_rng(0)


def classes(shape, count):
    """Inputs whose level tells their class."""
    y = np.arange(shape[0], dtype="int32") % count
    x = random.normal(size=shape).astype("float32")
    return x + y.reshape(-1, *[1] * (len(shape) - 1)), y


def recordings_of_unequal_length(count):
    speakers = importlib.import_module("speakers")
    x, y = classes((count, speakers.FEATURES, speakers.LONGEST), 9)
    series = [values[:, : 7 + row] for row, values in enumerate(x)]
    return speakers.padded(series), y


def wave_with_a_mistake():
    values = np.sin(np.arange(184) / 4).astype("float32")
    test = values[92:].copy()
    test[70:76] = 2.5
    return values[:92], test, np.arange(70, 76)


def job_of(name):
    """The job of an example, as it is but for its data and its size."""
    module = importlib.import_module(name)
    if name == "speakers":
        given = (
            recordings_of_unequal_length(18),
            recordings_of_unequal_length(9),
        )
    elif name == "gestures":
        given = classes((8, 100, 6), 4), classes((4, 100, 6), 4)
    elif name == "energy":
        x = random.normal(size=(32, 12, 1)).astype("float32")
        given = (x, x[:, :, 0]), (x[:8], x[:8, :, 0])
    else:
        given = (wave_with_a_mistake(),)
    job = module.job(*given)
    layers = [x.name for x in keras_iss.find_structures(job.build({}))]
    return dataclasses.replace(
        job,
        build=lambda units: job.build(dict.fromkeys(layers, 6) | units),
        epochs=2,
        batch=32,
        share=0.5,
    )


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="once is enough")
@pytest.mark.parametrize("name", ["speakers", "gestures", "energy", "heart"])
def test_a_job_trains_three_models_two_of_them_of_the_same_smaller_sizes(name):
    job = job_of(name)
    models, history = real_job.train(job, seed=0)
    found = real_job.measured(job, models)
    dense, iss, small = (found[kind] for kind in real_job.KINDS)
    assert set(dense["units"]) == {6}
    assert iss["units"] == small["units"]
    assert iss["recurrent_weights"] <= 0.5 * dense["recurrent_weights"]
    assert len(history.history["loss"]) == 2
    for kind in real_job.KINDS:
        assert np.isfinite(found[kind][job.metric])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="it exports"
)
def test_a_job_leaves_files_that_run_a_page_and_what_its_table_shows(tmp_path):
    pytest.importorskip("ai_edge_litert")
    job = job_of("energy")
    dense, small = job.model({}), job.model({"gru_1": 3})
    iss = keras_iss.shrink(dense, keep={"gru_1": 3}, verify=False)
    trained = dict(zip(real_job.KINDS, (dense, iss, small)))
    history = {"loss": [0.5, 0.4]}
    with mock.patch.object(real_job, "train", return_value=(trained, history)):
        result = real_job.run(job, [3], tmp_path)
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["seeds"]["3"] == result["seeds"][3]
    for name, error in (("float32", 1e-5), ("int8", 0.05)):
        for kind in ("dense", "ISS"):
            path = tmp_path / f"{kind.lower()}_{name}.tflite"
            side = result["files"][name][kind]
            assert side["kilobytes"] == path.stat().st_size / 1e3
            assert side[job.metric] == pytest.approx(
                result["seeds"][3][kind][job.metric], rel=error
            )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "iss_int8.tflite" in page and "Energy, ISS" in page
    rows = real_job.table_of(result).columns[0].cells
    assert "int8 file, ms" in list(rows)


def test_an_anomaly_is_found_where_the_model_is_most_mistaken():
    heart = importlib.import_module("heart")
    found = heart.search(np.zeros((600, heart.AFTER)), np.arange(200, 210))
    for place, expected in ((160, True), (0, False), (400, False)):
        outputs = np.zeros((600, heart.AFTER))
        outputs[place] = 1.0
        assert found(outputs) is expected
