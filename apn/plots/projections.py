"""From embeddings (N, D) to points in a plane (N, 2): t-SNE by openTSNE, UMAP, or principal components.

t-SNE and UMAP keep neighbours together; distances between groups, sizes of groups and axes mean nothing. PCA is linear:
what is apart there is apart in the embedding.
"""

from typing import Literal, get_args

import numpy as np

Method = Literal["opentsne", "umap", "pca"]
METHODS: tuple[Method, ...] = get_args(Method)
TITLES = {"opentsne": "t-SNE", "umap": "UMAP", "pca": "PCA"}
FEWEST = 5
_PERPLEXITY, _NEIGHBOURS = 30, 15  # the libraries' own defaults, less where there are few images


def project(values: np.ndarray, method: Method, seed: int = 0) -> np.ndarray:
    """(N, D) -> (N, 2) float64, the same for the same seed and versions.

    Raises ValueError for fewer than FEWEST images, for embeddings that are not finite or all the same, and where Numba
    has no folder to write to.
    """
    if len(values) < FEWEST:
        raise ValueError(f"expected at least {FEWEST} images to lay out, found {len(values)}")
    if wrong := np.count_nonzero(~np.isfinite(values).all(axis=1)):
        raise ValueError(f"{wrong} of {len(values)} embeddings are not finite: the network that made them has diverged")
    if (values == values[0]).all():
        raise ValueError(f"expected embeddings that differ, found the same one for all {len(values)} images")
    try:
        return {"opentsne": _opentsne, "umap": _umap, "pca": _pca}[method](np.asarray(values, np.float64), seed)
    except RuntimeError as error:  # of Numba, when it is imported where neither packages nor the home can be written
        if "cannot cache function" not in str(error):
            raise
        raise ValueError(
            f"{TITLES[method]} keeps compiled code, and found no folder to write it to: set NUMBA_CACHE_DIR to one, "
            "or take the method pca"
        ) from error


def _opentsne(values: np.ndarray, seed: int) -> np.ndarray:
    from openTSNE import TSNE

    perplexity = min(_PERPLEXITY, (len(values) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, initialization="pca", random_state=seed, n_jobs=1).fit(values))


def _umap(values: np.ndarray, seed: int) -> np.ndarray:
    from umap import UMAP

    neighbours = min(_NEIGHBOURS, len(values) - 1)
    start = "spectral" if len(values) > 2 * _NEIGHBOURS else "random"  # the spectral one needs more images than axes
    return UMAP(n_neighbors=neighbours, init=start, random_state=seed, n_jobs=1).fit_transform(values).astype(float)


def _pca(values: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(2, random_state=seed).fit_transform(values)
