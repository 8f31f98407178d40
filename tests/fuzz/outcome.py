"""What came of a random graph."""

import collections
import dataclasses

PASSED, REFUSED, FAILED, NOT_RUN = "passed", "refused", "failed", "not_run"


@dataclasses.dataclass
class Outcome:
    """What came of a graph.

    Attributes:
        status: `PASSED`; `REFUSED`, by a clear error; `FAILED`; or `NOT_RUN`:
            Keras itself could not run the graph.
        kind: String, what failed or was refused.
        message: String, the error.
        graph: String, the statements of the graph.
        lines: List of strings, statements up to the one that failed.
        double: Boolean, whether it failed in double precision.
        removed: Boolean, whether units were removed.
        reasons: `collections.Counter` of why structures were pinned.
        tags: `collections.Counter` of the kinds of connection.
        seconds: Float.
    """

    status: str = PASSED
    kind: str = ""
    message: str = ""
    graph: str = ""
    lines: list = dataclasses.field(default_factory=list)
    double: bool = False
    removed: bool = False
    reasons: dict = dataclasses.field(default_factory=collections.Counter)
    tags: dict = dataclasses.field(default_factory=collections.Counter)
    seconds: float = 0.0

    @property
    def text(self):
        """All the statements, up to the one that failed."""
        return self.graph.rstrip() + "\n\n" + "\n".join(self.lines) + "\n"
