"""Counts of what came of many graphs, and the file that they go into."""

import collections
import json
import pathlib

from tests.fuzz.outcome import FAILED, NOT_RUN, PASSED, REFUSED

RESULTS = pathlib.Path("benchmarks/results/fuzz.json")
_NAMED = 20


class Tally:
    """What came of the graphs of a run.

    Attributes:
        status: `collections.Counter` of what came of them.
        failures, refusals: Dicts from a kind to the numbers of the graphs.
        connections: `collections.Counter` of kinds of connection.
        structures: `collections.Counter` of why structures are pinned, or
            `"free"`.
        removed: Integer, graphs that something was removed from.
    """

    def __init__(self):
        self.status = collections.Counter()
        self.failures = collections.defaultdict(list)
        self.refusals = collections.defaultdict(list)
        self.connections = collections.Counter()
        self.structures = collections.Counter()
        self.removed = 0

    def add(self, number, outcome):
        """Counts one more graph."""
        self.status[outcome.status] += 1
        if outcome.status == FAILED:
            self.failures[outcome.kind].append(number)
        if outcome.status == REFUSED:
            self.refusals[outcome.kind].append(number)
        if outcome.status != NOT_RUN:
            self.connections.update(outcome.tags)
        self.structures.update(outcome.reasons)
        self.removed += outcome.removed

    def as_dict(self):
        """The counts, for a file: the largest first."""
        return {
            "graphs": sum(self.status.values()),
            **{name: self.status[name] for name in sorted(self.status)},
            "removed_from": self.removed,
            "failures": _numbered(self.failures),
            "refusals": _numbered(self.refusals),
            "structures": dict(self.structures.most_common()),
            "connections": dict(self.connections.most_common()),
        }


def _numbered(kinds):
    return {
        kind: {"count": len(numbers), "numbers": sorted(numbers)[:_NAMED]}
        for kind, numbers in sorted(kinds.items())
    }


def record(key, run, path=RESULTS):
    """Writes a run into the file of results, in the place of the last one.

    A run that goes on where the last one ended, with the same seed, is added
    to it.

    Args:
        key: String, of what: the backend, or `"exports"`.
        run: Dict with `seed`, `start`, `seconds`, `versions`, `command` and
            the counts.
        path: Where the file is.
    """
    path = pathlib.Path(path)
    results = json.loads(path.read_text()) if path.exists() else {}
    last = results.get(key)
    if (
        last is not None
        and last["seed"] == run["seed"]
        and last["versions"] == run["versions"]
        and last["start"] + last["graphs"] == run["start"]
    ):
        run = {**_sum(last, run), "start": last["start"]}
        run["seed"] = last["seed"]
    results[key] = run
    path.write_text(json.dumps(results, indent=1, sort_keys=False) + "\n")


def corrected(run, outcomes):
    """A recorded run, with what came of its failures when they ran again.

    Args:
        run: Dict, as `record` has written it.
        outcomes: Dict from the numbers of those graphs to `Outcome`s.

    Returns:
        Dict, with the counts of now. Where all is well, a kind is gone.
    """
    left = {
        kind: [n for n in found["numbers"] if n not in outcomes]
        for kind, found in run["failures"].items()
    }
    again = Tally()
    again.failures.update({kind: some for kind, some in left.items() if some})
    for number, outcome in outcomes.items():
        again.add(number, outcome)
    counts = {
        status: run.get(status, 0) + again.status[status]
        for status in (FAILED, NOT_RUN, PASSED, REFUSED)
    }
    counts[FAILED] -= len(outcomes)
    found = again.as_dict()
    return {
        **run,
        **{status: n for status, n in counts.items() if n or status in run},
        "failures": found["failures"],
        "refusals": _sum(run["refusals"], found["refusals"]),
    }


def _sum(first, other):
    """Two dicts of numbers, lists and dicts, added up."""
    total = dict(first)
    for key, value in other.items():
        if key not in total:
            total[key] = value
        elif isinstance(value, dict):
            total[key] = _sum(total[key], value)
        elif isinstance(value, list):
            total[key] = (total[key] + value)[:_NAMED]
        elif isinstance(value, (int, float)):
            total[key] += value
    return total
