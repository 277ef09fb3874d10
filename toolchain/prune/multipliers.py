"""Lagrange multipliers: prices on the resources under which the best choice just keeps the limits.

    g(p) = min over choices of damage + sum_k p_k (amount_k / limit_k - 1),   p >= 0

is a lower bound of the least damage under all limits for every price vector p, and the choices found on the
way are where good plans lie. Source: Everett, "Generalized Lagrange multiplier method", Operations Research
1963.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from toolchain.prune.elimination import Order, Scope, minimise
from toolchain.prune.tables import Floats, Problem

Priced = Generator[list[int], None, list[int]]
HALVINGS: Final = 24
DOUBLINGS: Final = 60


@dataclass(kw_only=True)
class Dual:
    """Prices a problem without wide terms; `bound` is the highest g(p) seen."""

    problem: Problem
    bound: float = -np.inf
    _unary: list[Floats] = field(init=False)
    _order: Order = field(init=False)

    def __post_init__(self) -> None:
        problem = self.problem
        sizes = [len(axis.levels) for axis in problem.axes]
        self._unary = [np.zeros((len(problem.limits), size)) for size in sizes]
        joint: list[Scope] = [scope for scope in problem.tables if len(scope) > 1]
        for scope, table in problem.tables.items():
            if len(scope) == 1:
                self._unary[scope[0]] += table
        self._order = Order.of(sizes, joint)

    def cheapest(self) -> list[int]:
        """The choice with the least resources, all limits weighed alike, whatever the damage."""
        return self._minimum(np.ones(len(self.problem.limits)), 0.0)[1]

    def choices(self, unit: float) -> Priced:
        """Choices at better and better prices, `unit` a damage to start from; `bound` rises meanwhile."""
        prices = np.zeros(len(self.problem.limits))
        choice = yield from self._priced(prices)
        for _ in range(2 * len(prices)):
            over = self.problem.amounts(choice) - 1.0
            k = int(over.argmax())
            if over[k] <= 0:
                break
            choice = yield from self._bisect(prices, k, unit)
        return choice

    def _bisect(self, prices: Floats, k: int, unit: float) -> Priced:
        """Raise price k until its limit holds, then close in on the least such price."""
        low, high = float(prices[k]), max(float(prices[k]) * 2, unit)
        choice: list[int] = []
        for _ in range(DOUBLINGS):
            prices[k] = high
            choice = yield from self._priced(prices)
            if self.problem.amounts(choice)[k] <= 1.0:
                break
            low, high = high, high * 4
        for _ in range(HALVINGS):
            prices[k] = (low + high) / 2
            found = yield from self._priced(prices)
            if self.problem.amounts(found)[k] <= 1.0:
                high, choice = prices[k], found
            else:
                low = prices[k]
        prices[k] = high
        return choice

    def _priced(self, prices: Floats) -> Priced:
        value, choice = self._minimum(prices, 1.0)
        self.bound = max(self.bound, value - float(prices.sum()))
        yield choice
        return choice

    def _minimum(self, prices: Floats, weight: float) -> tuple[float, list[int]]:
        problem = self.problem
        unary = [
            weight * d + np.tensordot(prices, u, 1) for d, u in zip(problem.damage, self._unary, strict=True)
        ]
        joint = {s: np.tensordot(prices, t, 1) for s, t in problem.tables.items() if len(s) > 1}
        value, choice = minimise(self._order, unary, joint)
        return value + float(prices @ self.problem.constant), choice
