"""Runs graphs in processes of their own, so that a crash ends none but one."""

import dataclasses
import importlib
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import tempfile
import time

from tests.fuzz.outcome import FAILED, Outcome

# Backends keep something of every graph.
GRAPHS_OF_A_PROCESS = {"tensorflow": 150, "jax": 60, "torch": 500}
LONGEST = {"tensorflow": 300, "jax": 600, "torch": 900}
# Seconds that the imports of a process may take.
BEGINNING = 300.0
_READY, _BEGUN, _DONE = "ready", "begun", "done"


@dataclasses.dataclass(frozen=True)
class Job:
    """What a process is to do.

    Attributes:
        number: Integer, of the graph.
        kind: `None` to run it, or the kind of its failure, to reduce it.
        seconds: Float, how long it may take to reduce it.
    """

    number: int
    kind: str | None = None
    seconds: float = 0.0


class Workers:
    """Some processes that run graphs.

    Args:
        count: Integer, how many.
        tasks: String, the module with `prepare`, `run` and `reduce`.
        seed: Integer.
        backend: String.
    """

    def __init__(self, count, tasks, seed, backend):
        self._tasks, self._seed = tasks, seed
        self._most = GRAPHS_OF_A_PROCESS[backend]
        self._longest = LONGEST[backend]
        self._folder = tempfile.TemporaryDirectory()
        self._started = 0
        self._workers = [self._start() for _ in range(count)]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for worker in self._workers:
            worker.process.kill()
        self._folder.cleanup()

    def run(self, jobs):
        """Runs jobs.

        Args:
            jobs: List of `Job`. Those that are added to it while it is gone
                through are run, too.

        Yields:
            Pairs of a job and its `Outcome`, as they come.
        """
        running = 0
        while jobs or running:
            for i, worker in enumerate(self._workers):
                if jobs and worker.job is None:
                    if worker.done >= self._most:
                        worker.process.kill()
                        self._workers[i] = worker = self._start()
                    worker.begin(jobs.pop(0))
                    running += 1
            for job, outcome in self._wait():
                running -= 1
                yield job, outcome

    def _start(self):
        self._started += 1
        log = pathlib.Path(self._folder.name, f"{self._started}.txt")
        return _Worker(self._tasks, self._seed, log)

    def _wait(self):
        """Jobs that are done, and what came of them."""
        connections = [w.connection for w in self._workers if w.job is not None]
        multiprocessing.connection.wait(connections, timeout=1.0)
        for i, worker in enumerate(self._workers):
            if worker.job is None:
                continue
            result = worker.result(self._longest)
            if result is not None:
                yield worker.job, result
                worker.job = None
                if not worker.is_alive:
                    self._workers[i] = self._start()


class _Worker:
    """A process, and what it is doing."""

    def __init__(self, tasks, seed, log):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.log = log
        self.process = context.Process(
            target=_serve, args=(theirs, tasks, seed, log), daemon=True
        )
        self.process.start()
        theirs.close()
        self.is_alive = True
        self.job = None
        self.done = 0
        self._is_ready = False
        self._text = ""
        self._since = 0.0

    def begin(self, job):
        self.job, self._text, self._since = job, "", time.monotonic()
        self.connection.send(job)

    def result(self, longest):
        """What came of the job; `None` if it is not done."""
        try:
            while self.connection.poll():
                kind, value = self.connection.recv()
                if kind == _DONE:
                    self.done += 1
                    return value
                if kind == _READY:
                    # What the imports took is not the job's.
                    self._is_ready = True
                    self._since = time.monotonic()
                else:
                    self._text = value
        except (EOFError, ConnectionResetError):
            return self._lost("the process died")
        allowed = longest + 2 * self.job.seconds
        if not self._is_ready:
            allowed += BEGINNING
        if time.monotonic() - self._since > allowed:
            return self._lost("no end")
        return None

    def _lost(self, kind):
        self.process.kill()
        self.process.join()
        self.is_alive = False
        said = self.log.read_text(errors="replace")[-1000:]
        message = f"exit code {self.process.exitcode}. {said}"
        return Outcome(FAILED, kind, message, self._text)


def _serve(connection, tasks, seed, log):
    """Runs jobs, until there are no more."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    module = importlib.import_module(tasks)
    module.prepare()
    connection.send((_READY, None))

    def begun(text):
        connection.send((_BEGUN, text))

    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        if job.kind is None:
            outcome = module.run(seed, job.number, begun)
        else:
            outcome = module.reduce(seed, job.number, job.kind, job.seconds)
        connection.send((_DONE, outcome))
