"""Texts that come from outside (keys, event names, errors), made fit to be shown in a line of their own."""


def one_line(text: str, longest: int | None = None) -> str:
    r"""The text with escapes for what would move a cursor, hide or break a line; cut at `longest` characters.

    >>> one_line("a\nb\x1b[2J")
    'a\\nb\\x1b[2J'
    >>> one_line("abcdef", 4)
    'abc…'
    """
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
