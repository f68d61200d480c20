"""Tests of sparse autoencoders; a package, so that they share the helpers of conftest."""
