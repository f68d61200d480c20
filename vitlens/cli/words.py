"""A command's words: errors that speak of Python's arguments, said of the command's options."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SAID = {
    r'vitlens\.load\(path, architecture="([^"]+)"\)': r"--architecture \1",
    r"Pass architecture= to vitlens\.load\.": "Pass --architecture.",
    r"\barchitecture=": "--architecture",
    r"\bnum_classes=(\d+)": r"--num-classes \1",
    r"\bimg_size=(\d+),?": r"--image-size \1",
    r"such as img_size, depth or num_classes\.": "--image-size or --num-classes; for more, load it in Python "
    "and vitlens.save it.",
    r"vitlens\.save wrote": "vitlens wrote",
    r"by vitlens\.save\b": "by vitlens",
    r"a name that timm\.list_models\(\) lists": "a name that timm has",
    r", or wrap the live module: HookedViT\(module\)": "",
    r"a folder for each class, or a mapping that says which they are": "a folder for each of them",
    r"Give classes=\{folder name: index\}\.": "Name a folder of images that has them.",
    r", or give classes=\{folder name: index\}\.": ".",
    r"^(margin|primary)(?:s)? names\b": r"--\1 names",
    r"^(seen|unseen) has\b": r"--pool \1 has",
    r", or leave the single conditions out: pools_only=True\.": ".",
    r"leave this analysis out\.": "leave it out of --analyses.",
    r"a folder of them, registered once\. Write vitlens\.register_corruption\(.*\) first\.": "a folder of "
    "them. Name it with --frost DIR.",
    r": --frost DIR on the command line, or vitlens\.register_corruption\(.*\)\.": ": --frost DIR.",
    r"a key of vitlens\.CORRUPTIONS, or in a condition a group or an attack": "a corruption, a group or an "
    "attack",
    r", register it with vitlens\.register_corruption, or give .*\{'name': callable\}\.": ".",
    r"Name each once, such as \[.*\]\.": "Name each once.",
    r", or an objective\. Aim inside: objective=.*\(hook_name\)\.": ". Leave the attack out.",
    r"^(eps|alpha)_pixel is": r"\1 is",
    r"Write \(0, 1/8\) for low frequencies and \(1/8, 0\.71\) for": "Write band=0-1/8 for low frequencies "
    "and band=1/8-0.71 for",
    r"Give the indices .* say FinetuneConfig\(new_head=(\d+)\)\.": r"Train a new head: --new-head \1.",
    r"Correct the FinetuneConfig\.": "Correct it.",
    r"(?<=[( ])config\.(?=\w+: )": "",
    r"^The precision\b": "--precision",
    r"^num_workers\b": "--num-workers",
    r"^dtype is\b": "--store-dtype is",
    r"\bdtype='bfloat16'": "--store-dtype bfloat16",
    r"Write vitlens\.register_corruption\(.*\) first\.": "Name it with --frost.",
    r"See model\.hook_names\.": "In Python, vitlens.load(FILE).hook_names lists them.",
    r"\bName another output\b": "Name another --output",
    r"Name another folder, or delete this one to (\w+) anew\.": "Name another --output, or delete that "
    r"folder to \1 anew.",
    r"^precision\b": "--precision",
    r"\bon_bad_image='(\w+)'": r"--on-bad-image \1",
}


def spoken(message: str, options: Iterable[str] = ()) -> str:
    """A message with the command's options in it.

    Args:
        message: an error's.
        options: the command's, without their dashes; arguments of Python's that are called alike are said
            as these.

    Example:
        >>> spoken('Pass vitlens.load(path, architecture="deit_tiny_patch16_224").')
        'Pass --architecture deit_tiny_patch16_224.'
        >>> spoken("steps is 0, or leave batch_size out.", ["steps", "batch-size"])
        '--steps is 0, or leave --batch-size out.'
        >>> spoken("Pass batch_size=32.", ["batch-size"])
        'Pass --batch-size 32.'
    """
    for pattern, words in _SAID.items():
        message = re.sub(pattern, words, message)
    for option in options:
        name = option.replace("-", "_")
        # A single word may be one of the sentence's own, but where it begins it.
        is_word = "_" not in name
        place = rf"^{name}(?= (?:is|has|names)\b)" if is_word else rf"(?<![\w/.'\"-]){name}(?![\w/'\"])"
        message = re.sub(rf"{place}=(?=[\w'\"\[(])", f"--{option} ", message)
        message = re.sub(rf"{place}=?", f"--{option}", message)
    return message
