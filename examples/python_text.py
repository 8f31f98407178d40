"""Text that every Python ships, as batches for a language model.

The language reference and the docstrings of the standard library: about 490,000
tokens.
"""

import ast
import collections
import dataclasses
import pathlib
import re
import sysconfig
from pydoc_data import topics

import keras
import numpy as np

TOKEN = re.compile(r"[a-z_]+|\d+|[^\w\s]|\n\n+")
END_OF_DOCUMENT = "<end>"
UNKNOWN = 0

# Not in every Python, or not about it.
SKIPPED = {
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}


def documents():
    """The texts by name: topics of the language reference, and modules."""
    texts = {f"topic {name}": text for name, text in topics.topics.items()}
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if SKIPPED.intersection(name.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        found = [
            ast.get_docstring(node)
            for node in ast.walk(tree)
            if isinstance(
                node,
                ast.Module
                | ast.ClassDef
                | ast.FunctionDef
                | ast.AsyncFunctionDef,
            )
        ]
        text = "\n\n".join(filter(None, found))
        if text:
            texts[f"module {name.as_posix()}"] = text
    return texts


def tokenized(texts):
    """The tokens of each text, without paragraphs that another one has.

    Topics repeat each other in part: what is held out would be known.
    """
    seen, result = set(), []
    for name in sorted(texts):
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", texts[name].lower()):
            key = " ".join(paragraph.split())
            if len(key) > 40 and key in seen:
                continue
            seen.add(key)
            paragraphs.append(paragraph)
        tokens = TOKEN.findall("\n\n".join(paragraphs))
        if len(tokens) >= 20:
            result.append([*tokens, END_OF_DOCUMENT])
    return result


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Integer tokens. Of every ten documents, one validates and one tests."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    vocabulary: int

    @classmethod
    def read(cls, vocabulary):
        """Reads the text, keeping the most frequent words."""
        split = {"train": [], "valid": [], "test": []}
        for i, tokens in enumerate(tokenized(documents())):
            part = {0: "valid", 5: "test"}.get(i % 10, "train")
            split[part].append(tokens)
        words = collections.Counter(
            token for tokens in split["train"] for token in tokens
        )
        number = {
            word: i + 1
            for i, (word, _) in enumerate(words.most_common(vocabulary - 1))
        }
        parts = {
            part: np.array(
                [
                    number.get(token, UNKNOWN)
                    for tokens in texts
                    for token in tokens
                ],
                "int32",
            )
            for part, texts in split.items()
        }
        return cls(vocabulary=vocabulary, **parts)

    def log_frequencies(self):
        """The logarithm of how frequent each token of the training text is."""
        counts = np.bincount(self.train, minlength=self.vocabulary) + 0.5
        return np.log(counts / counts.sum())


def sequences(tokens, steps):
    """Inputs and targets, each of shape `(count, steps)`."""
    count = (len(tokens) - 1) // steps
    return (
        tokens[: count * steps].reshape(count, steps),
        tokens[1 : count * steps + 1].reshape(count, steps),
    )


class Parts(keras.utils.PyDataset):
    """Shuffled training sequences, pass after pass; an epoch takes a part."""

    def __init__(self, corpus, plan, seed):
        super().__init__()
        self.inputs, self.targets = sequences(corpus.train, plan.steps)
        self.random = np.random.default_rng(seed)
        self.updates, self.batch = plan.updates, plan.batch
        self.order = np.zeros(0, int)
        self.on_epoch_end()

    def __len__(self):
        return self.updates

    def __getitem__(self, index):
        chosen = self.chosen[index * self.batch : (index + 1) * self.batch]
        return self.inputs[chosen], self.targets[chosen]

    def on_epoch_end(self):
        """Takes the next part."""
        count = self.updates * self.batch
        while len(self.order) < count:
            fresh = self.random.permutation(len(self.inputs))
            self.order = np.concatenate([self.order, fresh])
        self.chosen, self.order = self.order[:count], self.order[count:]
