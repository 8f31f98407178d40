"""Interrupts from the keyboard, where one would lose what was computed."""

import contextlib
import signal
import threading


@contextlib.contextmanager
def interrupts_put_off():
    """Lets an interrupt wait until the end of a block that may not lose any.

    The second one does not wait. Only the main thread gets interrupts: in any
    other, nothing happens.
    """
    handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not callable(handler):
        yield
        return
    seen = []

    def remember(number, frame):
        if seen:
            signal.signal(signal.SIGINT, handler)
            handler(number, frame)
        seen.append((number, frame))

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if seen:
            handler(*seen[0])
