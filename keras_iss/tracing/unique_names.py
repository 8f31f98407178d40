"""Names that are given once."""


class Names:
    """Names that are given once."""

    def __init__(self):
        self._taken = set()
        self._counts = {}

    def of(self, names):
        """The first of some names that is free, numbered if none is."""
        name = next((x for x in names if x not in self._taken), None)
        while name is None:
            count = self._counts.get(names[0], 1) + 1
            self._counts[names[0]] = count
            if (numbered := f"{names[0]}_{count}") not in self._taken:
                name = numbered
        self._taken.add(name)
        return name
