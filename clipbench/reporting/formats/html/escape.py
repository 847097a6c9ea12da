"""Text from outside as HTML that can only be text."""

from __future__ import annotations

import html
import re

# Control characters are no HTML, even as references.
FORBIDDEN = re.compile(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(value: str) -> str:
    return html.escape(FORBIDDEN.sub("�", value), quote=True)
