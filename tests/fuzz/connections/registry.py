"""The kinds of connection, by family."""

import collections

FAMILIES = collections.defaultdict(dict)


def connection(weight=1, export=True, streams=False):
    """Registers a function that draws a connection into a `Drawing`.

    Args:
        weight: How often it is drawn, measured by the others of its family.
        export: Boolean, whether it is drawn in graphs that are exported.
        streams: Boolean, whether in those that are to run step by step.
    """

    def register(function):
        family = function.__module__.rpartition(".")[2]
        FAMILIES[family][function] = (weight, export, streams)
        return function

    return register


def choices(family, for_export, for_stream):
    """Dict from the functions of a family to their weights."""
    return {
        function: weight
        for function, (weight, export, streams) in FAMILIES[family].items()
        if (export or not for_export) and (streams or not for_stream)
    }
