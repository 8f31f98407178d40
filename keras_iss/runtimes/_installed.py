"""What is imported only when a file needs it."""

import importlib
from typing import Any


def needed(module: str, extra: str, purpose: str) -> Any:
    """Imports what may not be installed.

    Args:
        module: String, its name.
        extra: String, the extra of keras-iss that brings it.
        purpose: String, what it is needed for; begins the message.

    Returns:
        The module.

    Raises:
        ImportError: if it is not installed. The message says what to do.
    """
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != top:
            raise
        raise ImportError(
            f"{purpose}, `{top.replace('_', '-')}` is needed: "
            f'pip install "keras-iss[{extra}]".'
        ) from error
