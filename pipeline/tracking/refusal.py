"""Whether a store that refuses will do so again, and what its user can change."""

from pipeline.passwords import hide_known_passwords

_REFUSALS = {
    400: "the server does not understand what was sent: its version of MLflow may differ from this one",
    401: "it wants a login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    403: "this user may not write there: ask for the right, or set another runtime.experiment",
    404: "there is no MLflow at this address: correct MLFLOW_TRACKING_URI or runtime.tracking_uri",
}
"""What to change, by the HTTP status of an answer that the same request always gets."""

_IN_WORDS = {
    "unable to open database file": "the file cannot be made or read: check its folder and permissions",
    "readonly database": "the file cannot be written: check its permissions",
    "file is not a database": "the file is no SQLite database: name another",
    "could not convert string": "an option behind the ? of the URI is wrong: correct it",
    "invalid keyword argument": "an option behind the ? of the URI is unknown: remove it",
    "no module named": "the driver of this database is not installed",
    "model registry functionality is unavailable": "MLflow does not know this kind of store: correct the URI",
    "was deleted there": "",
    "malformed": "the file is damaged: move it away, and the next run makes another one",
    "is too large to be an answer": "",
}
"""What to change, by words of an error that comes from the URI or the file and not from a server that is away."""


_REASONS = {
    "NameResolutionError": "the server's name is not known",
    "Name or service not known": "the server's name is not known",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted",
    "SSLError": "there is no safe connection (TLS)",
    "redirects": "it redirects without an end",
    "failed with exception": "the server does not respond",
    "database is locked": "another process has locked the file",
    "disk is full": "the disk is full",
}
"""What happened, by words of an error."""
_LONGEST = 200


def reason(error: Exception) -> str:
    """Say in one line, without a password, what happened."""
    text = str(error)
    for words, what in _REASONS.items():
        if words in text:
            return what
    said = hide_known_passwords(text.partition("\n")[0])
    readable = "".join(character if character.isprintable() else "?" for character in said[:_LONGEST])
    return readable or f"its answer cannot be read ({type(error).__name__})"


def advice(error: Exception) -> str:
    """Say what to change where `error` will not pass by itself; empty where it may."""
    status = _status(error)
    said = str(error).lower()
    for words, what in _IN_WORDS.items():
        if words in said:
            return f". This will not pass: {what}" if what else ""
    return f". This will not pass: {_REFUSALS[status]}" if status in _REFUSALS else ""


def _status(error: Exception) -> int | None:
    """The HTTP status of a server's answer; MLflow gives errors without an answer the status 500."""
    if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":  # a row or an experiment, on a server that works
        return None
    status = getattr(error, "get_http_status_code", None)
    return int(status()) if status else None
