"""Names of metrics and tokens, and p-values, as one says them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

KIND_WORDS = {
    "cls": "class token",
    "patch": "patches",
    "register": "registers",
    "distillation": "distillation token",
}


def kind_words(kind: object) -> str:
    """A kind of token as one says it.

    Example:
        >>> kind_words("cls"), kind_words("my_own")
        ('class token', 'my_own')
    """
    return KIND_WORDS.get(str(kind), str(kind))


def metric_words(metric: str, titles: Mapping[str, str] | None = None) -> str:
    """A metric's name as one says it.

    Args:
        metric: as it stands in a summary.
        titles: of variables, by name; a metric of one that is among them is called by its title.

    Returns:
        The words, plain text.

    Example:
        >>> metric_words("top5_accuracy"), metric_words("attention_entropy_nats[cls]")
        ('Top-5 accuracy', 'Attention entropy (class token)')
        >>> metric_words("speed[cls]", {"speed": "How fast it is"})
        'How fast it is (class token)'
    """
    name, kind = re.fullmatch(r"(.*?)(?:\[(.*)\])?", metric, re.DOTALL).groups()  # type: ignore[union-attr]
    spoken = re.sub(r"^top(\d+)_", r"top-\1 ", name.removesuffix("_nats")).replace("_", " ")
    said = (titles or {}).get(name, spoken[:1].upper() + spoken[1:])
    return said if kind is None else f"{said} ({kind_words(kind)})"


def p_words(p: float) -> str:
    """A p-value.

    Example:
        >>> p_words(0.0321), p_words(0.00004), p_words(math.nan)
        ('.032', '<.001', '–')
    """
    if math.isnan(p):
        return "–"
    return "<.001" if p < 0.0005 else f"{p:.3f}".removeprefix("0")
