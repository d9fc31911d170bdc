"""What judging one run found: a verdict for every tensor, and one for the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["exact", "roundoff", "explained", "not comparable", "fault"]

# From best to worst; the exit status is that of the worst verdict. A fault outranks what could not be compared.
EXIT_STATUS = {"exact": 0, "roundoff": 0, "explained": 0, "coverage hole": 3, "not comparable": 2, "fault": 1}
SEVERITY = list(EXIT_STATUS)


@dataclass
class Finding:
    """One tensor of one framework, judged."""

    name: str
    level: str
    operation: str
    verdict: Verdict
    error: float = 0.0  # E, in units of roundoff; for exact tensors the number of unequal elements
    limit: float = 0.0
    floor: float = 0.0
    reason: str = ""
    worst_row: tuple[int, ...] = ()
    worst_row_error: float = 0.0
    coherence: float = 0.0
    size: int = 0  # elements
    introduced: float = 0.0  # E of this operation alone, on the inputs that the framework itself had
    introduced_limit: float = 0.0  # 0: not computed
    amplification: float = 0.0  # E of a block's output over E of its input

    @property
    def measure(self) -> tuple[float, float]:
        """Error and limit, of the tensor or of its operation alone: of the two that which is nearer to its limit."""
        pairs = [(self.error, self.limit), (self.introduced, self.introduced_limit)]
        return max(pairs, key=lambda pair: pair[0] / pair[1] if pair[1] else 0.0)

    @property
    def ratio(self) -> float:
        """Error over limit: above 1 is a fault."""
        error, limit = self.measure
        return error / limit if limit else (float("inf") if self.verdict == "fault" else 0.0)

    @property
    def introduces(self) -> bool:
        """Whether the operation itself is wrong, on the inputs that it had."""
        return self.verdict == "fault" and self.introduced > self.introduced_limit

    @property
    def cause(self) -> str:
        """What introduces the error, in words; nothing where it is not this operation."""
        if not self.introduces:
            return ""
        stack, _, rest = self.name.removeprefix("dy/").removeprefix("grad/").partition(".")
        number, _, inner = rest.partition(".")
        where = ""
        if stack in ("blocks", "decoder_blocks"):
            block = f"{'decoder ' if stack.startswith('decoder') else ''}block {number}"
            # The gradient for a block's output comes from what stands behind the block.
            where = f" behind {block}" if self.name.startswith("dy/") and not inner else f" in {block}"
        operation = f"gradient of a {self.operation}" if self.name.startswith("grad/") else self.operation
        return f"{operation}{where} introduces {self.introduced:.3g} u of its own, limit {self.introduced_limit:.3g}"


@dataclass
class Judgement:
    """One framework's run, judged: its findings in the order in which a fault would show."""

    label: str
    findings: list[Finding] = field(default_factory=list)
    problem: str = ""  # why there is nothing, or not everything, to judge
    explained_by: str = ""  # the inaccurate kernels that account for what is over its limit
    coverage: list[str] = field(default_factory=list)  # tensors missing from the trace, or unknown to the spec
    environment: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)  # what a reader should know beside the verdict

    @property
    def verdict(self) -> str:
        """exact, roundoff, explained, fault, coverage hole or not comparable."""
        verdicts = {finding.verdict for finding in self.findings}
        if "fault" in verdicts:
            return "fault"
        if self.problem or not self.findings or "not comparable" in verdicts:
            return "not comparable"
        if self.coverage:
            return "coverage hole"
        if "explained" in verdicts:
            return "explained"
        return "roundoff" if "roundoff" in verdicts else "exact"

    @property
    def first_wrong(self) -> Finding | None:
        """What is wrong first, in the order of computation (for gradients, of the backward pass).

        Weights and inputs come before all; then a tensor whose own operation is wrong; then any that is not right.
        Where a tensor before it has another shape or holds NaN, that one is: no operation on it could be judged.
        """
        wrong = [finding for finding in self.findings if finding.verdict == "fault"]
        before_all = [finding for finding in wrong if finding.level in ("weights", "inputs")]
        to_blame = [finding for finding in wrong if finding.introduces]
        computed = [finding for finding in wrong if finding.level in ("forward", "loss")]
        first = next(iter(before_all or to_blame or computed or wrong), None)
        for finding in self.findings if first else ():
            # Not where the oracle has no number itself, for which nobody is to blame.
            unlike = finding.verdict == "not comparable" and finding.error == float("inf")
            if finding is first or (unlike and not finding.reason.startswith("the oracle's is not finite")):
                return finding
        return None

    def worst(self, level: str) -> Finding | None:
        """The finding of a level that comes nearest to its limit, or is furthest over it."""
        findings = [finding for finding in self.findings if finding.level == level]
        return max(findings, key=lambda finding: (finding.verdict == "fault", finding.ratio), default=None)


def worst_verdict(verdicts: Iterable[str]) -> str:
    """The worst of these."""
    return max(verdicts, key=SEVERITY.index)
