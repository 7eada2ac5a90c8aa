"""Features of pictures against plain loops over pixels."""

from __future__ import annotations

import numpy as np

from phoropter.training.tables.picture_features import (
    count_binary_patterns,
    describe_cooccurrence,
    measure_colour_texture,
    measure_mean_image,
)

RNG = np.random.default_rng(0)


def test_the_mean_image_is_the_mean_of_cells() -> None:
    pictures = RNG.integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    plain = [
        pictures[n, colour, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean() / 255
        for n in range(3)
        for colour in range(3)
        for row in range(8)
        for column in range(8)
    ]
    np.testing.assert_allclose(measure_mean_image(pictures).ravel(), plain, rtol=1e-5)
    assert measure_mean_image(pictures[:, :, :5, :5]).shape == (3, 192)  # fewer pixels than cells


def test_binary_patterns_are_those_of_a_loop_and_do_not_turn_with_the_picture() -> None:
    grey = RNG.integers(0, 256, (12, 12)).astype(float)
    ring = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    counts = np.zeros(10)
    for y in range(1, 11):
        for x in range(1, 11):
            bits = [int(grey[y + dy, x + dx] >= grey[y, x]) for dy, dx in ring]
            changes = sum(bits[i] != bits[i - 1] for i in range(8))
            counts[sum(bits) if changes <= 2 else 9] += 1
    np.testing.assert_allclose(count_binary_patterns(grey), counts / 100)
    np.testing.assert_allclose(count_binary_patterns(np.rot90(grey)), counts / 100)


def test_cooccurrence_is_that_of_a_loop() -> None:
    grey = RNG.integers(0, 256, (9, 11)).astype(float)
    levels = (grey // 16).astype(int)
    matrix = np.zeros((16, 16))
    for y in range(9):
        for x in range(11):
            for dy, dx in ((0, 1), (1, 1), (1, 0), (1, -1)):
                if 0 <= y + dy < 9 and 0 <= x + dx < 11:
                    matrix[levels[y, x], levels[y + dy, x + dx]] += 1
                    matrix[levels[y + dy, x + dx], levels[y, x]] += 1
    matrix /= matrix.sum()
    i, j = np.indices((16, 16))
    pairs = np.repeat(np.column_stack([i.ravel(), j.ravel()]), np.round(matrix.ravel() * 1e4).astype(int), axis=0)
    contrast, dissimilarity, homogeneity, energy, correlation = describe_cooccurrence(grey)
    assert np.isclose(contrast, sum(matrix[a, b] * (a - b) ** 2 for a in range(16) for b in range(16)))
    assert np.isclose(dissimilarity, (matrix * abs(i - j)).sum()) and np.isclose(energy**2, (matrix**2).sum())
    assert np.isclose(homogeneity, sum(matrix[a, b] / (1 + (a - b) ** 2) for a in range(16) for b in range(16)))
    assert np.isclose(correlation, np.corrcoef(pairs.T)[0, 1], atol=1e-3)
    assert describe_cooccurrence(np.full((5, 5), 7.0))[-1] == 1.0


def test_colour_and_texture_have_a_histogram_for_each_colour() -> None:
    pictures = RNG.integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    found = measure_colour_texture(pictures)
    assert found.shape == (2, 69)
    np.testing.assert_allclose(found[0, 16:32], np.histogram(pictures[0, 1], bins=16, range=(0, 256))[0] / 256, rtol=1e-6)
    np.testing.assert_allclose(found[0, 48:54], [*(pictures[0].mean((1, 2)) / 255), *(pictures[0].std((1, 2)) / 255)], rtol=1e-5)
