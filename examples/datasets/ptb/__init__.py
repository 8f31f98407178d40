"""The Penn Treebank, word level."""
