"""The study's claims and their margins, which stand before any number is seen; the page prints them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vitlens.comparison.features import SIMILAR

Says = Literal["higher", "lower", "same"]

MARGINS = {
    "top1_accuracy": 0.02,
    "correct_probability": 0.02,
    "first_correct_layer": 0.1,
    "mean_attention_entropy_nats": 0.05,
    "code_cosine_vanilla": 0.02,
    "code_cosine_batch_topk": 0.02,
}
"""The largest difference that counts as none, in each metric's unit; the metrics are the primary family.

Two points of accuracy or probability; a tenth of a block; entropy that differs by 0.05 nats has heads look at
5 % more tokens or fewer.
"""

HALF = 0.5
"""A part that closes so much of the gap by itself carries it."""

TUNED = ("removes", "adds", "both")
SEEN = (("removes", "removes"), ("adds", "adds"), ("both", "removes"), ("both", "adds"))
"""Checkpoint, and a group of conditions that it was trained on."""


@dataclass(frozen=True)
class Claim:
    """A sentence about the fine-tuned models, and the rows that decide it.

    Attributes:
        name: of its figure and in the tables.
        title: of its section.
        sentence: what is claimed.
        says: how each row's difference from the control shall be.
        rows: metric, checkpoint, group of conditions. Empty where a table of its own has them.
        remark: what else a reader should know.
    """

    name: str
    title: str
    sentence: str
    says: Says
    rows: tuple[tuple[str, str, str], ...] = ()
    remark: str = ""


def _rows(metric: str, pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str, str], ...]:
    return tuple((metric, checkpoint, group) for checkpoint, group in pairs)


CLAIMS = (
    Claim(
        "accuracy_seen",
        "Accuracy on corruptions trained on",
        "Fine-tuning on corruptions raises top-1 accuracy on those corruptions.",
        "higher",
        _rows("top1_accuracy", SEEN),
        "Top-5 and top-10 accuracy stand beside it in `groups.csv`, where the model has more classes.",
    ),
    Claim(
        "accuracy_unseen",
        "Accuracy on corruptions never seen",
        "The gain carries over to families of corruption that none of the models was trained on.",
        "higher",
        _rows("top1_accuracy", [(name, "unseen") for name in TUNED]),
        "A corruption is unseen only if no corruption of its family was trained on.",
    ),
    Claim(
        "accuracy_other_half",
        "Accuracy on the other half of the spectrum",
        "What is learned where high frequencies are removed helps where they are added, and the other way "
        "round.",
        "higher",
        _rows("top1_accuracy", [("removes", "adds"), ("adds", "removes")]),
    ),
    Claim(
        "accuracy_clean",
        "Accuracy on clean images",
        "Fine-tuning on corruptions costs no top-1 accuracy on clean images, and brings none.",
        "same",
        _rows("top1_accuracy", [(name, "clean") for name in TUNED]),
    ),
    Claim(
        "probability",
        "Probability of the correct class",
        "The correct class is more probable under corruptions, those trained on and those never seen.",
        "higher",
        _rows("correct_probability", [*SEEN, *((name, "unseen") for name in TUNED)]),
    ),
    Claim(
        "first_correct_layer",
        "First correct layer",
        "Under the corruptions trained on, the logit lens arrives at the correct class earlier.",
        "lower",
        _rows("first_correct_layer", SEEN),
        "Places on the residual stream: 0 is what enters the first block. An image that the lens never gets "
        "right counts as one place after the last; `never_correct_share` in `groups.csv` says how many.",
    ),
    Claim(
        "attention",
        "Attention entropy",
        "Heads look as widely as before, on clean images and under the corruptions trained on.",
        "same",
        _rows("mean_attention_entropy_nats", [*((name, "clean") for name in TUNED), *SEEN]),
        "The mean over layers and heads of the entropy of the class token's attention (of the patches', in a "
        "model without a class token). A mean over heads can stay where single heads move: the layers are in "
        "[`layers.csv`](study/layers.csv), each head and attention maps of single images in the report.",
    ),
    Claim(
        "features",
        "Features of sparse autoencoders",
        "Fine-tuning on corruptions does not fundamentally change the sparse representations.",
        "same",
        remark="`similarity_share` is where two checkpoints' dictionaries lie between those of a model with "
        "random weights (0) and those of one checkpoint that differ in seed alone (1): equivalent where its "
        f"interval lies above {SIMILAR}, changed where it lies below 1. No two SAEs that are compared share "
        "a seed, and intervals are over SAEs. The study compared each model with its base; the control's own "
        "rows say what more training does without any corruption.",
    ),
    Claim(
        "codes",
        "Codes under corruption",
        "Under the corruptions trained on, the features active on an image stay nearer to those active on "
        "its clean version.",
        "higher",
        (*_rows("code_cosine_vanilla", SEEN), *_rows("code_cosine_batch_topk", SEEN)),
        "The cosine between the two images' mean codes, each checkpoint coded by one SAE of the base.",
    ),
    Claim(
        "parts",
        "Where the robustness lives",
        "The robustness lives in no single part: no one attention or MLP output of a fine-tuned model, put "
        "into the control, closes half of the gap between the two.",
        "same",
        remark="The gap is that in log-probability of the correct class, under the first of the corruptions "
        "trained on. Intervals are simultaneous over all parts (Bonferroni); the verdict is over all "
        "of them, and the table shows the largest of each model.",
    ),
)
"""In the order of the page. Only `features` is the study's own sentence; the others its protocol asks."""
