"""Parts of messages."""


def quoted(names):
    """Names for a message: `a`, `b`."""
    return ", ".join(f"`{name}`" for name in names)
