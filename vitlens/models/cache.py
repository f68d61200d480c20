"""The activation cache of a Vision Transformer: TransformerLens's, with its names."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformer_lens import ActivationCache as LensActivationCache

from ..errors import HookError
from ..names import nearest


class ActivationCache(LensActivationCache):  # type: ignore[misc]  # untyped there
    """Activations of one forward pass, by hook name or TransformerLens's shorthand.

    Example:
        >>> import timm, torch, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("deit_tiny_patch16_224").eval())
        >>> logits, cache = model.run_with_cache(torch.zeros(1, 3, 224, 224), names_filter="hook_embed")
        >>> cache["hook_embed"].shape
        torch.Size([1, 197, 192])
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
