"""The private parts of Keras that keras-iss touches, and nothing else does."""
