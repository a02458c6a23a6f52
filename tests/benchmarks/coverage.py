"""How often the lab's 95 % intervals hold the truth: `python -m tests.benchmarks.coverage`.

Units are drawn from a known distribution, so the truth is known; a table of the share of
repetitions whose interval holds it, and of the mean width in units of Student's t.
Vectorised: the repetitions are the cells of `over_units`.
"""

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats as scipy_stats

from labkit.stats import numpy_generator, ratio
from labkit.stats.intervals import over_units, shares_over_units

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
NUMBERS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0),
    "lognormal, sigma 1": (lambda rng, size: rng.lognormal(size=size), math.exp(0.5)),
    "minus lognormal": (lambda rng, size: -rng.lognormal(size=size), -math.exp(0.5)),
    "exponential": (lambda rng, size: rng.exponential(size=size), 1.0),
    "uniform": (lambda rng, size: rng.random(size=size), 0.5),
}
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 0.95)
N_UNITS = (3, 5, 10, 20, 50)
N_CLUSTERS = (2, 3, 5, 10, 20)
SIZES = 8  # units in a cluster: 1 to 8, alike


def held(low: np.ndarray, high: np.ndarray, truth: float) -> np.ndarray:
    """Whether an interval holds the truth; none at all (NaN) does not count as certain."""
    return np.isnan(low) | ((low <= truth + 1e-12) & (high >= truth - 1e-12))


def students_t(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's t, for comparison."""
    n = len(values)
    half = scipy_stats.t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / math.sqrt(n)
    return values.mean(axis=0) - half, values.mean(axis=0) + half


def means(n: int, repetitions: int, seed: int = 0) -> Iterator[tuple[str, float, float, float]]:
    """Distribution, coverage, coverage of Student's t, and mean width over that of Student's t."""
    for name, (draw, truth) in NUMBERS.items():
        values = draw(numpy_generator(seed, "coverage", name, n), (n, repetitions))
        _, low, high, _ = over_units(values)
        t_low, t_high = students_t(values)
        yield (
            name,
            float(held(low, high, truth).mean()),
            float(held(t_low, t_high, truth).mean()),
            float((high - low).mean() / (t_high - t_low).mean()),
        )


def shares(n: int, repetitions: int, seed: int = 0) -> Iterator[tuple[str, float]]:
    """Bernoulli units: probability, coverage; last the least over p = .05, .06 ... .95, exactly."""
    for p in SHARES:
        rng = numpy_generator(seed, "coverage", p, n)
        _, low, high, _ = shares_over_units((rng.random((n, repetitions)) < p).astype(float))
        yield f"Bernoulli, p = {p}", float(held(low, high, p).mean())
    cells = np.arange(n)[:, None] < np.arange(n + 1)  # every number of successes
    _, low, high, _ = shares_over_units(cells.astype(float))
    exact = [
        float((scipy_stats.binom.pmf(np.arange(n + 1), n, p) * held(low, high, p)).sum())
        for p in np.arange(0.05, 0.951, 0.01)
    ]
    yield "Bernoulli, worst p in .05 to .95", min(exact)
    yield "Bernoulli, mean over p", float(np.mean(exact))


def clustered(n: int, repetitions: int, seed: int = 0) -> Iterator[tuple[str, float]]:
    """Ratios over clusters of 1 to 8 units."""
    for p in (0.5, 0.8, 0.95):
        for alike in (0.0, 0.3, 1.0):
            rng = numpy_generator(seed, "clusters", p, alike, n)
            covered = []
            for _ in range(repetitions):
                size = rng.integers(1, SIZES + 1, size=n)
                of_cluster = _probabilities(rng, p, alike, n)
                right, units = rng.binomial(size, of_cluster), float(size.sum())
                found = ratio(right, size, share=True, units=units)
                covered.append(held(np.array(found.low), np.array(found.high), p))
            yield f"0/1 in clusters, p = {p}, correlation {alike}", float(np.mean(covered))
    for name, draw, truth in (
        ("normal", lambda rng: 1 + rng.normal(size=n) / 2, 1.0),
        ("1 + lognormal", lambda rng: 1 + rng.lognormal(size=n), 1 + math.exp(0.5)),
    ):
        rng = numpy_generator(seed, "clusters", name, n)
        covered = []
        for _ in range(repetitions):
            size = rng.integers(1, SIZES + 1, size=n)
            found = ratio(draw(rng) * size, size)
            covered.append(held(np.array(found.low), np.array(found.high), truth))
        yield f"cluster means {name}", float(np.mean(covered))
    for certain in (3, 5):  # how many standard errors (at 10 clusters) the whole is above 0
        rng = numpy_generator(seed, "whole", certain, n)
        covered = []
        for _ in range(repetitions):
            whole = 1 + math.sqrt(10) / certain * rng.normal(size=n)
            if whole.sum() > 0:
                found = ratio(0.5 * whole + 0.3 * rng.normal(size=n), whole)
                covered.append(held(np.array(found.low), np.array(found.high), 0.5))
        yield f"noisy whole, {certain} errors above 0 at n = 10", float(np.mean(covered))


def _probabilities(rng: np.random.Generator, p: float, alike: float, n: int) -> np.ndarray:
    """By cluster, the probability of success, with a given correlation within clusters."""
    if alike == 0:
        return np.full(n, p)
    if alike == 1:
        return (rng.random(n) < p).astype(float)
    return rng.beta(p * (1 - alike) / alike, (1 - p) * (1 - alike) / alike, size=n)


def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rows: dict[str, list[str]] = {}
    for n in N_UNITS:
        for name, covers, of_t, width in means(n, asked.repetitions, asked.seed):
            row = f"{covers:.3f} (t {of_t:.3f}; width {width:.2f})"
            rows.setdefault(name, []).append(row)
        for name, covers in shares(n, asked.repetitions, asked.seed):
            rows.setdefault(name, []).append(f"{covers:.3f}")
    _print("units", N_UNITS, rows)
    rows = {}
    for n in N_CLUSTERS:
        for name, covers in clustered(n, max(2000, asked.repetitions // 10), asked.seed):
            rows.setdefault(name, []).append(f"{covers:.3f}")
    _print("clusters", N_CLUSTERS, rows)


def _print(units: str, counts: tuple[int, ...], rows: dict[str, list[str]]) -> None:
    print(f"| coverage of 95 % | {' | '.join(f'{n} {units}' for n in counts)} |")
    print(f"|---|{'---|' * len(counts)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")
    print()


if __name__ == "__main__":
    main()
