"""The examples of the paper's systems, at their smallest, on made-up text."""

import contextlib
import importlib
import io
import json
import os
import pathlib
import random
import subprocess
import sys
import time
from unittest import mock

import keras
import numpy as np
import pytest

from tests.example_texts import write_texts

BACKEND = keras.backend.backend()
EXPORTS = BACKEND == "tensorflow"

if EXPORTS:
    pytest.importorskip("ai_edge_litert")
pytest.importorskip("matplotlib")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import paper.language_models  # noqa: F401 (layers of saved models)
from paper import recurring_spans

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BACKEND == "jax", reason="twice is enough"),
    pytest.mark.xdist_group("example_runs"),
]

# Nothing is exported on PyTorch, where the trainings are faster.
trains_alone = pytest.mark.on_torch


def command(name, *arguments):
    return [name, "--preset=tiny", f"--backend={BACKEND}", *arguments]


def run(name, *arguments):
    """The exit status of an example and what it printed, in this process."""
    printed, code = io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", command(name, *arguments)),
        mock.patch.dict(os.environ, COLUMNS="200"),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        try:
            importlib.import_module(name).main()
        except SystemExit as stop:
            code = stop.code
    if isinstance(code, str):
        return 1, printed.getvalue() + code
    return code, printed.getvalue()


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts") / "made"
    return write_texts(folder, documents=16)


@pytest.fixture(scope="session")
def lstm(texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("lstm") / "out"
    rows = ["iss"] if EXPORTS else ["dense", "iss", "direct", "l1"]
    wanted = [f"--row={name}" for name in rows]
    code, printed = run("ptb_lstm", f"--data={texts}", f"--out={out}", *wanted)
    assert code == 0, printed
    return printed, out, rows


def check_run(printed, out, names, score):
    """What every run leaves behind."""
    summary = json.loads((out / "table.json").read_text())
    rows = {row["row"]: row for row in summary["rows"]}
    assert list(rows) == list(names)
    for name, row in rows.items():
        result = json.loads((out / name / "result.json").read_text())
        assert result["test"] == row["test"]
        assert f"{row['test'][score]:.2f}" in printed
        # Cutting out what is removed changes nothing.
        assert row["test"][score] == pytest.approx(
            row["test_before_shrinking"][score], rel=1e-5
        )
        model = keras.models.load_model(out / name / "model.keras")
        counted = sum(int(np.prod(w.shape)) for w in model.trainable_variables)
        assert counted >= row["weights"] > 0
        sizes = {
            layer.name: layer.units
            for layer in model.layers
            if layer.name in row["sizes"]
        }
        assert sizes == row["sizes"]
        for picture in ("units", "group_norms", "weights"):
            assert (out / name / f"{picture}.png").stat().st_size > 1000
        assert ("Not exported: An export needs" in printed) != EXPORTS
        for kind in ("float32", "int8") if EXPORTS else ():
            path = out / name / f"model_{kind}.tflite"
            assert path.read_bytes()[4:8] == b"TFL3"
            assert row[f"{kind}_ms"] > 0
    assert len(rows) == 1 or (out / "trade_off.png").stat().st_size > 1000
    return rows


def test_the_stacked_lstms(lstm):
    rows = check_run(*lstm, "perplexity")
    assert sum(rows["iss"]["sizes"].values()) == 13  # 40 % of 32
    if EXPORTS:
        return
    assert rows["direct"]["sizes"] == rows["iss"]["sizes"]
    assert rows["dense"]["sizes"] == {"lstm_1": 16, "lstm_2": 16}
    dense, sparse = rows["dense"], rows["l1"]
    left = sparse["nonzero_recurrent_weights"]
    assert left < dense["nonzero_recurrent_weights"]
    # To know how frequent each word is would give 60.
    assert dense["test"]["perplexity"] < 55


@trains_alone
@pytest.mark.whole
def test_the_highway_network(texts, tmp_path):
    code, printed = run(
        "ptb_rhn", f"--data={texts}", f"--out={tmp_path}", "--row=iss_0.001"
    )
    assert code == 0, printed
    rows = check_run(printed, tmp_path, ["iss_0.001"], "perplexity")
    assert rows["iss_0.001"]["sizes"]["rhn"] == 8


@trains_alone
@pytest.mark.whole
def test_question_answering(tmp_path, monkeypatch):
    # Short passages, all of one length: compiled steps are traced for each.
    monkeypatch.setattr(recurring_spans, "PASSAGE", 24)
    texts = write_texts(tmp_path / "made", 10, 6, words=(8, 8))
    tmp_path /= "out"
    rows = [f"--row={name}" for name in ("dense", "iss_0.005")]
    code, printed = run(
        "squad_bidaf", f"--data={texts}", f"--out={tmp_path}", *rows
    )
    assert code == 0, printed
    rows = check_run(printed, tmp_path, ("dense", "iss_0.005"), "F1")
    assert len(rows["dense"]["sizes"]) == 8


@trains_alone
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(lstm, texts, tmp_path):
    _, out, _ = lstm
    arguments = [f"--data={texts}", f"--out={tmp_path}", "--row=iss"]
    script = EXAMPLES / "ptb_lstm.py"
    running = subprocess.Popen(
        [sys.executable, *command(script, *arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    # At a random moment after some part of the training.
    while (
        running.poll() is None
        and not (tmp_path / "iss" / "checkpoint.npz").exists()
    ):
        time.sleep(0.01)
    time.sleep(random.Random(time.time()).uniform(0, 3))
    running.kill()
    printed, _ = running.communicate()
    assert running.returncode in (0, -9), printed.decode()
    code, printed = run("ptb_lstm", *arguments, "--resume")
    assert code == 0, printed
    results = [
        json.loads((folder / "iss" / "result.json").read_text())
        for folder in (out, tmp_path)
    ]
    for key in ("test", "valid", "sizes", "left", "weights"):
        assert results[1][key] == results[0][key], key
    histories = [
        [(e["loss"], e["units"], e["rate"]) for e in result["history"]]
        for result in results
    ]
    assert histories[1] == histories[0]


@trains_alone
def test_out_of_minutes_it_ends_cleanly_and_goes_on(texts, tmp_path):
    arguments = (
        "ptb_rhn",
        f"--data={texts}",
        f"--out={tmp_path}",
        "--row=dense",
    )
    code, printed = run(*arguments, "--max-minutes=0.0001")
    assert code == 0 and "go on with `--resume`" in printed
    assert (tmp_path / "dense" / "checkpoint.npz").exists()
    assert not (tmp_path / "dense" / "result.json").exists()
    code, printed = run(*arguments)
    assert code and "holds this row already" in printed
    code, printed = run(*arguments, "--resume", "--seed=3")
    assert code and "seed: 0 then, 3 now" in printed
    code, printed = run(*arguments, "--resume")
    assert code == 0 and (tmp_path / "dense" / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset=huge"], "invalid choice: 'huge'"),
        (["--row=nothing"], "no row `nothing` in the preset `tiny`: it has"),
        (["--data=/nowhere"], "`--data /nowhere` is no folder"),
        (["--max-minutes=0"], "must be above 0"),
        (["--row=direct", "--data=TEXTS"], "run `--row iss` first"),
    ],
)
def test_what_cannot_be_run_is_said(texts, tmp_path, arguments, message):
    arguments = [a.replace("TEXTS", str(texts)) for a in arguments]
    code, printed = run("ptb_lstm", f"--out={tmp_path}", *arguments)
    assert code != 0
    assert message in printed
    assert "Traceback" not in printed
