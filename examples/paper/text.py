"""Text for language models: corpora, vocabularies, contiguous streams."""

import collections
import dataclasses
import pathlib
import re

import numpy as np

TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+(?:[.,]\d+)*|[^\w\s]")
END = "<eos>"
UNKNOWN = "<unk>"
PARTS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Texts as integer tokens.

    Attributes:
        train, valid, test: Integer arrays of shape `(tokens,)`.
        words: List of the words, by their integers.
        source: String, what it was made of.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    words: list
    source: str

    @classmethod
    def of(cls, texts, vocabulary, source):
        """Numbers the words of tokenized texts.

        Args:
            texts: Dict from `"train"`, `"valid"` and `"test"` to lists of
                words.
            vocabulary: Integer: the words that are most frequent in `train`
                stay, all others become `<unk>`.
            source: String.
        """
        counts = collections.Counter(texts["train"])
        counts.pop(UNKNOWN, None)
        # Ties in alphabetical order: the same on every machine.
        frequent = sorted(counts, key=lambda word: (-counts[word], word))
        words = [UNKNOWN, *frequent[: vocabulary - 1]]
        numbers = {word: i for i, word in enumerate(words)}
        arrays = {
            part: np.array([numbers.get(w, 0) for w in texts[part]], "int32")
            for part in PARTS
        }
        return cls(words=words, source=source, **arrays)


def penn_treebank(vocabulary, data_dir=None, manual_dir=None):
    """The Penn Treebank, by TensorFlow Datasets.

    Args:
        vocabulary: Integer.
        data_dir: Optional string, where TensorFlow Datasets keeps its data.
        manual_dir: Optional string, a folder with `ptb.train.txt`,
            `ptb.valid.txt` and `ptb.test.txt`, instead of a download.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise SystemExit(
            "The Penn Treebank is read by TensorFlow Datasets: "
            '`pip install -e ".[examples]"`. Or give a folder of plain-text '
            "files with `--data`."
        ) from error
    from datasets.ptb import ptb_dataset_builder

    config = "manual" if manual_dir else "download"
    builder = ptb_dataset_builder.Builder(data_dir=data_dir, config=config)
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
        )
    except Exception as error:
        raise SystemExit(
            "The Penn Treebank could not be prepared: "
            f"{type(error).__name__}: {str(error).strip().splitlines()[0]}\n"
            "Without a network give `--manual-dir` a folder with "
            "ptb.train.txt, ptb.valid.txt and ptb.test.txt, or `--data` a "
            "folder of plain-text files."
        ) from error
    texts = {}
    for part, split in zip(PARTS, ("train", "validation", "test")):
        lines = tfds.as_numpy(builder.as_dataset(split=split))
        texts[part] = [
            word
            for line in lines
            for word in [*line["sentence"].decode().split(), END]
        ]
    return Corpus.of(texts, vocabulary, "Penn Treebank")


def text_folder(folder, vocabulary):
    """A folder of plain-text files, one document each.

    Sorted by name, every tenth document validates, and every tenth plus five
    tests. Lower case; words, numbers and punctuation are tokens.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise SystemExit(
            f"`--data {folder}` is no folder. It takes one with plain-text "
            "files (*.txt), a document each."
        )
    paths = sorted(folder.glob("*.txt"))
    if len(paths) < 10:
        raise SystemExit(
            f"`--data {folder}` has {len(paths)} files *.txt. It takes ten or "
            "more: of every ten documents, one validates and one tests."
        )
    texts = {part: [] for part in PARTS}
    for i, path in enumerate(paths):
        part = {0: "valid", 5: "test"}.get(i % 10, "train")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise SystemExit(f"`{path}` is not UTF-8 text: {error}.") from error
        texts[part] += [*TOKEN.findall(text.lower()), END]
    if not all(len(words) > 1 for words in texts.values()):
        raise SystemExit(f"The files in `--data {folder}` have no text.")
    source = f"{len(paths)} files of {folder.name}"
    return Corpus.of(texts, vocabulary, source)


def streams(tokens, batch, steps):
    """Cuts a text into streams that go on from one batch to the next.

    Args:
        tokens: Integer array of shape `(tokens,)`.
        batch: Integer, how many streams run side by side.
        steps: Integer, the time steps of a batch.

    Returns:
        Inputs and targets, arrays of shape `(batches, batch, steps)`: row `i`
        of a batch goes on in row `i` of the next one.
    """
    length = (len(tokens) - 1) // batch
    batches = length // steps
    if not batches:
        raise SystemExit(
            f"{len(tokens)} tokens are too few for {batch} streams of {steps} "
            "time steps: take more text or a smaller batch."
        )

    def cut(x):
        x = x[: batch * length].reshape(batch, length)[:, : batches * steps]
        return x.reshape(batch, batches, steps).swapaxes(0, 1)

    return cut(tokens[:-1]), cut(tokens[1:])
