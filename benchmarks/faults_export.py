"""What an export leaves when it is killed, interrupted or has no room.

Real exports that replace an old one are killed with SIGKILL, interrupted with
KeyboardInterrupt and run out of disk at random moments, in processes of their
own; then what is at the path is loaded and run. Nothing may be lost: there is
one whole of the old and the new, whatever happens when.

    python benchmarks/faults_export.py --seed 0 --moments 50

Prints the counts as JSON. `run` gives them to another program.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import threading
import time

from faults_export_process import (
    LIMIT,
    Exporter,
    fingerprint,
    folder_of,
    state,
)

KINDS = ("saved_model", "tflite")
SIZES = {"old": 3, "new": 4, "other": 5}
NOBODY = 65534


def run(seed=0, moments=50):
    """Counts what is left of exports that are cut off.

    Args:
        seed: Seed of the random moments.
        moments: How many kills and interrupts there are, of each kind of
            file; of a disk without room a fifth, of two processes a tenth.

    Returns:
        Dict from the name of a fault to a dict: "tries", "old" and "new" (how
        often the whole old or new file was at the path), "lost", "broken",
        "left behind" (temporary files, where none may be), "note". JSON can
        hold it.
    """
    # Side by side: a process waits for another most of the time.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        tables = pool.map(lambda kind: _run(kind, seed, moments), KINDS)
        return {name: row for table in tables for name, row in table.items()}


def _run(kind, seed, moments):
    chance = random.Random(f"{kind} {seed}")
    table = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        folder = pathlib.Path(folder)
        exporter = stack.enter_context(Exporter(folder))
        loader = stack.enter_context(Exporter(folder, forks=False))
        place = _Place(folder, kind, exporter, loader)
        for fault in (
            killed,
            interrupted,
            short_of_room,
            on_a_small_disk,
            in_a_read_only_folder,
            two_at_once,
        ):
            name = f"{kind}: {fault.__name__.replace('_', ' ')}"
            table[name] = fault(place, chance, moments)
    return table


def killed(place, chance, moments):
    """SIGKILL at a random moment."""
    counts = _Counts()
    duration = place.duration()
    left = 0
    for _ in range(moments):
        place.put("old")
        job = place.exporter.start(place.job("new"))
        job.wait_for("begins")
        time.sleep(chance.uniform(0, 1.1 * duration))
        job.kill()
        counts.add(place.found())
        left += bool(place.temporary())
    # The next export to the same place clears up.
    place.exporter.start(place.job("new")).result()
    counts.left_behind = len(place.temporary())
    note = f"{left} left a temporary file until the next export"
    return counts.table(note)


def interrupted(place, chance, moments):
    """KeyboardInterrupt at a random moment, in the process that goes on."""
    place.put("old")
    job = place.exporter.start(
        place.job("new")
        | {
            "fault": "interrupt",
            "seed": chance.randrange(1 << 30),
            "moments": moments,
        },
        limit=LIMIT + 10 * moments,
    )
    counts = _Counts()
    for found, left, changed in job.result()["states"]:
        counts.add(found)
        counts.left_behind += left
        counts.broken += changed
    return counts.table("the model was as before each time")


def short_of_room(place, chance, moments):
    """No file may be larger than a random size."""
    counts, errors = _Counts(), 0
    for _ in range(max(1, moments // 5)):
        place.put("old")
        limit = int(chance.uniform(0, 1.2 * place.size()))
        outcome = place.exporter.start(
            place.job("new") | {"fault": "room", "limit": limit}
        ).result()
        counts.add(place.found())
        counts.left_behind += len(place.temporary())
        errors += _is_named_os_error(outcome, place)
        counts.broken += outcome["error"] not in (None, "OSError")
    return counts.table(f"{errors} times an OSError that names the path")


def on_a_small_disk(place, chance, moments):
    """A disk of random size, in memory, with the old file on it."""
    counts, errors = _Counts(), 0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(max(1, moments // 5)):
            # Enough for the old one, in whole pages, but for a new one too
            # not always.
            room = int(chance.uniform(1, 2.6) * place.size())
            room = (room // 4096 + (8 if folder_of(place.kind) else 1)) * 4096
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", folder],
                capture_output=True,
            )
            if mounted.returncode:
                return counts.table("skipped: mounting a disk takes root")
            try:
                small = place.at(pathlib.Path(folder))
                small.put("old")
                outcome = place.exporter.start(small.job("new")).result()
                counts.add(small.found())
                counts.left_behind += len(small.temporary())
                errors += _is_named_os_error(outcome, small)
                counts.broken += outcome["error"] not in (None, "OSError")
            finally:
                subprocess.run(["umount", folder], check=True)
    return counts.table(f"{errors} times an OSError that names the path")


def in_a_read_only_folder(place, chance, moments):
    """A folder that the process may not write to."""
    place.put("old")
    counts = _Counts()
    place.folder.chmod(0o555)
    try:
        user = NOBODY if os.geteuid() == 0 else None
        outcome = place.exporter.start(
            place.job("new") | {"fault": "user", "user": user}
        ).result()
    finally:
        place.folder.chmod(0o755)
    counts.add(place.found())
    counts.left_behind = len(place.temporary())
    counts.broken += outcome["error"] != "PermissionError"
    note = "as a user without rights, since nothing is read-only to root"
    return counts.table(note if user else "")


def two_at_once(place, chance, moments):
    """Two processes that write one path, and a third that reads it."""
    counts, seen = _Counts(), []
    for _ in range(max(1, moments // 10)):
        place.put("old")
        done = threading.Event()
        reader = threading.Thread(target=_watch, args=(place, done, seen))
        reader.start()
        jobs = [place.exporter.start(place.job(x)) for x in ("new", "other")]
        outcomes = [job.result() for job in jobs]
        done.set()
        reader.join()
        counts.add(place.found())
        counts.left_behind += len(place.temporary())
        counts.broken += sum(x["error"] is not None for x in outcomes)
    counts.lost += seen.count("lost")
    counts.broken += seen.count("broken")
    return counts.table(f"read {len(seen)} times meanwhile")


def _watch(place, done, seen):
    while not done.is_set():
        seen.append(place.state())


def _is_named_os_error(outcome, place):
    return outcome["error"] == "OSError" and (
        str(place.path) in outcome["message"]
        or ".keras-iss-" in outcome["message"]
    )


class _Counts:
    def __init__(self):
        self.tries = self.old = self.new = self.lost = self.broken = 0
        self.left_behind = 0

    def add(self, found):
        self.tries += 1
        name = "new" if found == "other" else found
        setattr(self, name, getattr(self, name) + 1)

    def table(self, note):
        return {
            "tries": self.tries,
            "old": self.old,
            "new": self.new,
            "lost": self.lost,
            "broken": self.broken,
            "left behind": self.left_behind,
            "note": note,
        }


class _Place:
    """A path with an export, and what may be found there."""

    def __init__(self, parent, kind, exporter, loader, folder=None):
        self.kind = kind
        self.exporter = exporter
        self.loader = loader
        self.parent = parent
        self.folder = folder or parent / kind
        self.folder.mkdir(exist_ok=True)
        self.path = self.folder / ("saved" if folder_of(kind) else "a.tflite")
        self._wholes = {}
        if folder is None:
            for name in SIZES:
                kept = self._kept(name)
                job = self.job(name) | {"path": str(kept)}
                exporter.start(job).result()

    def at(self, folder):
        """The same, elsewhere."""
        return _Place(
            self.parent, self.kind, self.exporter, self.loader, folder
        )

    def _kept(self, name):
        return self.parent / f"whole-{name}-{self.kind}"

    def put(self, name):
        """Puts a whole export to the path."""
        if folder_of(self.kind):
            shutil.rmtree(self.path, ignore_errors=True)
            shutil.copytree(self._kept(name), self.path)
        else:
            shutil.copyfile(self._kept(name), self.path)

    def job(self, name):
        return {"kind": self.kind, "path": str(self.path), "size": SIZES[name]}

    def size(self):
        kept = self._kept("new")
        if not kept.is_dir():
            return kept.stat().st_size
        return sum(x.stat().st_size for x in kept.rglob("*") if x.is_file())

    def duration(self):
        """Seconds that an export takes."""
        job = self.exporter.start(self.job("new"))
        job.wait_for("begins")
        begin = time.monotonic()
        job.result()
        return time.monotonic() - begin

    def temporary(self):
        """Temporary files beside the path, and where TMPDIR leads."""
        folders = self.folder, self.parent / "tmp"
        return [x for y in folders for x in y.glob("*.keras-iss-*")]

    def state(self):
        """What is at the path, by its parts alone: quick."""
        return state(self.kind, self.path, self._known())

    def _known(self):
        if not self._wholes:
            self._wholes = {
                fingerprint(self.kind, self._kept(name)): name for name in SIZES
            }
        return self._wholes

    def found(self):
        """What is at the path, loaded and run."""
        name = self.state()
        if name in SIZES:
            job = self.job(name) | {"fault": "load"}
            if self.loader.start(job).result()["error"]:
                return "broken"
        return name


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--moments", type=int, default=50)
    options = parser.parse_args()
    print(json.dumps(run(options.seed, options.moments), indent=2))


if __name__ == "__main__":
    main()
