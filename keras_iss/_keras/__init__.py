"""The private parts of Keras that the package touches, and nothing else does.

Each function is named for what it gives.
"""
