"""Text that others chose, such as names of classes, inside Markdown."""

from markupsafe import escape


def inline(text: object) -> str:
    """One line in which nothing is Markdown or HTML: no table cell, link, image, code, tag or heading begins in it."""
    line = str(escape(" ".join(str(text).split()))).replace("\\", "\\\\")
    for mark in "|[]`":
        line = line.replace(mark, f"\\{mark}")
    return line
