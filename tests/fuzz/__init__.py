"""Random graphs: surgery and export must change no output of any of them.

`python -m tests.fuzz --graphs 10000 --seed 7`, or `tox run -e fuzz`. What it
draws, checks and writes: CONTRIBUTING.md.
"""
