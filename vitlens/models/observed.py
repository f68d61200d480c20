"""A hooked root module that can also be observed: read without hooks, cached without copies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformer_lens import HookedRootModule

from ..errors import HookError
from ..names import nearest
from .cache import ActivationCache
from .hook_point import Guard, HookPoint, Observer

NamesFilter = None | str | Sequence[str] | Callable[[str], bool]
HookFn = Callable[..., Tensor | None]


# Hooks that not every architecture has, and which has them.
_WHERE_IT_IS = {
    "hook_pos_embed": "a model that adds a position embedding to its tokens",
    "hook_embed_norm": "a model with a norm before block 0",
    "hook_rot_q": "a model with rotary position embedding",
    "hook_rot_k": "a model with rotary position embedding",
    "hook_result": "a block whose heads are added up, with no norm after them,",
    "hook_resid_mid": "a block whose MLP comes after its attention",
    "hook_pre_linear": "a gated MLP",
    "hook_scale": "a LayerNorm or RMS norm",
    "hook_normalized": "a LayerNorm or RMS norm",
}


class ObservedRootModule(HookedRootModule):  # type: ignore[misc]  # untyped there
    """TransformerLens's root module, with observers beside its hooks, and names that are checked."""

    _guard: Guard

    def setup(self) -> None:
        """Name the hook points and list them; the wrapped module is left untouched."""
        self._guard = Guard()
        self.mod_dict = {}
        self.hook_dict = {}
        for name, module in self.named_modules():
            if isinstance(module, HookPoint):
                module.name = name
                module.guard = self._guard
                self.hook_dict[name] = module
                self.mod_dict[name] = module

    @property
    def hook_names(self) -> tuple[str, ...]:
        """Every hook of this model. Each can be read, and writing to it changes the output."""
        return tuple(self.hook_dict)

    def run_with_cache(
        self,
        images: Tensor,
        *,
        names_filter: NamesFilter = None,
        stop_at_layer: int | None = None,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
    ) -> tuple[Tensor, ActivationCache]:
        """Run the model and keep activations.

        Args:
            images: [batch channel height width], normalised.
            names_filter: which hooks to keep: a name, names, or a predicate on names. None keeps every hook
                but `hook_result`, whose [batch pos head d_model] is the largest by far.
            stop_at_layer: as in `forward`.
            device: where to keep them; by default where they arise.
            remove_batch_dim: drop the first axis; for a single image.

        Returns:
            The logits (or the residual stream where it stopped), and the cache, detached from the graph.

        Raises:
            HookError: a name is no hook of this model.
            PixelError: the images do not fit the model.
        """
        kept: dict[str, Tensor] = {}

        def keep(name: str) -> Observer:
            def observe(activation: Tensor) -> None:
                kept[name] = self.keep(activation.detach(), device)

            return observe

        observers = {name: keep(name) for name in self.select_hooks(names_filter)}
        with self.observing(observers):
            output = self(images, stop_at_layer=stop_at_layer)
        cache = ActivationCache(kept, self)
        return output, cache.remove_batch_dim() if remove_batch_dim else cache

    @contextlib.contextmanager
    def observing(self, observers: Mapping[str, Observer]) -> Iterator[Any]:
        """Read activations as they stream by, without keeping them and without hooks.

        Args:
            observers: hook name -> function of the activation. What it returns is ignored; it must not
                write. An observer that keeps the tensor itself is safe from later in-place hooks.

        Yields:
            The model.

        Raises:
            HookError: a name is no hook of this model.

        Example:
            >>> import timm, torch
            >>> from vitlens import HookedViT
            >>> model = HookedViT(timm.create_model("deit_tiny_patch16_224").eval())
            >>> with torch.no_grad(), model.observing({"blocks.0.hook_resid_post": lambda x: print(x.shape)}):
            ...     _ = model(torch.zeros(1, 3, 224, 224))
            torch.Size([1, 197, 192])
        """
        self.check_hook_names(observers)
        outermost = not self._guard.active
        for name, observer in observers.items():
            self.hook_dict[name].observers.append(observer)
        self._guard.active = True
        try:
            yield self
        finally:
            for name, observer in observers.items():
                self.hook_dict[name].observers.remove(observer)
            if outermost:
                self._guard.clear()

    def keep(self, activation: Tensor, device: torch.device | str | None = None) -> Tensor:
        """An activation to hold on to from inside an observer.

        A small view is copied rather than pinning the storage it is part of; anything else is kept as it
        is and guarded from the in-place hooks of later points.

        Args:
            activation: what the observer was shown.
            device: where to hold it; by default where it is.
        """
        if device is not None and torch.device(device) != activation.device:
            return activation.to(device)
        storage = activation.untyped_storage()
        if storage.nbytes() > activation.nbytes:
            return activation.clone()
        self._guard.storages.add(storage.data_ptr())
        return activation

    @contextlib.contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[tuple[str | Callable[[str], bool], HookFn]] = (),
        bwd_hooks: Sequence[tuple[str | Callable[[str], bool], HookFn]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[Any]:
        """TransformerLens's temporary hooks: `(name or predicate, fn(activation, hook))`.

        Raises:
            HookError: a name is no hook of this model.
        """
        self.check_hook_names([name for name, _ in (*fwd_hooks, *bwd_hooks) if isinstance(name, str)])
        with super().hooks(list(fwd_hooks), list(bwd_hooks), reset_hooks_end, clear_contexts):
            yield self

    def select_hooks(self, names_filter: NamesFilter) -> list[str]:
        """The hook names that a filter selects, in the order of `hook_names`.

        Raises:
            HookError: a name is no hook of this model.
        """
        if names_filter is None:
            return [name for name in self.hook_dict if not name.endswith("hook_result")]
        if callable(names_filter):
            return [name for name in self.hook_dict if names_filter(name)]
        names = {names_filter} if isinstance(names_filter, str) else set(names_filter)
        self.check_hook_names(names)
        return [name for name in self.hook_dict if name in names]

    def check_hook_names(self, names: Sequence[str] | Mapping[str, Any] | set[str]) -> None:
        """Raise `HookError` for the first name that is no hook of this model."""
        for name in names:
            if not isinstance(name, str):
                raise HookError(
                    f"A hook name is {name!r}.", expected="a text", remedy="See model.hook_names."
                )
            if name not in self.hook_dict:
                reason = _WHERE_IT_IS.get(name.rsplit(".", 1)[-1])
                why = f" Only {reason} has such a place." if reason else ""
                raise HookError(
                    f"'{name}' is not a hook of this model.{why}",
                    expected=f"one of its {len(self.hook_dict)} hooks (nearest: "
                    f"{nearest(name, self.hook_dict)})",
                    remedy="See model.hook_names.",
                )
