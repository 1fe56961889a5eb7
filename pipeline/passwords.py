"""Passwords in addresses: never printed, and never stored."""

import os
import re

MASK = "***"
_LOGIN = re.compile(r"(?<=://)(?!/)[^\s?#\"'<>]*@")
"""What stands before the host. A path behind `sqlite:///` is none, whatever its folders are called."""
_OPTION = re.compile(r"(?i)([?&;][\w.-]*(?:pass|pwd|token|secret|key|auth|sig|credential)[\w.-]*=)[^\s&;#\"'<>]*")
"""An option behind the `?` whose name says that it is secret."""
_NAMES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_SHORTEST = 4
"""Characters of a password that is looked for by itself: a shorter one is part of ordinary words."""


def hide_passwords(text: str) -> str:
    """Replace, in a URI or in a message that holds some, the login, and options such as `?token=...`, by `***`."""
    if "://" in text:
        text = _OPTION.sub(rf"\1{MASK}", _LOGIN.sub(f"{MASK}@", text))
    return text


def hide_known_passwords(text: str) -> str:
    """`hide_passwords`, and the password and the token that the environment holds for MLflow."""
    for secret in (os.environ.get(name, "") for name in _NAMES):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, MASK)
    return hide_passwords(text)
