"""Text for a terminal: names of files and classes come from anywhere, and must not write to it."""


def printable(text: str, *, keep: str = "\n\t") -> str:
    r"""The text with control characters as escapes such as `\x1b`, so that they change no screen. `keep` are left.

    Bytes of names that are not UTF-8 (surrogates) leave as they came.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep or "\udc80" <= c <= "\udcff" else c.encode("unicode_escape").decode()
        for c in text
    )
