"""Where the entries of an operation's config are."""


class ConfigEntries:
    """Where the entries of an operation's config are.

    Args:
        operation: The operation, or the one whose config holds it.
        within: Tuple put before every key, or a dict from key to path.
        outer: The `ConfigEntries` that holds it, if any.
    """

    def __init__(self, operation, within=(), outer=None):
        self._operation = operation
        self._within = within
        self._outer = outer

    def locate(self, key):
        """The operation and path of an entry."""
        if isinstance(self._within, dict):
            path = self._within[key]
        else:
            path = key if isinstance(key, tuple) else (key,)
            path = (*self._within, *path)
        path = path if isinstance(path, tuple) else (path,)
        if self._outer is not None:
            return self._outer.locate(path)
        return self._operation, path
