"""vitlens: what changed inside a Vision Transformer."""
