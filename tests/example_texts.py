"""Small made-up texts for the tests of the examples."""

import random

SYLLABLES = ("ra", "ne", "lo", "ti", "st", "m", "nd")
WORDS = [
    f"{first}{vowel}{last}"
    for first in "bcdfgklm"
    for vowel in "aeiou"
    for last in SYLLABLES
]


def write_texts(folder, documents=20, sentences=40, seed=0):
    """Writes documents that each talk of a dozen things of their own."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(documents):
        things = [word.title() for word in rng.sample(WORDS[60:], 12)]
        made = []
        for _ in range(sentences):
            words = [
                rng.choice(WORDS[:60] if rng.random() < 0.7 else things)
                for _ in range(rng.randint(9, 16))
            ]
            made.append(" ".join(words) + ".")
        (folder / f"document_{i:02d}.txt").write_text(" ".join(made))
    return folder
