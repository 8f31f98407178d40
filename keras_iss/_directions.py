"""Whether a metric improves as it grows."""

_LARGER_IS_BETTER = (
    "acc",
    "auc",
    "f1",
    "fbeta",
    "iou",
    "precision",
    "r2",
    "recall",
    "top_k",
)


def is_larger_better(monitor: str, mode: str) -> bool:
    """Whether a monitored value improves as it grows.

    Args:
        monitor: String, its name in the logs.
        mode: `"min"`, `"max"` or `"auto"`, which goes by the name.

    Raises:
        ValueError: if the mode is another.
    """
    if mode not in ("auto", "min", "max"):
        raise ValueError(
            f'`mode` must be "auto", "min" or "max". Received: {mode!r}'
        )
    if mode != "auto":
        return mode == "max"
    name = monitor.removeprefix("val_").lower()
    return any(word in name for word in _LARGER_IS_BETTER)
