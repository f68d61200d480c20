"""Sparse autoencoders: store activations, train, save and load, evaluate, match between checkpoints, look."""

from .attribution_agreement import attribution_agreement
from .causal import ablation_hook, steering_hook
from .causal_analyses import FeatureAttribution, FeatureEffect
from .code_similarity import code_similarity
from .codes import SAECode
from .crosscoder import Crosscoder
from .crosscoder_training import train_crosscoder
from .evaluate import Evaluation, evaluate
from .evaluation import dead_features, decoder_coherence, figures, fvu, l0
from .feature_effects import FeatureEffects, feature_effects
from .feature_match import FeatureMatch
from .feature_objective import FeatureObjective
from .gallery import gallery, pair_gallery
from .gallery_data import Gallery
from .matching import match
from .similarity import Similarity, similarity
from .splicing import Splice
from .storage import load, save
from .store import ActivationStore
from .stored_tokens import StoredTokens
from .threshold import set_threshold
from .tokens import InMemory, Tokens
from .training import history, train
from .transfer import transfer
from .yardstick import seed_interval

__all__ = [
    "ActivationStore",
    "Crosscoder",
    "Evaluation",
    "FeatureAttribution",
    "FeatureEffect",
    "FeatureEffects",
    "FeatureMatch",
    "FeatureObjective",
    "Gallery",
    "InMemory",
    "SAECode",
    "Similarity",
    "Splice",
    "StoredTokens",
    "Tokens",
    "ablation_hook",
    "attribution_agreement",
    "code_similarity",
    "dead_features",
    "decoder_coherence",
    "evaluate",
    "feature_effects",
    "figures",
    "fvu",
    "gallery",
    "history",
    "l0",
    "load",
    "match",
    "pair_gallery",
    "save",
    "seed_interval",
    "set_threshold",
    "similarity",
    "steering_hook",
    "train",
    "train_crosscoder",
    "transfer",
]
