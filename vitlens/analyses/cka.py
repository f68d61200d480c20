"""Linear CKA of two checkpoints' residual streams, unbiased and exact in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from ..errors import AnalysisError
from ..functional.cka import (
    Moments,
    cka_from_moments,
    cka_moments,
    grouped_jackknife_se,
    merge_cka_moments,
)
from ..images import Batch
from ..models import HookedViT
from ..names import resid_hooks
from ..running.analysis import Pass, Reduction, State
from .representation import check_places, row_of

_MIN_IMAGES = 4
_DEFINED = (
    "Centered kernel alignment of the images' representations in both checkpoints, with a linear kernel and "
    "the unbiased estimator: 1 where they are equal up to rotation and scale, about 0 where they are "
    "unrelated."
)


@dataclass(frozen=True)
class CKA:
    """Centered kernel alignment of a checkpoint with the reference, over a set of images.

    Variable (resid_layer): `cka`, 1 for a rotated, scaled or shifted copy of the reference's representation
    and around 0 for an unrelated one. NaN where a representation is the same for all images, as the class
    token is before block 0. Each image gives one row a place. Sums of d × d numbers over all images stand
    for the n × n kernels, so that the value is that of the whole set and not a mean over batches, which
    would depend on their size.

    With `n_groups` above 1 there is `cka_se` (resid_layer) beside it, a standard error over images: each
    image is dealt to a group by a hash of its id, and each group is left out once.

    The sums take 24 d² bytes a place and group, for each checkpoint and condition: 184 MB for ViT-B, 3.7 GB
    with 20 groups.

    Args:
        tokens: `pooled`, what the model's own pooling hands to its head; or the mean over `all` tokens or
            over those of one kind: `cls`, `patch`, `register`, `distillation`.
        n_groups: groups of images for the standard error; 1 for none, 10 to 20 for one.

    Raises:
        AnalysisError: `n_groups` is below 1; in `finish`, there are too few images.

    Source: Kornblith et al. (2019), "Similarity of neural network representations revisited", section 3; the
    unbiased HSIC of Song et al. (2012), "Feature selection via dependence maximization", as Nguyen et al.
    (2021), "Do wide and deep networks learn the same things?", use it; standard error by Busing, Meijer & van
    der Leeden (1999), "Delete-m jackknife for unequal m".

    Example:
        >>> import timm, vitlens as vl
        >>> def vit():
        ...     return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=10)
        >>> models = {"base": vl.HookedViT(vit()), "tuned": vl.HookedViT(vit())}
        >>> images = [vl.images.digits("test")[i] for i in range(8)]
        >>> data = vl.run(models, images, [CKA(tokens="patch")], progress=False)
        >>> data["cka"].dims, bool((data["cka"].sel(checkpoint="base") == 1).all())
        (('checkpoint', 'condition', 'resid_layer'), True)
    """

    tokens: str = "pooled"
    n_groups: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.n_groups, int) or self.n_groups < 1:
            raise AnalysisError(
                f"n_groups is {self.n_groups!r}.",
                expected="1 for no standard error, or the number of groups that images are dealt to",
                remedy="Pass n_groups=20, say.",
            )

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every place on the residual stream, reduced to one row an image."""
        return dict.fromkeys(resid_hooks(model.cfg.n_layers), row_of(model, self.tokens, "CKA"))

    def update(self, state: State | None, reference: Pass, checkpoint: Pass, batch: Batch) -> State:
        """The sums with one batch added."""
        check_places(reference, checkpoint, "CKA")
        state = {} if state is None else state
        device = next(iter(state.values())).device if state else _with_float64(batch.pixels.device)
        x, y = _rows(reference).to(device), _rows(checkpoint).to(device)
        groups = torch.tensor([_group_of(image_id, self.n_groups) for image_id in batch.image_ids])
        for group in groups.unique().tolist():
            members = (groups == group).to(device)
            _add(state, group, cka_moments(x[:, members], y[:, members]))
        return state

    def merge(self, state: State, other: State) -> State:
        """The sums of two disjoint sets of images."""
        merged = {name: tensor.clone() for name, tensor in state.items()}
        for group, moments in _groups(other):
            _add(merged, group, moments)
        return merged

    def finish(self, state: State) -> xr.Dataset:
        """CKA by place."""
        groups = [moments for _, moments in _groups(state)]
        sizes = torch.cat([moments["n"] for moments in groups])
        n = int(sizes.sum())
        if n < _MIN_IMAGES:
            raise _too_few(
                f"{n} images", f"at least {_MIN_IMAGES}: the unbiased estimator has none for fewer"
            )
        of_all = {"units": "", "n_images": n}
        note = {**of_all, "long_name": "Linear CKA with the reference, unbiased", "description": _DEFINED}
        if self.n_groups == 1:
            values = {"cka": (cka_from_moments(groups[0]), note)}
        else:
            if n - int(sizes.max()) < _MIN_IMAGES:
                raise _too_few(
                    f"{n} images, and {int(sizes.max())} of them are in one of {len(groups)} groups",
                    f"at least {_MIN_IMAGES} images when a group is left out",
                )
            cka, left_out = _by_place(groups)
            se = grouped_jackknife_se(cka, left_out, sizes)
            error_note = {**of_all, "long_name": "Standard error of CKA over images"}
            values = {"cka": (cka, note), "cka_se": (se, error_note)}
        return xr.Dataset(
            {
                name: ("resid_layer", each.float().cpu().numpy(), attrs)
                for name, (each, attrs) in values.items()
            },
            coords={"resid_layer": range(len(values["cka"][0]))},
        )


def _rows(side: Pass) -> Tensor:
    """[resid_layer batch d]."""
    return torch.stack([side.cache[name] for name in resid_hooks(side.model.cfg.n_layers)])


def _with_float64(device: torch.device) -> torch.device:
    """The device, or the CPU where the device has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def _group_of(image_id: str, n_groups: int) -> int:
    digest = hashlib.blake2b(image_id.encode(), digest_size=8, person=b"vitlens.cka.1").digest()
    return int.from_bytes(digest, "little") % n_groups


def _add(state: State, group: int, moments: Moments) -> None:
    """Add moments, in place, to those of their group, which stand in the state as `group/name`."""
    mine = {name: state[f"{group}/{name}"] for name in moments if f"{group}/{name}" in state}
    if mine:
        moments = merge_cka_moments(mine, moments, in_place=True)
    else:
        moments = {name: tensor.clone() for name, tensor in moments.items()}
    state.update({f"{group}/{name}": tensor for name, tensor in moments.items()})


def _groups(state: State) -> Iterator[tuple[int, Moments]]:
    numbers = sorted({int(name.partition("/")[0]) for name in state})
    for group in numbers:
        prefix = f"{group}/"
        yield group, {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}


def _by_place(groups: list[Moments]) -> tuple[Tensor, Tensor]:
    """CKA [resid_layer] of all images, and [group resid_layer] with each group left out."""
    cka, left_out = [], []
    for place in range(len(groups[0]["mean_x"])):
        # A place at a time: the running unions of all groups would not fit beside the sums.
        parts = [
            {name: each if name == "n" else each[place] for name, each in moments.items()}
            for moments in groups
        ]
        upward, downward = _unions(parts), _unions(parts[::-1])[::-1]
        cka.append(cka_from_moments(upward[-1]))
        rests = [downward[1], *map(merge_cka_moments, upward[:-2], downward[2:]), upward[-2]]
        left_out.append(torch.stack([cka_from_moments(rest) for rest in rests]))
    return torch.stack(cka), torch.stack(left_out, dim=1)


def _unions(parts: list[Moments]) -> list[Moments]:
    """The first part, the first two joined, ..., all joined."""
    unions = parts[:1]
    for part in parts[1:]:
        unions.append(merge_cka_moments(unions[-1], part))
    return unions


def _too_few(given: str, expected: str) -> AnalysisError:
    return AnalysisError(f"CKA is given {given}.", expected=expected, remedy="Give more images.")
