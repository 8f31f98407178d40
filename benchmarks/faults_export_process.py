"""Processes that export, for `faults_export.py` to kill and interrupt.

Run as a script, it reads jobs, a line of JSON each, and writes what came of
them: `--forks` does each in a process of its own, `--works` one after the
other.
"""

import contextlib
import ctypes
import errno
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

LIMIT = 120.0


def folder_of(kind):
    return kind == "saved_model"


def state(kind, path, known):
    """The name of the whole at a path, "lost" or "broken"."""
    if not os.path.lexists(path):
        return "lost"
    return known.get(fingerprint(kind, path), "broken")


def fingerprint(kind, path):
    """What tells one whole from another, and from a part."""
    if not folder_of(kind):
        return pathlib.Path(path).read_bytes()
    # By one handle of the folder: another may take its place meanwhile.
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        parts = []
        for name in (
            "variables/variables.data-00000-of-00001",
            "variables/variables.index",
            "saved_model.pb",
        ):
            part = os.open(name, os.O_RDONLY, dir_fd=handle)
            with open(part, "rb") as file:
                parts.append(file.read())
        # The graph is written anew each time, with other numbers in names.
        return parts[0], len(parts[1]) > 0, len(parts[2]) > 0
    except FileNotFoundError:
        # Unless it was taken away between two of the files.
        still = os.path.lexists(path) and os.path.samestat(
            os.fstat(handle), os.stat(path)
        )
        return None if still else fingerprint(kind, path)
    finally:
        os.close(handle)


class Exporter:
    """A process that has imported all there is, and forks to export.

    TensorFlow itself has not begun in it, so that a fork can begin. Where it
    does not fork, it does its jobs itself, one after the other.
    """

    def __init__(self, folder, forks=True):
        (folder / "tmp").mkdir(exist_ok=True)
        environment = os.environ | {
            "KERAS_BACKEND": "tensorflow",
            "TMPDIR": str(folder / "tmp"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        folder.chmod(0o755)
        (folder / "tmp").chmod(0o777)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--forks" if forks else "--works"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._jobs = {}
        self._waiting = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            event = json.loads(line)
            with self._waiting:
                self._jobs[event.pop("job")].append(event)
                self._waiting.notify_all()

    def start(self, job, limit=LIMIT):
        number = len(self._jobs)
        self._jobs[number] = []
        self._process.stdin.write(json.dumps(job | {"job": number}) + "\n")
        self._process.stdin.flush()
        return _Job(self, number, limit)

    def event(self, number, name, limit):
        def there():
            return [x for x in self._jobs[number] if x["event"] == name]

        with self._waiting:
            if not self._waiting.wait_for(there, limit):
                raise TimeoutError(f"no {name!r} within {limit} s")
            return there()[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()


class _Job:
    def __init__(self, exporter, number, limit):
        self._exporter, self._number, self._limit = exporter, number, limit

    def wait_for(self, name):
        return self._exporter.event(self._number, name, self._limit)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.wait_for("forked")["pid"], signal.SIGKILL)
        self.wait_for("ended")

    def result(self):
        return self.wait_for("result")


def _say(**event):
    os.write(1, (json.dumps(event) + "\n").encode())


def work(forks):
    """Reads jobs, a line each, and does them, or forks to do so."""
    import ai_edge_litert.interpreter
    import keras
    import tensorflow

    import keras_iss.export.saved_model
    import keras_iss.export.tflite  # noqa: F401

    del ai_edge_litert, keras, tensorflow
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork() if forks else None
        if not pid:
            _work(job)
        if pid == 0:
            os._exit(0)
        if pid is None:
            continue
        _say(job=job["job"], event="forked", pid=pid)
        threading.Thread(target=_await, args=(job["job"], pid)).start()


def _await(number, pid):
    os.waitpid(pid, 0)
    _say(job=number, event="ended")


def _work(job):
    outcome = {"error": None, "message": ""}
    try:
        outcome |= _WORK[job.get("fault")](job) or {}
    except BaseException as error:
        outcome = {"error": _kind(error), "message": str(error)}
    _say(job=job["job"], event="result", **outcome)


def _kind(error):
    if isinstance(error, OSError) and error.errno in (
        errno.ENOSPC,
        errno.EFBIG,
        errno.EDQUOT,
    ):
        return "OSError"
    return type(error).__name__


def _model(size):
    import keras

    keras.utils.set_random_seed(size)
    x = keras.Input((None, 2), name="x")
    y = keras.layers.LSTM(size, return_sequences=True)(x)
    return keras.Model(x, keras.layers.Dense(1, name="y")(y))


def _write(job, model):
    import keras_iss

    if folder_of(job["kind"]):
        keras_iss.export_saved_model(model, job["path"])
    else:
        keras_iss.export_tflite(model, job["path"])


def _export(job):
    model = _model(job["size"])
    _say(job=job["job"], event="begins")
    _write(job, model)


def _export_without_room(job):
    model = _model(job["size"])
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], hard))
    try:
        _write(job, model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def _export_as_user(job):
    if job["user"] is not None:
        os.setgroups([])
        os.setgid(job["user"])
        os.setuid(job["user"])
        # A process that changed its user may not look at itself else.
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    _export(job)


def _export_interrupted(job):
    import numpy as np

    chance = random.Random(job["seed"])
    model = _model(job["size"])
    path = pathlib.Path(job["path"])
    old = path.with_name("old")
    shutil.move(path, old)
    x = np.ones((1, 5, 2), "float32")
    wanted = np.array(model(x))
    before = _held(model)
    known = {fingerprint(job["kind"], old): "old"}
    _write(job, model)
    known[fingerprint(job["kind"], path)] = "new"
    temporary = pathlib.Path(tempfile.gettempdir())
    begin = time.monotonic()
    _write(job, model)
    duration = time.monotonic() - begin
    states = []
    for _ in range(job["moments"]):
        if path.is_dir():
            shutil.rmtree(path)
            shutil.copytree(old, path)
        else:
            shutil.copyfile(old, path)
        signal.signal(signal.SIGALRM, _interrupt)
        moment = chance.uniform(0.001, 1.1 * duration)
        try:
            signal.setitimer(signal.ITIMER_REAL, moment)
            _write(job, model)
        except BaseException as error:
            # TensorFlow may make another error of it.
            del error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        folders = path.parent, temporary
        left = [x for y in folders for x in y.glob("*.keras-iss-*")]
        same = np.array_equal(wanted, np.array(model(x)))
        states.append(
            (
                state(job["kind"], path, known),
                len(left),
                not same or _held(model) != before,
            )
        )
    return {"states": states}


def _interrupt(*_):
    raise KeyboardInterrupt


def _held(model):
    return [sorted(vars(layer)) for layer in model._flatten_layers()]


def _load(job):
    import numpy as np
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    x = np.ones((1, 5, 2), "float32")
    wanted = np.array(_model(job["size"])(x))
    if folder_of(job["kind"]):
        loaded = tf.saved_model.load(job["path"])
        got = np.array(loaded.serve(x)["y"])
    else:
        runner = Interpreter(job["path"]).get_signature_runner("serve")
        got = runner(x=x)["y"]
    if np.abs(got - wanted).max() > 1e-4:
        raise ValueError("another model")


_WORK = {
    None: _export,
    "room": _export_without_room,
    "user": _export_as_user,
    "interrupt": _export_interrupted,
    "load": _load,
}


if __name__ == "__main__":
    work("--forks" in sys.argv)
