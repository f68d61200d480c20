"""What a family of Vision Transformers has to say so that vitlens can open its modules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from ..components import Opened
from ..config import ViTConfig


class Family(ABC):
    """Adapter for the modules of some classes; one small file each.

    Every method calls the module's own submodules in the module's own order.
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
    def embed(self, model: nn.Module, images: Float[Tensor, "batch n_channels height width"]) -> Tensor:
        """The residual stream that enters block 0, run natively: [batch pos d_model]."""

    @abstractmethod
    def has_positions(self, model: nn.Module) -> bool:
        """Whether a position embedding is added to the tokens."""

    @abstractmethod
    def embed_parts(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The embedded tokens and their position embedding, both [batch pos d_model] in storage of their own.

        `enter` of their sum, normed where there is a pre-norm, equals `embed`, bit for bit.
        """

    @abstractmethod
    def enter(self, model: nn.Module, embedded: Tensor) -> Tensor:
        """What happens between the sum of the embeddings and block 0, or its pre-norm: dropouts."""

    @abstractmethod
    def norm_pre(self, model: nn.Module) -> nn.Module | None:
        """The norm before block 0 of a pre-norm model."""

    @abstractmethod
    def final_norm(self, model: nn.Module) -> tuple[nn.Module | None, bool]:
        """The norm before the head, and whether it comes after pooling."""

    @abstractmethod
    def pool(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """Reduce [batch pos d_model] to the feature that the head reads, before any norm after pooling."""

    @abstractmethod
    def classify(self, model: nn.Module, pooled: Tensor) -> Tensor:
        """The classifier on the pooled feature: [batch n_classes]."""

    @abstractmethod
    def readout(self, model: nn.Module, resid: Tensor) -> Tensor:
        """Final norm, pooling and head, run natively on [batch pos d_model]: [batch n_classes]."""
