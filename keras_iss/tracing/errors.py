"""What tracing a model raises."""


class UntraceableError(Exception):
    """A model has no graph that could be followed; the message says why."""
