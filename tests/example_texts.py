"""Small made-up texts for the tests of the examples."""

import random

SYLLABLES = ("ra", "ne", "lo", "ti", "st", "m", "nd")
WORDS = [
    f"{first}{vowel}{last}"
    for first in "bcdfgklm"
    for vowel in "aeiou"
    for last in SYLLABLES
]


def write_texts(folder, documents=20, sentences=40, seed=0, words=(9, 16)):
    """Writes documents that each talk of a dozen things of their own.

    Of the common words, each is followed by one of two. Sentences have so many
    words, at least and at most.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    common = WORDS[:30]
    follow = {word: rng.sample(common, 2) for word in common}
    for i in range(documents):
        things = [word.title() for word in rng.sample(WORDS[60:], 12)]
        made, word = [], common[0]
        for _ in range(sentences):
            sentence = []
            for _ in range(rng.randint(*words)):
                word = rng.choice(follow[word])
                other = rng.random() < 0.2
                sentence.append(rng.choice(things) if other else word)
            made.append(" ".join(sentence) + ".")
        (folder / f"document_{i:02d}.txt").write_text(" ".join(made))
    return folder
