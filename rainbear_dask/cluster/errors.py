"""Parts of the messages about clusters that do not start."""


def message_of(err: Exception) -> str:
    """Return the message of an error on one line, without a final full stop."""
    return " ".join(str(err).split()).rstrip(".") or type(err).__name__


WHERE_TO_SET = "Set it in section `jobqueue.{}` of Dask's configuration."
