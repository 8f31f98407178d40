"""What the examples of the paper's three systems share."""
