"""An export prints nothing that is not its own."""

import os
import threading

import keras
import numpy as np
import pytest

import keras_iss
from keras_iss.export.quiet import quiet

NOTES = (
    b"W0000 00:00:1795743640.475851    9232 tf_tfl.cc:364] Ignored format.\n"
    b"I0000 00:00:1795743640.481522    9232 reader.cc:83] Reading from: x\n"
    b"2026-01-02 03:04:05.678901: I tensorflow/core/x.cc:210] Optimized.\n"
    b"fully_quantize: 0, inference_type: 6\n"
    b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
)
ERROR = b"E0000 00:00:1795743640.475851    9232 x.cc:1] It failed.\n"


@pytest.fixture(autouse=True)
def usual_level(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")


def test_notes_are_left_out_and_the_rest_is_not(capfd):
    with quiet():
        os.write(2, NOTES + b"Of another thread.\n" + ERROR)
        assert capfd.readouterr().err == ""
    os.write(2, b"after\n")
    assert capfd.readouterr().err.encode() == (
        b"Of another thread.\n" + ERROR + b"after\n"
    )


def test_all_is_shown_after_an_error(capfd):
    def fail():
        with quiet():
            os.write(2, NOTES)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert capfd.readouterr().err.encode() == NOTES


def test_two_at_a_time(capfd):
    inside, go_on = threading.Event(), threading.Event()

    def other():
        with quiet():
            inside.set()
            go_on.wait(10)
            os.write(2, NOTES + b"other\n")

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    with quiet():
        os.write(2, NOTES + b"this\n")
    go_on.set()
    thread.join()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "this\nother\nafter\n"


def test_all_is_shown_if_that_is_asked_for(capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with quiet():
        os.write(2, NOTES)
    assert capfd.readouterr().err.encode() == NOTES


def test_a_process_without_a_standard_error(capfd):
    kept = os.dup(2)
    os.close(2)
    try:
        with quiet():
            pass
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports of TensorFlow"
)
def test_an_export_prints_nothing(capfd, tmp_path, recwarn):
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(4)])
    capfd.readouterr()
    keras_iss.export_tflite(
        model,
        tmp_path / "a.tflite",
        quantize="int8_full",
        representative_data=np.ones((4, 4, 3)),
        recurrent_op="fused",
    )
    keras_iss.export_saved_model(model, tmp_path / "saved")
    assert capfd.readouterr() == ("", "")
    said = [w for w in recwarn if issubclass(w.category, UserWarning)]
    assert not [str(warning.message) for warning in said]
