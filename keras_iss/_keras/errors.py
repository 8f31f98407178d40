"""What Keras says when something fails."""


def message_of(error):
    """The message of an error without what Keras puts around it."""
    text = str(error)
    if "\x1b[1m" in text:
        text = text.rsplit("\x1b[1m", 1)[1].split("\x1b[0m")[0]
    return text
