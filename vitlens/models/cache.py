"""The activation cache of a Vision Transformer: TransformerLens's, with its names, right for a ViT."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache as LensActivationCache
from transformer_lens.utilities import Slice

from ..errors import HookError, ShapeError
from ..names import nearest
from . import cache_files
from .attribution import head_results, linear_logits, logit_constant, normalize_components, scaled_neurons

_WITHOUT_POSITION = ("hook_pattern", "hook_attn_scores", "hook_pooled")


class ActivationCache(LensActivationCache):  # type: ignore[misc]  # untyped there
    """Activations of one forward pass, by hook name or TransformerLens's shorthand.

    TransformerLens's methods for language models are replaced where a ViT differs: LayerScale is in every
    head's and neuron's result, the final norm's gain is carried, and the head's bias is a constant of its
    own. Where no sum exists, for attention pooling or a norm after the heads, the call raises and says why.

    Args:
        cache_dict: hook name -> activation.
        model: the model that they are from; None for a cache that only holds.
        has_batch_dim: whether the first axis is that of the images.

    Example:
        >>> import timm, torch, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("deit_tiny_patch16_224").eval())
        >>> logits, cache = model.run_with_cache(torch.zeros(1, 3, 224, 224), names_filter="hook_embed")
        >>> cache["hook_embed"].shape, cache.cls("hook_embed").shape, cache.patches("hook_embed").shape
        (torch.Size([1, 197, 192]), torch.Size([1, 192]), torch.Size([1, 14, 14, 192]))
    """

    def __init__(self, cache_dict: dict[str, Tensor], model: Any, has_batch_dim: bool = True) -> None:
        super().__init__(cache_dict, model, has_batch_dim)

    def __getitem__(self, key: Any) -> Tensor:
        """The activation at `key`, a hook name or a shorthand such as `("resid_post", 3)`.

        Raises:
            HookError: the cache holds no such activation.
        """
        try:
            activation: Tensor = super().__getitem__(key)
        except (KeyError, TypeError, AttributeError) as error:
            missing = error.args[0] if isinstance(error, KeyError) and error.args else key
            raise HookError(
                f"{missing!r} is not in this cache of {len(self)} activations.",
                expected=f"a cached hook name (nearest: {nearest(str(missing), self.keys())})",
                remedy="Name the hook in names_filter of run_with_cache, or in hooks() of your analysis.",
            ) from error
        return activation

    def __contains__(self, name: object) -> bool:
        """Whether the activation at hook `name` was cached."""
        return name in self.cache_dict

    def apply_slice_to_batch_dim(self, batch_slice: Any) -> ActivationCache:
        """The same cache for the images that `batch_slice` takes: a number, a slice or a list."""
        sliced = super().apply_slice_to_batch_dim(batch_slice)
        return ActivationCache(sliced.cache_dict, self.model, sliced.has_batch_dim)

    # ------------------------------------------------------------------ tokens

    def cls(self, name: str) -> Tensor:
        """The class token's activation at hook `name`: without the `pos` axis.

        Raises:
            ArchitectureError: the model has no class token.
            HookError: the activation has no `pos` axis, or is not cached.
        """
        return self._tokens(name, "cls").squeeze(self._pos_axis)

    def registers(self, name: str) -> Tensor:
        """The registers' activations at hook `name`.

        Raises:
            ArchitectureError: the model has no registers.
            HookError: the activation has no `pos` axis, or is not cached.
        """
        return self._tokens(name, "register")

    def patches(self, name: str) -> Tensor:
        """The patches' activations at hook `name`, with `pos` as (row, column).

        Raises:
            HookError: the activation has no `pos` axis, or is not cached.
            ShapeError: the patches form no grid that is known.
        """
        patches = self._tokens(name, "patch")
        n_patches, grid = patches.shape[self._pos_axis], self.model.cfg.grid_size
        if grid is None or grid[0] * grid[1] != n_patches:
            side = round(n_patches**0.5)
            grid = (side, side)
        if grid[0] * grid[1] != n_patches:
            raise ShapeError(
                f"'{name}' has {n_patches} patches.",
                expected="the model's grid, or a square one",
                remedy="Take cache[name] and reshape its patches by hand.",
            )
        grid_of: Tensor = patches.unflatten(self._pos_axis, grid)
        return grid_of

    @property
    def _pos_axis(self) -> int:
        return 1 if self.has_batch_dim else 0

    def _tokens(self, name: str, kind: str) -> Tensor:
        activation = self[name]
        if name.endswith(_WITHOUT_POSITION):
            raise HookError(
                f"'{name}' has no pos axis.",
                expected="an activation of tokens",
                remedy="Index queries and keys by hand: cache[name][:, head, query, key].",
            )
        positions = self.model.cfg.positions(kind)
        tokens: Tensor = activation[:, positions] if self.has_batch_dim else activation[positions]
        return tokens

    # ------------------------------------------------------------------ parts of the residual stream

    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: str = "all",
        apply_ln: bool = False,
        pos_slice: Any = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Any:
        """The parts whose sum is the residual stream that enters block `layer`.

        Args:
            layer: up to which block, exclusive; None and -1 stand for all blocks.
            mlp_input: with the attention output of block `layer` as well.
            mode: `all`, or only the `attn` or `mlp` outputs.
            apply_ln: carry the final norm: `apply_ln_to_stack`.
            pos_slice: which positions.
            incl_embeds: with what enters block 0: token and position embedding apart, or their norm.
            return_labels: return the parts' names as well.

        Returns:
            [component batch pos d_model], and the labels if asked for.
        """
        n_layers = self.model.cfg.n_layers
        layer = n_layers if layer in (None, -1) else layer
        assert isinstance(layer, int)
        parts: list[tuple[str, Tensor]] = []
        if incl_embeds and "hook_embed_norm" in self.model.hook_dict:
            parts.append(("embed_norm", self["hook_embed_norm"]))
        elif incl_embeds:
            parts.append(("embed", self["hook_embed"]))
            if "hook_pos_embed" in self.model.hook_dict:
                parts.append(("pos_embed", self["hook_pos_embed"]))
        for index in range(layer + int(mlp_input)):
            if mode in ("all", "attn"):
                parts.append((f"{index}_attn_out", self["attn_out", index]))
            if mode in ("all", "mlp") and index < layer:
                parts.append((f"{index}_mlp_out", self["mlp_out", index]))
        stack = torch.stack([_sliced(part, pos_slice) for _, part in parts])
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, layer, pos_slice=pos_slice)
        return (stack, [label for label, _ in parts]) if return_labels else stack

    def stack_head_results(
        self,
        layer: int = -1,
        return_labels: bool = False,
        incl_remainder: bool = False,
        pos_slice: Any = None,
        apply_ln: bool = False,
    ) -> Any:
        """What each head of the first `layer` blocks adds to the residual stream, after LayerScale.

        Args:
            layer: up to which block, exclusive; -1 stands for all blocks.
            return_labels: return `L0H0`, ... as well.
            incl_remainder: with what else is in the stream there, as a last component.
            pos_slice: which positions.
            apply_ln: carry the final norm.

        Returns:
            [component batch pos d_model], and the labels if asked for.

        Raises:
            HookError: a norm or gate stands after the heads and `hook_result` is not cached, or there is
                no such sum at all.
        """
        cfg = self.model.cfg
        layer = cfg.n_layers if layer in (None, -1) else layer
        stacks, labels = [], []
        for index in range(layer):
            result = _sliced(head_results(self, index), pos_slice, axis=-3)
            stacks.append(result.movedim(-2, 0))
            labels += [f"L{index}H{head}" for head in range(result.shape[-2])]
        resid = _sliced(self[self._place(layer)], pos_slice)
        stack = torch.cat(stacks) if stacks else resid.new_zeros(0, *resid.shape)
        if incl_remainder:
            stack = torch.cat([stack, (resid - stack.sum(0)).unsqueeze(0)])
            labels.append("remainder")
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, layer, pos_slice=pos_slice)
        return (stack, labels) if return_labels else stack

    def compute_head_results(self) -> None:
        """Add `hook_result` of every block to the cache."""
        for layer in range(self.model.cfg.n_layers):
            self.cache_dict[f"blocks.{layer}.attn.hook_result"] = head_results(self, layer)

    def get_neuron_results(self, layer: int, neuron_slice: Any = None, pos_slice: Any = None) -> Tensor:
        """What each neuron of a block's MLP adds to the residual stream, after LayerScale.

        Args:
            layer: the block.
            neuron_slice: which neurons; all of them take [batch pos d_mlp d_model] numbers.
            pos_slice: which positions.

        Returns:
            [batch pos neuron d_model].

        Raises:
            HookError: a norm stands after the neurons, or `hook_post` is not cached.
        """
        neurons, W_out = scaled_neurons(self, layer)
        chosen = _as_slice(neuron_slice)
        neurons = chosen.apply(_sliced(neurons, pos_slice), dim=-1)
        results: Tensor = neurons.unsqueeze(-1) * chosen.apply(W_out, dim=0)
        return results

    # ------------------------------------------------------------------ the final norm and the logits

    def apply_ln_to_stack(
        self,
        residual_stack: Float[Tensor, "component *batch_pos d_model"],
        layer: int | None = None,
        mlp_input: bool = False,
        pos_slice: Any = None,
        batch_slice: Any = None,
        has_batch_dim: bool = True,
        recompute_ln: bool = False,
    ) -> Float[Tensor, "component *batch_pos d_model"]:
        """Carry a norm's linear part to each component: centered, over the norm's scale, times its gain.

        The components of a sum then sum to the normed stream less the norm's bias.

        Args:
            residual_stack: components of the residual stream.
            layer: the block whose `ln1` (with `mlp_input`, `ln2`) is carried; None, -1 and `n_layers`
                stand for the final norm.
            mlp_input: `ln2` rather than `ln1`.
            pos_slice: the positions that the stack has.
            batch_slice: the images that the stack has.
            has_batch_dim: kept for TransformerLens's callers.
            recompute_ln: let each component have a scale of its own, as if it were the whole stream.

        Returns:
            The components as the norm passes them on, without its bias.

        Raises:
            HookError: the norm's `hook_scale` is not cached, or comes after pooling.
        """
        n_layers = self.model.cfg.n_layers
        final = layer in (None, -1, n_layers)
        name = "ln_final" if final else f"blocks.{layer}.{'ln2' if mlp_input else 'ln1'}"
        return normalize_components(
            self, residual_stack, name, pos_slice=pos_slice, batch_slice=batch_slice, own_scale=recompute_ln
        )

    def logit_attrs(
        self,
        residual_stack: Float[Tensor, "component batch pos d_model"],
        tokens: Int[Tensor, " batch"] | Sequence[int] | int,
        incorrect_tokens: Int[Tensor, " batch"] | Sequence[int] | int | None = None,
        pos_slice: Any = None,
        batch_slice: Any = None,
        has_batch_dim: bool = True,
    ) -> Float[Tensor, "component batch"]:
        """Direct attribution of a class's logit to each component, by the model's own norm, pooling and head.

        With the components of the last residual stream, the attributions and `logit_constant` sum to the
        logit.

        Args:
            residual_stack: components of the last residual stream, all positions.
            tokens: the class of each image, or one for all.
            incorrect_tokens: subtract this class's attribution.
            pos_slice: not taken: the head reads all positions.
            batch_slice: the images that the stack has.
            has_batch_dim: kept for TransformerLens's callers.

        Returns:
            In units of the logit.

        Raises:
            HookError: the pooling is no sum (attention, maximum), or the final norm's scale is not cached.
        """
        logits = linear_logits(self, residual_stack, batch_slice=batch_slice)
        labels = self._labels(tokens, logits.shape[1])
        attributions = logits.gather(-1, labels.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
        if incorrect_tokens is None:
            return attributions
        other = self._labels(incorrect_tokens, logits.shape[1])
        return attributions - logits.gather(-1, other.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)

    def logit_constant(self, tokens: Int[Tensor, " batch"] | Sequence[int] | int) -> Float[Tensor, " batch"]:
        """What no component brings to a class's logit: the biases of the final norm and of the head.

        Args:
            tokens: the class of each image, or one for all.

        Returns:
            In units of the logit.
        """
        constant = logit_constant(self.model)
        n_images = self._batch_size() if self.has_batch_dim else 1
        return constant[self._labels(tokens, n_images)]

    def _labels(self, tokens: Any, n_images: int) -> Tensor:
        device = next(iter(self.values())).device
        return torch.as_tensor(tokens, device=device).expand(n_images)

    def _place(self, layer: int) -> str:
        n_layers = self.model.cfg.n_layers
        if layer == n_layers:
            return f"blocks.{n_layers - 1}.hook_resid_post"
        return f"blocks.{layer}.hook_resid_pre"

    def get_full_resid_decomposition(self, *args: Any, **kwargs: Any) -> Any:
        """Not for a ViT: by neuron it would hold every neuron of every token.

        Args:
            *args: not read.
            **kwargs: not read.

        Returns:
            Nothing.

        Raises:
            HookError: always.
        """
        raise _of_language_models("get_full_resid_decomposition")

    def stack_neuron_results(self, *args: Any, **kwargs: Any) -> Any:
        """Not for a ViT: it would hold every neuron of every token.

        Args:
            *args: not read.
            **kwargs: not read.

        Returns:
            Nothing.

        Raises:
            HookError: always.
        """
        raise _of_language_models("stack_neuron_results")

    # ------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the cache to one safetensors file, with the model's configuration and provenance.

        Args:
            path: where to write; made whole or not at all.

        Returns:
            The path.
        """
        return cache_files.write(path, dict(self.items()), self.has_batch_dim, self.model)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Any = None) -> ActivationCache:
        """Read a cache that `save` wrote.

        Args:
            path: the file.
            model: the model that the activations are from, for the methods that need one.

        Returns:
            The cache.

        Raises:
            CheckpointError: the file is missing, damaged or no cache.
        """
        tensors, has_batch_dim = cache_files.read(path)
        return cls(tensors, model, has_batch_dim)


def _sliced(activation: Tensor, pos_slice: Any, axis: int = -2) -> Tensor:
    sliced: Tensor = _as_slice(pos_slice).apply(activation, dim=axis)
    return sliced


def _as_slice(given: Any) -> Slice:
    return given if isinstance(given, Slice) else Slice(given)


def _of_language_models(method: str) -> HookError:
    return HookError(
        f"{method} is TransformerLens's method for language models.",
        expected="decompose_resid, stack_head_results, or get_neuron_results of one layer",
        remedy="Take the layers one at a time.",
    )
