"""Transplants: one checkpoint run with activations of another, at chosen hooks or part by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ..errors import HookError
from ..functional.attribution import correct_log_probability
from ..images import Batch
from ..images.pixels import check_batch
from ..models import HookedViT
from ..running import Reduction, same_architecture, table
from ..running.analysis import Pass
from ..running.passes import measuring
from .interventions import (
    BLOCK_PARTS,
    KINDS,
    block_by_block,
    check_kinds,
    components_of,
    logits_with,
    replacing,
)
from .prediction import is_correct, needs_classes

# LogitAttribution has `component`: an axis lists the same labels for all analyses of a run.
_AXIS = "transplant_component"

_BY_HEAD = ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_z", "hook_result")
_BY_HEAD_FIRST = ("hook_attn_scores", "hook_pattern")


def transplant(
    donor: HookedViT,
    recipient: HookedViT,
    pixels: Float[Tensor, "batch 3 height width"],
    names: str | Sequence[str] | Mapping[str, Sequence[int] | None],
) -> Float[Tensor, "batch n_classes"]:
    """Run one checkpoint with another's activations at chosen hooks.

    Both are run in evaluation mode, without gradients, and left as they were. A checkpoint transplanted into
    itself changes nothing: to the last bit, but for rounding where the fused or native operation is left:
    at `hook_pattern` and `hook_attn_scores`, `hook_result`, and the norms' hooks.

    Args:
        donor: where the activations come from.
        recipient: the model whose logits are asked for.
        pixels: in [0, 1]; each model normalizes its own way.
        names: a hook, several, or hook -> heads, where only those heads are transplanted (None: all). Hooks
            with heads: `hook_q`, `hook_k`, `hook_v`, `hook_rot_q`, `hook_rot_k`, `hook_attn_scores`,
            `hook_pattern`, `hook_z`, `hook_result`.

    Returns:
        The recipient's logits on its own device. With `hook_pooled`: its classifier on the donor's feature.

    Raises:
        ArchitectureError: the models differ in shape.
        HookError: a hook is unknown or has no heads, or a head is out of range.
        PixelError: the pixels are no images in [0, 1] of the models' size.

    Source: activation patching, Vig et al. (2020), "Investigating gender bias in language models using causal
    mediation analysis"; between models, Prakash et al. (2024), "Fine-tuning enhances existing mechanisms":
    cross-model activation patching.

    Example:
        >>> import timm, vitlens as vl
        >>> from vitlens.testing import randomize
        >>> base, tuned = (
        ...     vl.HookedViT(randomize(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2), seed))
        ...     for seed in (0, 1)
        ... )
        >>> pixels = torch.rand(1, 3, 32, 32)
        >>> logits = transplant(tuned, base, pixels, "blocks.1.hook_resid_post")
        >>> logits.shape, torch.equal(logits, transplant(base, base, pixels, "blocks.1.hook_resid_post"))
        (torch.Size([1, 1000]), False)
    """
    same_architecture({"donor": donor, "recipient": recipient})
    check_batch(pixels, "The pixels of the transplant")
    names = [names] if isinstance(names, str) else names
    wanted = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)
    for model in (donor, recipient):
        model.check_hook_names(wanted)
    for name, heads in wanted.items():
        if heads is not None:
            _check_heads(name, heads, recipient)
    with measuring([donor, recipient]):
        _, given = donor.run_with_cache(
            donor.normalize(pixels.to(donor.device)), names_filter=list(wanted), device=recipient.device
        )
        hooks = [
            (name, replacing(given[name], heads, 1 if name.endswith(_BY_HEAD_FIRST) else 2))
            for name, heads in wanted.items()
        ]
        with recipient.hooks(fwd_hooks=hooks):
            logits: Tensor = recipient(recipient.normalize(pixels.to(recipient.device)))
    return logits


def _check_heads(name: str, heads: Sequence[int], model: HookedViT) -> None:
    if not name.endswith((*_BY_HEAD, *_BY_HEAD_FIRST)):
        raise HookError(
            f"'{name}' has no axis of heads.",
            expected=f"a hook that ends with one of {', '.join((*_BY_HEAD, *_BY_HEAD_FIRST))}",
            remedy="Give None in place of the heads, to transplant the whole activation.",
        )
    n_heads = _n_heads(name, model)
    wrong = [head for head in heads if not 0 <= head < n_heads]
    if wrong:
        raise HookError(
            f"Head {wrong[0]} of '{name}' was asked for.",
            expected=f"0 to {n_heads - 1}",
            remedy="Heads count from 0; keys and values may have fewer, a differential head has two maps.",
        )


def _n_heads(name: str, model: HookedViT) -> int:
    """Heads at a hook: those of the weights that make it."""
    layer, _, point = name.removeprefix("blocks.").partition(".attn.")
    attention: Any = model.blocks[int(layer)].attn
    if point in ("hook_k", "hook_rot_k"):
        return len(attention.W_K)
    if point in ("hook_q", "hook_rot_q", *_BY_HEAD_FIRST):
        return len(attention.W_Q)
    return len(attention.W_V) if point == "hook_v" else model.cfg.n_heads


@dataclass(frozen=True)
class Transplant:
    """Where the difference between two checkpoints lives: each part of one put into the other, by itself.

    The reference is the recipient; the checkpoint is the donor. Variables (image, transplant_component):
    `transplant_log_probability` of the correct class in nats, and `transplant_correct`. On the axis stand
    `none` (the recipient as it is), `all` (the donor as it is), and for each kind asked for:

    * `resid`: `3_resid_post`, the stream after block 3: the donor up to there, the recipient from there on;
    * `attn`, `mlp`: `3_attn_out`, `3_mlp_out`, what one branch adds;
    * `head`: `L3H0`, one head's output `hook_z`, on its way through the recipient's own output weights;
    * `feature`: the donor's feature under the recipient's classifier;
    * `classifier`: the recipient's feature under the donor's classifier.

    Cost: both checkpoints are walked block by block, and the blocks before a transplant are not run again.
    For n layers and h heads that is, in whole forward passes, 2 for the walk, (n - 1) / 2 for `resid`,
    (n + 1) / 2 each for `attn` and `mlp`, h (n + 1) / 2 for `head`, and next to nothing for the two others:
    40 a batch for DeiT-tiny. No more than one block's activations of each checkpoint are alive. The
    recipient itself, the first row, costs nothing.

    Args:
        components: kinds of component, in the order wanted.

    Source: as for `transplant`.

    Example:
        >>> Transplant(components=("resid", "classifier"))
        Transplant(components=('resid', 'classifier'))
    """

    components: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        check_kinds(self.components, KINDS, "Transplant")

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """The feature that enters the classifier, where it is exchanged; blocks are walked later."""
        needs_classes(model, self)
        return {"hook_pooled": None} if {"feature", "classifier"} & {*self.components} else {}

    def compare(self, reference: Pass, checkpoint: Pass, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        same_architecture({"donor": checkpoint.model, "recipient": reference.model})
        labels = ["none", "all", *(part.label for part in components_of(reference.model, self.components))]
        outputs = {"none": reference.logits, "all": checkpoint.logits}
        said = {label: _said(logits, batch) for label, logits in outputs.items()}
        if reference.model is not checkpoint.model:
            said |= {
                label: _said(logits, batch) for label, logits in self._sweep(reference, checkpoint, batch)
            }
        by_label = [said.get(label, said["none"]) for label in labels]
        return table(
            {
                "transplant_log_probability": (
                    (_AXIS,),
                    torch.stack([log_probability for log_probability, _ in by_label], dim=1),
                    {
                        "units": "nats",
                        "long_name": "Log-probability of the correct class with one part of the checkpoint "
                        "in the reference",
                    },
                ),
                "transplant_correct": (
                    (_AXIS,),
                    torch.stack([correct for _, correct in by_label], dim=1),
                    {
                        "units": "share",
                        "long_name": "Correct prediction with one part of the checkpoint in the reference",
                    },
                ),
            },
            **{_AXIS: labels},
        )

    def _sweep(self, reference: Pass, checkpoint: Pass, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Each component's label and the logits with it transplanted."""
        recipient, donor = reference.model, checkpoint.model
        images = recipient.normalize(batch.pixels.to(recipient.device))
        donor_images = donor.normalize(batch.pixels.to(donor.device))
        if "feature" in self.components:
            feature = checkpoint.cache["hook_pooled"].to(recipient.device)
            yield "feature", recipient.family.classify(recipient.model, feature)
        if "classifier" in self.components:
            feature = reference.cache["hook_pooled"].to(donor.device)
            yield "classifier", donor.family.classify(donor.model, feature)
        inside = [kind for kind in self.components if kind in BLOCK_PARTS]
        if not inside:
            return
        by_layer = components_of(recipient, inside)
        parts = [BLOCK_PARTS[kind] for kind in inside if kind != "resid"]
        walks = block_by_block(recipient, images), block_by_block(donor, donor_images, parts)
        for own, given in zip(*walks, strict=True):
            for component in by_layer:
                if component.layer != own.layer:
                    continue
                if component.kind == "resid":
                    after, resid = own.layer + 1, given.resid_post.to(recipient.device)
                    yield component.label, recipient(images, start_at_layer=after, resid=resid)
                else:
                    part = BLOCK_PARTS[component.kind]
                    heads = [component.head] if component.kind == "head" else None
                    by = given.parts[part]
                    yield component.label, logits_with(recipient, images, own, part, by, heads)


def _said(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probability of the correct class, and whether it is predicted."""
    labels = batch.labels.to(logits.device)
    log_probability = correct_log_probability(logits, labels)
    return log_probability.cpu(), is_correct(logits, labels).cpu()
