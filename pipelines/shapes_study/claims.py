"""The paper's claims about its strategy. Each claim is a difference between two arms, which holds here or not."""

from pipelines.shapes_study.config import ClaimConfig
from pipelines.shapes_study.seeds import Figures, accuracy, over_seeds, share

FIRST_FRAME = "first frame only"  # a control: the same arm sees its first frame repeated
MISSED = "**missed**"
HEAD = "| claim | accuracy in % | of the other | difference in points | |\n|---|---|---|---|---|"


def claims_table(claims: list[ClaimConfig], answers: dict[str, dict[str, list[Figures]]]) -> str:
    """Returns a Markdown table with a row for each category of each claim, or an empty text.

    Claims about arms that were not measured are left out.

    Args:
        claims: The claims.
        answers: By protocol and arm, the figures of each seed.
    """
    rows = [row for claim in claims for row in rows_of(claim, answers[claim.protocol])]
    return "\n".join([HEAD, *rows]) if rows else ""


def rows_of(claim: ClaimConfig, arms: dict[str, list[Figures]]) -> list[str]:
    """Returns the table rows of a claim, one for each category; none if an arm was not measured."""
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
    """Returns a seed's line about one category."""
    (line,) = (line for line in figures["lines"] if line["name"] == category)
    return line


def row_of(
    claim: ClaimConfig, category: str, shares: list[float], others: list[float], asked: int, others_asked: int
) -> str:
    """Returns the table row of a claim about one category.

    Args:
        claim: The claim.
        category: The category.
        shares: Accuracies of the arm, one for each seed.
        others: Accuracies of the arm it is compared with.
        asked: Questions per seed.
        others_asked: Questions per seed of the other arm.
    """
    ours, theirs = accuracy(shares, asked), accuracy(others, others_asked)
    differences = [own - other for own, other in zip(shares, others)]  # pairs the seeds that both arms have
    gap = round(100 * (ours.mean - theirs.mean), 6)
    difference = over_seeds(differences).text if len(differences) > 1 else f"{gap:.1f}"
    held = gap >= claim.points and (not claim.apart or ours.low > theirs.high)
    wanted = f"{claim.points:g} points above" if claim.points else "above" if claim.apart else "not below"
    apart = ", intervals apart" if claim.apart else ""
    name = f"{claim.protocol}, {category.replace('_', ' ')}: {claim.arm} {wanted} {claim.above}{apart}"
    return f"| {name} | {ours.text} | {theirs.text} | {difference} | {'held' if held else MISSED} |"
