"""Reasons that Dask's packages give, and what a user can do."""


def reason(err: Exception) -> str:
    return " ".join(str(err).split()).rstrip(".") or type(err).__name__


WHERE_TO_SET = "Set it in section jobqueue.{} of Dask's configuration."
