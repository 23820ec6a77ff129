"""The paper's claims: each is held, refuted or undecided, by the 95 % interval of a paired difference."""

from typing import NamedTuple

from pipelines.shapes_study.power import MOST_SEEDS, seeds_for
from pipelines.shapes_study.seeds import Estimate
from pipelines.shapes_study.strategies.config import ClaimConfig
from pipelines.shapes_study.strategies.results import Results
from pipelines.shapes_study.strategies.series import Pair, compared

HELD, REFUTED, UNDECIDED, UNMEASURED = "held", "**refuted**", "undecided", "not measured"
MORE = 4  # times as many items


class Finding(NamedTuple):
    """What became of a claim.

    Attributes:
        source: Where the claim stands.
        claim: The claim in words.
        seeds: Seeds that both sides have.
        difference: The difference with its interval, as text.
        verdict: One of the four words.
        needed: What it would take to decide an undecided claim; else empty.
    """

    source: str
    claim: str
    seeds: int
    difference: str
    verdict: str
    needed: str


def findings(claims: list[ClaimConfig], results: Results) -> list[Finding]:
    """Returns what became of each claim, on new scenes of the training distribution and over all categories."""
    return [finding(claim, name, results) for claim in claims for name in claim.of]


def finding(claim: ClaimConfig, name: str, results: Results) -> Finding:
    """Returns what became of a claim about one series."""
    pair = compared(results, claim.arm, claim.than, name, other=claim.than_of)
    told = words(claim, name)
    if not pair.comparable:
        return Finding(claim.source, told, len(pair.seeds), "", UNMEASURED, "")
    estimate = pair.difference
    said = verdict(claim, estimate)
    needed = needed_for(claim, pair) if said == UNDECIDED else ""
    return Finding(claim.source, told, len(pair.seeds), estimate.text, said, needed)


def words(claim: ClaimConfig, name: str) -> str:
    """Returns a claim in words."""
    kind = {
        "above": f"at least {claim.points:g} points above" if claim.points else "above",
        "equal": f"within {claim.points:g} points of",
        "not below": f"at most {claim.points:g} points below",
    }[claim.kind]
    if claim.than == claim.arm:
        return f"{claim.arm}: {name} {kind} {claim.than_of}"
    return f"{name}: {claim.arm} {kind} {claim.than}"


def limits(claim: ClaimConfig) -> tuple[float, float]:
    """Returns the bounds between which the difference lies if the claim is true, as shares."""
    points = claim.points / 100
    return {"above": (points, float("inf")), "equal": (-points, points), "not below": (-points, float("inf"))}[
        claim.kind
    ]


def verdict(claim: ClaimConfig, estimate: Estimate) -> str:
    """Returns whether the whole interval lies within the claim's bounds, wholly outside, or neither."""
    low, high = limits(claim)
    if low < estimate.low and estimate.high < high:
        return HELD
    return REFUTED if estimate.high < low or high < estimate.low else UNDECIDED


def needed_for(claim: ClaimConfig, pair: Pair) -> str:
    """Returns how many seeds would decide a claim if the difference and its variances stayed as they are."""
    mean = pair.difference.mean
    away = min(abs(mean - limit) for limit in limits(claim))
    for times in (1, MORE):
        if seeds := seeds_for(pair.variances, times * pair.items, away, max(2, len(pair.arms))):
            seeds = max(seeds, len(pair.seeds) + 1) if times == 1 else seeds
            return f"about {seeds} seeds" + f" and {times} times the items" * (times > 1)
    return f"more than {MOST_SEEDS} seeds and {MORE} times the items"


def findings_table(found: list[Finding]) -> str:
    """Returns the findings as a Markdown table."""
    rows = [
        f"| {one.source} | {one.claim} | {one.seeds} | {one.difference} | {one.verdict} | {one.needed} |"
        for one in found
    ]
    head = "| source | claim | seeds | difference | verdict | to decide it |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows])
