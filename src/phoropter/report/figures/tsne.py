"""t-SNE coordinates of features, computed once: kept in the cache by a digest of the features and the libraries' versions.

    CACHE/embeddings/DIGEST.json

So a report that is written again neither computes them nor imports scikit-learn, which takes as long as all other imports.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DiskError
from phoropter.core.files import digest, digest_array
from phoropter.core.storage.sealed_json import CacheShape, read_cache_json, write_cache_json

SEED = 0
MAX_COMPONENTS = 50  # principal components that t-SNE is given

Floats = NDArray[np.float64]


class _Coordinates(CacheShape):
    x: list[float]
    y: list[float]


def load_or_compute_tsne(features: NDArray[np.float16], cache: Path) -> Floats:
    """(n, D) features → (n, 2) coordinates: those of `compute_tsne`, from `cache` where they are kept."""
    versions = [metadata.version(name) for name in ("numpy", "scipy", "scikit-learn")]
    path = cache / "embeddings" / f"{digest([digest_array(features), SEED, versions])}.json"
    kept = read_cache_json(path, _Coordinates)
    if kept is not None and len(kept.x) == len(kept.y) == len(features):
        return np.array([kept.x, kept.y], dtype=np.float64).T
    xy = compute_tsne(features)
    with suppress(DiskError):  # a report may be written of a folder on a read-only disk
        write_cache_json(path, _Coordinates(x=xy[:, 0].tolist(), y=xy[:, 1].tolist()))
    return xy


def compute_tsne(features: NDArray[np.float16]) -> Floats:
    """(n, D) features → (n, 2). On one thread, so that equal features give equal coordinates; the caller bounds n."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    x = features.astype(np.float32)
    with threadpool_limits(1):
        if x.shape[1] > MAX_COMPONENTS and len(x) > MAX_COMPONENTS:
            x = PCA(MAX_COMPONENTS, random_state=SEED, svd_solver="full").fit_transform(x)
        perplexity = min(30.0, max(2.0, (len(x) - 1) / 3))
        embedding = TSNE(2, perplexity=perplexity, init="pca", random_state=SEED, max_iter=500).fit_transform(x)
    return np.asarray(embedding, dtype=np.float64)
