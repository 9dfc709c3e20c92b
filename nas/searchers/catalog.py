"""The searchers by name, with what each is."""

from __future__ import annotations

SEARCHERS = {
    "guided": "predictor-guided NSGA-II in rounds: measure, refit, search, measure the best (the default)",
    "nsga2": "NSGA-II on real evaluations only",
    "random": "uniform random search",
}
