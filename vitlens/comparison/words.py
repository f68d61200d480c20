"""Names of metrics and tokens, and p-values, as one says them."""

from __future__ import annotations

import math
import re

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


def metric_words(metric: str) -> str:
    """A metric's name as one says it.

    Example:
        >>> metric_words("top5_accuracy"), metric_words("attention_entropy_nats[cls]")
        ('Top-5 accuracy', 'Attention entropy (class token)')
    """
    name, kind = re.fullmatch(r"(.*?)(?:\[(.*)\])?", metric, re.DOTALL).groups()  # type: ignore[union-attr]
    name = re.sub(r"^top(\d+)_", r"top-\1 ", name.removesuffix("_nats")).replace("_", " ")
    if kind is not None:
        name += f" ({kind_words(kind)})"
    return name[:1].upper() + name[1:]


def p_words(p: float) -> str:
    """A p-value.

    Example:
        >>> p_words(0.0321), p_words(0.00004), p_words(math.nan)
        ('.032', '<.001', '–')
    """
    if math.isnan(p):
        return "–"
    return "<.001" if p < 0.0005 else f"{p:.3f}".removeprefix("0")
