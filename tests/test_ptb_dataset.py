"""The Penn Treebank builder, by the tests of TensorFlow Datasets."""

import pathlib
import sys
import types

import keras
import pytest

tfds = pytest.importorskip("tensorflow_datasets")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from datasets.ptb import ptb_dataset_builder
from paper import text

if keras.backend.backend() != "tensorflow":
    pytest.skip("once is enough", allow_module_level=True)


class PTBTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = ptb_dataset_builder.Builder
    EXAMPLE_DIR = EXAMPLES / "datasets" / "ptb" / "dummy_data"
    SPLITS = types.MappingProxyType({"train": 3, "validation": 1, "test": 2})
    DL_EXTRACT_RESULT = ptb_dataset_builder.FILES
    DL_DOWNLOAD_RESULT = ptb_dataset_builder.FILES


def test_the_text_comes_in_its_order_with_ends_of_sentences(tmp_path):
    folder = EXAMPLES / "datasets" / "ptb" / "dummy_data"
    corpus = text.penn_treebank(7, data_dir=tmp_path, manual_dir=folder)
    read = [corpus.words[i] for i in corpus.train]
    assert len(corpus.words) == 7
    assert "the" in corpus.words and text.END in corpus.words
    lines = (folder / "ptb.train.txt").read_text().split("\n")[:-1]
    words = [w for line in lines for w in [*line.split(), text.END]]
    assert read == [w if w in corpus.words else text.UNKNOWN for w in words]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(SystemExit, match="ptb.train.txt"):
        text.penn_treebank(7, data_dir=tmp_path, manual_dir=tmp_path / "no")
