"""Runs of many graphs: processes, counts, the command."""

import argparse
import json
import os
import time

import keras
import pytest
from rich.console import Console

from tests.fuzz import command, workers
from tests.fuzz.outcome import FAILED, NOT_RUN, PASSED, REFUSED, Outcome
from tests.fuzz.tally import Tally, corrected, record
from tests.fuzz.workers import Job, Workers

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="once is enough"
)

# This module also stands for the jobs of a process.


def prepare():
    pass


def run(seed, number, begun):
    begun(f"graph {number}")
    if number == 3:
        print("last words", flush=True)
        os._exit(7)
    if number == 4:
        time.sleep(100)
    if number == 5:
        return Outcome(FAILED, "something", "wrong", "model = 1", ["fail()"])
    return Outcome(PASSED, tags={"LSTM": seed})


def reduce(seed, number, kind, seconds):
    return Outcome(FAILED, kind, "wrong", "model = 0", ["fail()"])


def test_a_process_that_dies_or_hangs_is_a_failure_and_the_rest_goes_on(
    monkeypatch,
):
    monkeypatch.setitem(workers.LONGEST, "torch", 4.0)
    with Workers(2, __name__, seed=2, backend="torch") as some:
        outcomes = {
            job.number: outcome
            for job, outcome in some.run([Job(i) for i in range(9)])
        }
    assert sorted(outcomes) == list(range(9))
    assert outcomes[3].kind == "the process died"
    assert outcomes[3].graph == "graph 3"
    assert "exit code 7. last words" in outcomes[3].message
    assert outcomes[4].kind == "no end"
    assert outcomes[8].tags == {"LSTM": 2}


class Results:
    """Stands for processes whose results are known."""

    def __init__(self, outcomes):
        self.outcomes = outcomes
        self.reduced = []

    def run(self, jobs):
        while jobs:
            job = jobs.pop(0)
            if job.kind is None:
                yield job, self.outcomes[job.number]
            else:
                self.reduced.append(job.number)
                yield job, reduce(0, job.number, job.kind, job.seconds)


def options(tmp_path, **others):
    given = {"graphs": None, "exports": None, "seed": 4, "start": 0}
    given |= {"failures": tmp_path, "reduce": 1.0}
    return argparse.Namespace(**{**given, **others})


def test_the_first_failure_of_each_kind_is_made_smaller_and_written(tmp_path):
    failed = [
        Outcome(FAILED, kind, "wrong", "model = 1", ["fail()"])
        for kind in ("one", "one", "other")
    ]
    results = Results([Outcome(), *failed])
    tally = Tally()
    with open(tmp_path / "log", "w") as log:
        bar = command.progress_bar(Console(file=log))
        command.go_through(results, bar, tally, 4, options(tmp_path), "jax")
    assert results.reduced == [1, 3]
    assert tally.status == {PASSED: 1, FAILED: 3}
    text = (tmp_path / "jax-graphs-4-1.py").read_text()
    assert "model = 0\n\nfail()" in text
    assert "--seed 4 --start 1" in text
    assert '"KERAS_BACKEND", "jax"' in text
    assert not (tmp_path / "jax-graphs-4-2.py").exists()
    assert "model = 0" in (tmp_path / "log").read_text()


def test_counts_go_by_kind():
    tally = Tally()
    tally.add(1, Outcome(PASSED, tags={"LSTM": 2}, removed=True))
    tally.add(2, Outcome(FAILED, "a", tags={"LSTM": 1, "GRU": 1}))
    tally.add(3, Outcome(REFUSED, "b", reasons={"free": 2}))
    tally.add(4, Outcome(NOT_RUN, tags={"LSTM": 1}))
    assert tally.as_dict() == {
        "graphs": 4,
        "failed": 1,
        "not_run": 1,
        "passed": 1,
        "refused": 1,
        "removed_from": 1,
        "failures": {"a": {"count": 1, "numbers": [2]}},
        "refusals": {"b": {"count": 1, "numbers": [3]}},
        "structures": {"free": 2},
        "connections": {"LSTM": 3, "GRU": 1},
    }


def a_run(start, graphs, seed=7):
    return {
        "command": f"--start {start}",
        "seed": seed,
        "start": start,
        "seconds": 10,
        "versions": {"keras": "3"},
        "graphs": graphs,
        "failures": {"a": {"count": 1, "numbers": [start]}},
        "connections": {"LSTM": graphs},
    }


def test_what_failed_is_run_again_and_the_counts_are_corrected():
    tally = Tally()
    tally.add(1, Outcome(PASSED))
    for number in (2, 3, 4):
        tally.add(number, Outcome(FAILED, "a" if number < 4 else "b"))
    run = tally.as_dict()
    later = corrected(
        run,
        {
            2: Outcome(PASSED),
            3: Outcome(FAILED, "c"),
            4: Outcome(REFUSED, "said"),
        },
    )
    assert later == {
        "graphs": 4,
        "failed": 1,
        "passed": 2,
        "refused": 1,
        "removed_from": 0,
        "failures": {"c": {"count": 1, "numbers": [3]}},
        "refusals": {"said": {"count": 1, "numbers": [4]}},
        "structures": {},
        "connections": {},
    }
    assert run["failed"] == 3


def test_a_run_that_goes_on_is_added_and_another_one_takes_the_place(tmp_path):
    path = tmp_path / "fuzz.json"
    record("jax", a_run(0, 5), path)
    record("torch", a_run(0, 10), path)
    record("torch", a_run(10, 20), path)
    results = json.loads(path.read_text())
    assert results["torch"] == {
        **a_run(0, 30),
        "command": "--start 0",
        "seconds": 20,
        "failures": {"a": {"count": 2, "numbers": [0, 10]}},
    }
    assert results["jax"] == a_run(0, 5)
    record("torch", a_run(30, 20, seed=8), path)
    assert json.loads(path.read_text())["torch"] == a_run(30, 20, seed=8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--graphs", "0"], "--graphs takes 1 or more, not 0"),
        (["--workers", "-1"], "--workers takes 1 or more"),
        (["--graphs", "1", "--exports", "1"], "either --graphs or --exports"),
    ],
)
def test_arguments_are_checked(capsys, arguments, message):
    with pytest.raises(SystemExit):
        command.parsed(arguments)
    assert message in capsys.readouterr().err
