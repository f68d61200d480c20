"""What a family of Vision Transformers has to say so that vitlens can open its modules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..config import ViTConfig
from ..opened import Opened

Context = Mapping[str, Any]
"""What a model hands to a block beside the residual stream: rotary embedding, position bias."""


@dataclass(frozen=True)
class Entry:
    """What enters block 0.

    Attributes:
        resid: the residual stream, [batch pos d_model].
        contexts: what each block gets beside it; empty for a model that hands nothing on.
    """

    resid: Tensor
    contexts: Sequence[Context] = ()

    def context(self, layer: int) -> Context:
        """What block `layer` gets beside the residual stream."""
        return self.contexts[layer] if self.contexts else {}


@dataclass(frozen=True)
class Embedding:
    """The parts that are added up before block 0, each [batch pos d_model] in storage of its own.

    Attributes:
        tokens: the embedded patches, prefix tokens before them.
        positions: their position embedding; a token without one has zeros. None where nothing is added.
        rest: whatever else `enter` needs.
    """

    tokens: Tensor
    positions: Tensor | None
    rest: Context = field(default_factory=dict)


class Family(ABC):
    """Adapter for the modules of some classes; one small file each.

    Every method calls the module's own submodules in the module's own order. Throughout, `model` is the live
    timm module, `images` are what it takes, [batch n_channels height width], and `tokens` and `resid` are
    [batch pos d_model]; what is `embedded`, is about to enter block 0, with the `rest` that `embed_parts`
    gave, and what is `pooled` has no `pos` axis any more.

    Attributes:
        name: of the family, for messages.
        classes: the classes that it opens; subclasses of them too, unless another family says otherwise.

    Example:
        See `register_family`.
    """

    name: str
    classes: tuple[type[nn.Module], ...]

    @abstractmethod
    def check(self, model: nn.Module) -> None:
        """Raise `FamilyError` where `model` has a part that this family cannot open."""

    @abstractmethod
    def config(self, model: nn.Module) -> ViTConfig:
        """Read the sizes off the live module."""

    @abstractmethod
    def blocks(self, model: nn.Module) -> Sequence[Opened]:
        """The opened form of each block, in order."""

    @abstractmethod
    def embed(self, model: nn.Module, images: Float[Tensor, "batch n_channels height width"]) -> Entry:
        """What enters block 0, run natively."""

    @abstractmethod
    def has_positions(self, model: nn.Module) -> bool:
        """Whether a position embedding is added to the tokens."""

    @abstractmethod
    def embed_parts(self, model: nn.Module, images: Tensor) -> Embedding:
        """The parts of the embedding, apart; `enter` of their sum gives what `embed` gives, bit for bit."""

    @abstractmethod
    def enter(self, model: nn.Module, embedded: Tensor, rest: Context) -> Entry:
        """What happens between the sum of the embeddings and block 0: dropouts and the pre-norm."""

    @abstractmethod
    def has_norm_pre(self, model: nn.Module) -> bool:
        """Whether a norm stands before block 0."""

    @abstractmethod
    def final_norm(self, model: nn.Module) -> tuple[nn.Module | None, bool]:
        """The norm before the head, and whether it comes after pooling."""

    @abstractmethod
    def pool(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """Reduce [batch pos d_model] to the feature that the head reads, before any norm after pooling."""

    @abstractmethod
    def pool_linear(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """`pool`, where it is linear in the tokens.

        Raises:
            HookError: it is not: attention pooling, a maximum, or no pooling at all.
        """

    @abstractmethod
    def head(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Weights [d_pooled n_classes] and bias [n_classes] of the classifier on the flattened feature.

        Raises:
            HookError: the model has no classifier.
        """

    @abstractmethod
    def classify(self, model: nn.Module, pooled: Tensor) -> Tensor:
        """The classifier on the pooled feature: [batch n_classes]."""

    @abstractmethod
    def readout(self, model: nn.Module, resid: Tensor) -> Tensor:
        """Final norm, pooling and head, run natively on [batch pos d_model]: [batch n_classes]."""
