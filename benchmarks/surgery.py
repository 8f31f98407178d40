"""How long does surgery take, and how much memory?

`find_structures`, `prune` and `shrink` take the paper's language model from
(1500, 1500) to (373, 315), each time in a process of its own: on JAX most of
the time goes into compiling for sizes that were not there before.

    python benchmarks/surgery.py
    KERAS_BACKEND=jax python benchmarks/surgery.py
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from unittest import mock

import keras
import numpy as np
import psutil
from common import compile_as_in_paper, language_model, write
from rich.console import Console
from rich.progress import track
from rich.table import Table

import keras_iss
from keras_iss.surgery import verification

KEEP = {"lstm_1": 373, "lstm_2": 315}
SECONDS_LIMIT = 5.0
VERIFY_LIMIT = 0.25


class PeakMemory:
    """Watches the memory that a process holds, every millisecond."""

    def __enter__(self):
        self._process = psutil.Process()
        self.start = self.peak = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.001):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    @property
    def more(self):
        """Bytes by which it rose."""
        return self.peak - self.start


def paper_model(units):
    """Compiled, and trained for nothing: what it does once is done."""
    model = compile_as_in_paper(language_model(units, embedding=1500))
    model.predict(np.zeros((1, 1), "int32"), verbose=0)
    return model


def operate(model, keep):
    """The surgery, and the seconds of its parts.

    Those of `verify` are a part of those of `shrink`.
    """
    compare, seconds = verification.verify, {}

    def timed(*args):
        start = time.perf_counter()
        compare(*args)
        seconds["verify"] = time.perf_counter() - start

    marks = [time.perf_counter()]
    keras_iss.find_structures(model)
    marks.append(time.perf_counter())
    keras_iss.prune(model, keep=keep)
    marks.append(time.perf_counter())
    with mock.patch.object(verification, "verify", timed):
        small = keras_iss.shrink(model)
    marks.append(time.perf_counter())
    parts = ("find_structures", "prune", "shrink")
    return small, {**dict(zip(parts, np.diff(marks).tolist())), **seconds}


def size(variables):
    """Bytes of some variables."""
    return sum(4 * int(np.prod(v.shape)) for v in variables)


def run():
    """One surgery, watched."""
    # What Keras and its backend load when they are first used.
    operate(paper_model((20, 20)), {"lstm_1": 5, "lstm_2": 5})
    model = paper_model((1500, 1500))
    with PeakMemory() as memory:
        small, seconds = operate(model, KEEP)
    assert small.count_params() == 21_824_148
    parts = ("find_structures", "prune", "shrink")
    return {
        "seconds": sum(seconds[part] for part in parts),
        "seconds_of": seconds,
        "verify_of_shrink": seconds["verify"] / seconds["shrink"],
        "memory_more": memory.more,
        "memory_limit": size(small.variables)
        + max(size([v]) for v in model.variables),
    }


def run_apart():
    """One surgery in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--once"],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Measures, and says what the limits are."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--once", action="store_true", help="one, as JSON")
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(run()))
        return
    runs = [run_apart() for _ in track(range(arguments.turns))]
    backend = keras.backend.backend()
    table = Table(title=f"(1500, 1500) to (373, 315), on {backend}")
    for title in ("", *map(str, range(1, len(runs) + 1)), "limit"):
        table.add_column(title, justify="right")
    table.add_row(
        "seconds",
        *(f"{measured['seconds']:.2f}" for measured in runs),
        f"{SECONDS_LIMIT:.2f}",
    )
    table.add_row(
        "comparison, of shrink",
        *(f"{measured['verify_of_shrink']:.0%}" for measured in runs),
        f"{VERIFY_LIMIT:.0%}",
    )
    table.add_row(
        "more memory, MB",
        *(f"{measured['memory_more'] / 1e6:.0f}" for measured in runs),
        f"{runs[0]['memory_limit'] / 1e6:.0f}",
    )
    Console().print(table)
    print(
        "More memory: beside the model. The limit: the smaller model and a "
        "copy of the largest variable."
    )
    suffix = "" if backend == "tensorflow" else f"_{backend}"
    write(
        f"surgery{suffix}",
        {
            "seconds_limit": SECONDS_LIMIT,
            "verify_limit": VERIFY_LIMIT,
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()
