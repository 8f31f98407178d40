"""The report says what became of a model, on one page that stays at home."""

import dataclasses
import html.parser
import json
import re
import sys

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.report import pictures
from keras_iss.report.gathering import gather
from keras_iss.report.history import training_of
from keras_iss.report.page import page as page_of

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def network():
    model = keras.Sequential(
        [
            keras.Input((6, 3), name="signal"),
            keras.layers.LSTM(8, return_sequences=True, name="first"),
            keras.layers.LSTM(6, name="second"),
            keras.layers.Dense(2, name="out"),
        ]
    )
    model.compile("adam", "mse", metrics=["mean_absolute_error"])
    return model


def samples():
    rng = np.random.default_rng(0)
    return rng.random((20, 6, 3), "float32"), rng.random((20, 2), "float32")


class Texts(html.parser.HTMLParser):
    """What a reader sees, what is loaded, and which elements are left open."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.loads, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.loads += [
            found[key] for key in ("src", "srcset", "data") if key in found
        ]
        if tag == "link" or (tag == "a" and not found["href"].startswith("#")):
            self.loads.append(found.get("href"))
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if not {"script", "style"} & set(self.open):
            self.texts.append(text)


@pytest.fixture(scope="module")
def found():
    """What is on the page of a model that was made smaller."""
    keras.utils.set_random_seed(0)
    model = network()
    small = keras_iss.shrink(model, keep={"first": 5, "second": 4})
    history = {
        "loss": [0.5, 0.25, float("nan")],
        "val_loss": [0.6, 0.3, 0.2],
        "first_alive": [8, 5, 5],
        "recurrent_weights": [700, 400, 400],
    }
    return gather(
        small, before=model, history=history, data=samples(), command="<me>"
    )


def test_sizes_and_norms_stand_beside_those_of_before(found):
    model_weights = network().count_params()
    assert found.before.weights == model_weights > found.after.weights
    first, second = found.norms
    assert len(first.before) == 8 and len(first.after) == 5
    assert list(first.after) == sorted(first.after, reverse=True)
    assert (second.structure, found.structures[1].size_before) == ("second", 6)


def test_cuts_and_logs_go_by_epoch(found):
    training = found.training
    assert training.epochs == (1, 2, 3)
    assert training.alive == {"first": (8, 5, 5)}
    (removal,) = training.removals
    assert (removal.epoch, removal.removed, removal.left) == (2, 3, 5)
    assert training.logs["loss"] == (0.5, 0.25, None)


def test_the_model_and_the_one_before_are_measured(found):
    before, after = found.files
    assert before.milliseconds > 0 and after.milliseconds > 0
    assert set(after.metrics) == {"mse", "mean_absolute_error"}
    assert found.samples == 20 and not found.random
    assert before.difference is None and after.difference is None


def test_the_weight_map_shows_what_is_zero():
    model = network()
    keras_iss.prune(model, keep={"first": 2})
    found = gather(model)
    kernel = next(x for x in found.weight_maps if x.shape == (8, 24))
    assert kernel.nonzero == pytest.approx(2 / 8)
    assert found.after.removed_units == 6
    assert "6 of its units are removed" in page_of(found)
    # The sizes are those that shrink leaves.
    assert found.after.weights == keras_iss.shrink(model).count_params()


def test_a_large_kernel_is_drawn_in_blocks():
    model = keras.Sequential(
        [
            keras.Input((None, 2)),
            keras.layers.LSTM(60, name="large"),
            keras.layers.Dense(1),
        ]
    )
    found = gather(model).weight_maps
    kernel = next(x for x in found if x.shape == (60, 240))
    assert kernel.block == (1, 3)
    assert np.shape(kernel.values) == (60, 80)
    value = np.abs(
        keras.ops.convert_to_numpy(model.layers[0].cell.recurrent_kernel)
    )
    assert kernel.values[0][0] == pytest.approx(value[0, :3].max(), rel=1e-2)


@pytest.mark.parametrize("drawn", [True, False])
def test_the_page_is_whole_and_loads_nothing(found, drawn, monkeypatch):
    if drawn:
        pytest.importorskip("plotly")
    else:
        monkeypatch.setitem(sys.modules, "plotly.offline", None)
    text = page_of(found)
    seen = Texts(text)
    assert not seen.open and not seen.loads
    assert "default-src 'none'" in text
    shown = " ".join(seen.texts)
    for title in (
        *("Size against quality", "What was cut when", "Group norms"),
        *("Weight map", "Structures", "Files", "Versions and command"),
    ):
        assert title in shown
    # Numbers are there with and without pictures.
    assert f"{found.after.weights:,}" in shown and keras.__version__ in shown
    assert "<me>" in shown and "<me>" not in text
    assert ("keras-iss[report]" in shown) == (not drawn)
    figures = re.findall(
        r'<script type="application/json">(.*?)</script>', text
    )
    assert len(figures) == (10 if drawn else 0)
    for figure in figures:
        assert json.loads(figure)["data"]


def test_the_figures_show_the_values(found):
    pytest.importorskip("plotly")
    drawn = pictures.pictures(found)
    (training,) = (json.loads(x) for x in drawn["training"])
    lines = {x["name"]: x for x in training["data"]}
    assert lines["val_loss"]["y"] == [0.6, 0.3, 0.2]
    assert lines["recurrent weights"]["customdata"] == [700, 400, 400]
    first = json.loads(drawn["norms"][0])["data"]
    assert [x["name"] for x in first] == ["before", "after"]
    assert len(first[1]["y"]) == 5


def test_a_name_cannot_bring_markup_into_the_page(found):
    name = "</script><img src=x>"
    text = page_of(
        dataclasses.replace(
            found,
            title=name,
            norms=(dataclasses.replace(found.norms[0], structure=name),),
        )
    )
    assert name not in text and "<img src" not in text


def test_the_logger_writes_the_page_of_a_training(tmp_path):
    path = tmp_path / "training.html"
    model = network()
    logger = keras_iss.ISSLogger(report=path)
    model.fit(
        *samples(),
        epochs=4,
        verbose=0,
        validation_data=samples(),
        callbacks=[keras_iss.ISSBudget({"first": 4}), logger],
    )
    shown = " ".join(Texts(path.read_text(encoding="utf-8")).texts)
    assert "What was cut when" in shown and "val_loss" in shown
    assert "4 of its units are removed" in shown
    assert not list(tmp_path.glob(".training*"))


def test_a_training_that_goes_on_in_a_smaller_model_is_one_training(tmp_path):
    path = tmp_path / "training.html"
    keras_iss.fit(
        network(),
        *samples(),
        epochs=4,
        verbose=0,
        callbacks=[
            keras_iss.ISSBudget({"first": 4}),
            keras_iss.ISSLogger(report=path),
        ],
    )
    text = path.read_text(encoding="utf-8")
    table = re.search(r'id="structures".*?</table>', text, re.DOTALL).group()
    cells = re.findall(r'<td class="number">(\d+)</td>', table)
    # Before, size, alive: of both structures.
    assert cells == ["8", "4", "4", "6", "6", "6"]


def test_a_page_that_cannot_be_written_does_not_end_a_training(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    logger = keras_iss.ISSLogger(report=folder / "training.html")
    folder.rmdir()
    with pytest.warns(UserWarning, match="could not be written"):
        network().fit(*samples(), epochs=1, verbose=0, callbacks=[logger])
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        keras_iss.ISSLogger(report=folder / "training.html")
    with pytest.raises(TypeError, match="`report` must be the path"):
        keras_iss.ISSLogger(report=3)


def test_histories_of_all_kinds_are_read(tmp_path):
    path = tmp_path / "log.csv"
    history = network().fit(
        *samples(),
        epochs=2,
        verbose=0,
        callbacks=[keras_iss.ISSLogger(), keras.callbacks.CSVLogger(path)],
    )
    of_csv, of_history = training_of(path), training_of(history)
    assert of_csv.epochs == of_history.epochs == (1, 2)
    assert (
        of_csv.alive
        == of_history.alive
        == {
            "first": (8, 8),
            "second": (6, 6),
        }
    )
    assert of_csv.logs["loss"] == pytest.approx(of_history.logs["loss"])
    assert training_of(history.history) == of_history
    with pytest.raises(ValueError, match="no epochs"):
        training_of({})
    with pytest.raises(FileNotFoundError, match="CSVLogger"):
        training_of(tmp_path / "none.csv")
    with pytest.raises(TypeError, match="what `fit` returned"):
        training_of(3)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="exports of TensorFlow")
def test_exported_files_have_a_size_a_latency_and_a_quality(tmp_path):
    pytest.importorskip("ai_edge_litert")
    model, path = network(), tmp_path / "model.tflite"
    keras_iss.export_tflite(model, path, quantize="int8", verify=False)
    found = keras_iss.report(
        model, tmp_path / "report.html", files=[path], data=samples()
    )
    first, second = found.files
    assert second.size == path.stat().st_size and second.difference < 0.1
    assert second.metrics["mse"] == pytest.approx(first.metrics["mse"], abs=0.1)
    with pytest.raises(ValueError, match="is no Keras model"):
        keras_iss.report(path, tmp_path / "report.html")
