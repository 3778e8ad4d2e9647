"""Text that is data, made so that nothing in it looks like an event or like a hint of ours."""

_BRACKETS = str.maketrans("[]【】", "()()")


def plain(text: str) -> str:
    """Text that is data, on one line and without square brackets."""
    return " ".join(text.translate(_BRACKETS).split())
