"""What the paper says of its strategy, each claim as a difference between two arms, and whether it holds here."""

from pipelines.study.config import ClaimConfig
from pipelines.study.seeds import Figures, accuracy, over_seeds, share

FIRST_FRAME = "first frame only"  # the arm's own answers where it sees the first frame standing still
MISSED = "**missed**"
HEAD = "| claim | accuracy in % | of the other | difference in points | |\n|---|---|---|---|---|"


def claims_table(claims: list[ClaimConfig], answers: dict[str, dict[str, list[Figures]]]) -> str:
    """A line for each category of the claims whose arms were measured; nothing without one.

    Args:
        answers: protocol -> arm -> figures, one a seed.
    """
    rows = [row for claim in claims for row in rows_of(claim, answers[claim.protocol])]
    return "\n".join([HEAD, *rows]) if rows else ""


def rows_of(claim: ClaimConfig, arms: dict[str, list[Figures]]) -> list[str]:
    frozen = claim.above == FIRST_FRAME
    other = claim.arm if frozen else claim.above
    if not (claim.arm in arms and other in arms):
        return []
    rows = []
    for category in claim.categories:
        ours, theirs = ([line_of(figures, category) for figures in arms[arm]] for arm in (claim.arm, other))
        shares = [share(line) for line in ours]
        others = [line["controls"]["frozen"] if frozen else share(line) for line in theirs]
        rows.append(row_of(claim, category, shares, others, ours[0]["asked"], theirs[0]["asked"]))
    return rows


def line_of(figures: Figures, category: str) -> Figures:
    (line,) = (line for line in figures["lines"] if line["name"] == category)
    return line


def row_of(
    claim: ClaimConfig, category: str, shares: list[float], others: list[float], asked: int, others_asked: int
) -> str:
    """One claim about one category.

    Args:
        shares, others: accuracies, one a seed.
        asked, others_asked: questions a seed.
    """
    ours, theirs = accuracy(shares, asked), accuracy(others, others_asked)
    differences = [own - other for own, other in zip(shares, others)]  # of the seeds that both have
    gap = round(100 * (ours.mean - theirs.mean), 6)
    difference = over_seeds(differences).text if len(differences) > 1 else f"{gap:.1f}"
    held = gap >= claim.points and (not claim.apart or ours.low > theirs.high)
    wanted = f"{claim.points:g} points above" if claim.points else "above" if claim.apart else "not below"
    apart = ", intervals apart" if claim.apart else ""
    name = f"{claim.protocol}, {category.replace('_', ' ')}: {claim.arm} {wanted} {claim.above}{apart}"
    return f"| {name} | {ours.text} | {theirs.text} | {difference} | {'held' if held else MISSED} |"
