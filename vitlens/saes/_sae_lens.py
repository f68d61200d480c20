"""The names of sae-lens that this folder uses, imported without a warning.

sae-lens imports a module that transformer-lens has deprecated: nothing that a user of either can act on.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"sae_lens\b")
    from sae_lens import (
        SAE,
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        JumpReLUSAE,
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
        LoggingConfig,
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        SAETrainer,
        StandardTrainingSAE,
        StandardTrainingSAEConfig,
        TopKSAE,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
        TrainingSAE,
    )
    from sae_lens.config import SAETrainerConfig
    from sae_lens.constants import SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME
    from sae_lens.saes.sae import TrainingSAEConfig, TrainStepInput, TrainStepOutput

__all__ = [
    "SAE",
    "SAE_CFG_FILENAME",
    "SAE_WEIGHTS_FILENAME",
    "BatchTopKTrainingSAE",
    "BatchTopKTrainingSAEConfig",
    "JumpReLUSAE",
    "JumpReLUTrainingSAE",
    "JumpReLUTrainingSAEConfig",
    "LoggingConfig",
    "MatryoshkaBatchTopKTrainingSAE",
    "MatryoshkaBatchTopKTrainingSAEConfig",
    "SAETrainer",
    "SAETrainerConfig",
    "StandardTrainingSAE",
    "StandardTrainingSAEConfig",
    "TopKSAE",
    "TopKTrainingSAE",
    "TopKTrainingSAEConfig",
    "TrainStepInput",
    "TrainStepOutput",
    "TrainingSAE",
    "TrainingSAEConfig",
]
