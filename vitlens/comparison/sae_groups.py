"""Which SAEs of a comparison belong together; what cannot be matched is refused before the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ..errors import ComparisonError
from ..models import HookedViT
from ..running import activations, same_architecture

UNRELATED = "unrelated"
"""Key under which `compare` takes the SAEs of a model with random weights: the null's lower end."""

KIND_WORDS = {
    "vanilla": "vanilla",
    "batch_topk": "BatchTopK",
    "topk": "TopK",
    "jumprelu": "JumpReLU",
    "matryoshka": "matryoshka",
}
"""Kinds of SAE as one says them."""


class Group(NamedTuple):
    """What SAEs have in common whose features can be matched."""

    kind: str
    hook_name: str
    tokens: str

    @property
    def words(self) -> str:
        """As the start of a heading.

        Example:
            >>> Group("vanilla", "blocks.9.hook_resid_post", "patch").words
            'Vanilla SAE at blocks.9.hook_resid_post, patch tokens'
        """
        kind = KIND_WORDS.get(self.kind, self.kind)
        return f"{kind[:1].upper()}{kind[1:]} SAE at {self.hook_name}, {self.tokens} tokens"


def sae_groups(
    models: Mapping[str, HookedViT],
    saes: Mapping[str, Sequence[Any]],
    unrelated_model: HookedViT | None = None,
) -> dict[Group, dict[str, list[Any]]]:
    """The SAEs that can be matched with each other, by what they have in common.

    One image without content goes through the reference for each group, so that an SAE of another hook's
    width is found before the data are.

    Args:
        models: checkpoint name -> model; the first is the reference.
        saes: checkpoint name -> its SAEs; the key `"unrelated"` may be there besides.
        unrelated_model: the random-weight model behind `saes["unrelated"]`.

    Returns:
        Each group -> checkpoint name, the reference first and `unrelated` last -> its SAEs, or none.

    Raises:
        ComparisonError: an SAE belongs to no checkpoint, does not say what it was trained on or how, or is of
            another width than its hook; or no checkpoint's SAE can be matched with one of the reference's.
        SAEError: an SAE is in its training form, or two of one group differ in width.
        ArchitectureError: the random-weight model is of another architecture, or there are no such tokens.
        HookError, AnalysisError: there is no such hook, or its activation has other axes.
    """
    from ..saes.match_checks import check_saes  # sae-lens takes seconds to import, and is wanted only here

    _check_given(models, saes, unrelated_model)
    groups: dict[Group, dict[str, list[Any]]] = {}
    for checkpoint in (*models, UNRELATED):
        for sae in saes.get(checkpoint, ()):
            by_name = groups.setdefault(_group(sae, checkpoint), {name: [] for name in (*models, UNRELATED)})
            by_name[checkpoint].append(sae)
    reference, model = next(iter(models.items()))
    if not any(_has_pair(members, reference) for members in groups.values()):
        raise ComparisonError(
            f"Among the SAEs of {', '.join(saes) or 'no checkpoint'} there is no pair to match.",
            expected=f"SAEs of '{reference}' and of another checkpoint, of one kind, at one hook, "
            "with different seeds",
            remedy="Train them with vitlens.saes.train(..., seed=...), a seed of its own for each.",
        )
    for group, members in groups.items():
        named = {f"{name}[{at}]": sae for name, its in members.items() for at, sae in enumerate(its)}
        check_saes(named, allow_other_hook=False)
        _check_width(group, model, *next(iter(named.items())))
    return groups


def _check_given(
    models: Mapping[str, HookedViT], saes: Mapping[str, Sequence[Any]], unrelated_model: HookedViT | None
) -> None:
    if not isinstance(saes, Mapping):
        raise _no_lists(f"saes is a {type(saes).__name__}.")
    for name, its in saes.items():
        if not isinstance(its, Sequence) or isinstance(its, str):
            raise _no_lists(f"saes[{name!r}] is a {type(its).__name__}.")
    if UNRELATED in models:
        raise ComparisonError(
            f"A checkpoint is called '{UNRELATED}', and there are SAEs.",
            expected="another name: among SAEs it stands for those of a model with random weights",
            remedy="Name the checkpoint otherwise.",
        )
    if strangers := [name for name in saes if name not in models and name != UNRELATED]:
        raise ComparisonError(
            f"There are SAEs for '{strangers[0]}', which is no checkpoint of this comparison.",
            expected=f"one of {', '.join((*models, UNRELATED))}",
            remedy="Name the SAEs after the checkpoints.",
        )
    if unrelated_model is not None:
        if not isinstance(unrelated_model, HookedViT):
            raise ComparisonError(
                f"unrelated_model is a {type(unrelated_model).__name__}.",
                expected="a HookedViT with random weights",
                remedy="Leave it out to compare the unrelated SAEs by their decoders alone.",
            )
        reference, model = next(iter(models.items()))
        same_architecture({reference: model, UNRELATED: unrelated_model})


def _no_lists(given: str) -> ComparisonError:
    return ComparisonError(
        given,
        expected="checkpoint name -> list of its SAEs",
        remedy='Pass {"base": [...], "tuned": [...]}.',
    )


def _group(sae: Any, checkpoint: str) -> Group:
    from ..saes.checks import check_inference_form

    check_inference_form(sae, f"An SAE of '{checkpoint}'")
    said = {name: getattr(sae.cfg.metadata, name, None) for name in ("kind", "hook_name", "tokens", "seed")}
    if missing := [name for name, value in said.items() if value is None]:
        raise ComparisonError(
            f"An SAE of '{checkpoint}' does not say its {', '.join(missing)}.",
            expected="the metadata that vitlens.saes.train writes when it is given "
            "(model, dataset, hook_name)",
            remedy="Train it that way, or set the fields of sae.cfg.metadata.",
        )
    return Group(str(said["kind"]), str(said["hook_name"]), str(said["tokens"]))


def _has_pair(members: Mapping[str, Sequence[Any]], reference: str) -> bool:
    """Whether an SAE of the reference and one of another checkpoint differ in seed."""
    others = [sae for name, its in members.items() if name not in (reference, UNRELATED) for sae in its]
    return any(a.cfg.metadata.seed != b.cfg.metadata.seed for a in members[reference] for b in others)


def _check_width(group: Group, model: HookedViT, name: str, sae: Any) -> None:
    """Refuse an SAE that is not as wide as what its hook gives, or whose hook the model has not."""
    cfg = model.cfg
    height, width = cfg.required_image_size or cfg.image_size or cfg.patch_size
    blank = [{"pixels": torch.zeros(3, height, width), "label": 0, "image_id": "without content"}]
    rows = activations(model, blank, group.hook_name, tokens=group.tokens, progress=False)
    if rows.shape[1] != sae.cfg.d_in:
        raise ComparisonError(
            f"{name} has d_in {sae.cfg.d_in}, and '{group.hook_name}' is {rows.shape[1]} wide.",
            expected="an SAE that was trained on activations of this architecture",
            remedy="Check which model the SAE belongs to.",
        )
