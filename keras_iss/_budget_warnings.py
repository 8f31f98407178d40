"""What a user of `ISSBudget` should know of, though the training goes on."""

import warnings

from keras_iss._messages import quoted


def warn_of_a_share_of_what_is_left(model, epoch):
    """Warns that a share may be of a model that was made smaller before.

    Args:
        model: The model that is trained.
        epoch: Integer, the epochs that are over.
    """
    warnings.warn(
        f"Training goes on with epoch {epoch + 1}, and `ISSBudget` takes "
        f"its share of `{model.name}` as it is now. If that was made "
        "smaller before, say what the share is of: "
        "`ISSBudget(..., of=model_at_full_size)`.",
        stacklevel=3,
    )


def warn_of_what_came_back(names, by_epoch):
    """Warns that removed components of some structures came back.

    Args:
        names: List of the names of the structures.
        by_epoch: Integer, the number of epochs at whose end the size is met.
    """
    warnings.warn(
        f"Components of {quoted(names)} that `ISSBudget` had removed "
        "came back at the end of the training, as by an "
        "`EarlyStopping` that restores the weights of an epoch before "
        "the removal. They are removed again, with no training after "
        f"it. Use `EarlyStopping(start_from_epoch={by_epoch})`.",
        stacklevel=3,
    )


def warn_that_size_is_not_met(described, by_epoch):
    """Warns that a training ended before its size was met.

    Args:
        described: String, what is left and what was asked for.
        by_epoch: Integer, the number of epochs at whose end the size is met.
    """
    warnings.warn(
        "The training ended before `ISSBudget` had met the size: "
        f"{described}. It would have by "
        f"epoch {by_epoch}. Train on with `initial_epoch`, or use "
        f"`EarlyStopping(start_from_epoch={by_epoch})`.",
        stacklevel=3,
    )


def warn_that_nothing_was_kept(search):
    """Warns that the search for a size ended at full size.

    Args:
        search: `QualitySearch`.
    """
    if search.is_learning:
        found = "the training ended before the first step: train longer"
    else:
        found = (
            f"{search.taken_back} steps were taken back: allow more than "
            f"{search.within:g}, or train longer"
        )
    warnings.warn(
        f"`ISSBudget(within=...)` leaves the model at full size, since "
        f"{found}.",
        stacklevel=3,
    )
