"""A report as JUnit XML, as continuous integration shows it: a case for each framework and level, and each wrong tensor."""

from __future__ import annotations

import re
from xml.etree import ElementTree as xml

from ..limits.findings import Judgement
from ..options import LEVELS
from .format import amount
from .report import Report

TENSORS = 50  # wrong tensors of a framework that get a case of their own


def as_junit(report: Report) -> str:
    """The XML text. A fault or a coverage hole is a failure, a comparison that was not possible an error."""
    suites = xml.Element("testsuites", name=_text(f"parity of {report.about.model}"))
    for judgement in report.judgements:
        suite = xml.SubElement(suites, "testsuite", name=_text(judgement.label))
        properties = xml.SubElement(suite, "properties")
        for name, value in judgement.environment.items():
            xml.SubElement(properties, "property", name=_text(name), value=_text(str(value)))
        for level in LEVELS:
            _level(suite, report, judgement, level)
        _tensors(suite, judgement)
        _whole(suite, report, judgement)
        _count(suite)
    _count(suites)
    xml.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(suites, encoding="unicode") + "\n"


def _level(suite: xml.Element, report: Report, judgement: Judgement, level: str) -> None:
    case = _case(suite, judgement, level)
    findings = [finding for finding in judgement.findings if finding.level == level]
    wrong = [finding for finding in findings if finding.verdict == "fault"]
    unjudged = [finding for finding in findings if finding.verdict == "not comparable"]
    if level not in report.levels:
        xml.SubElement(case, "skipped", message="not asked for (--level)")
    elif wrong:
        first = f"{len(wrong)} of {len(findings)} tensors are wrong, the first is {wrong[0].name}: {amount(wrong[0])}"
        _failure(case, "fault", first, [f"{finding.name}: {finding.reason}" for finding in wrong[:TENSORS]])
    elif judgement.problem:
        _failure(case, "not comparable", judgement.problem)
    elif unjudged:
        _failure(case, "not comparable", f"{unjudged[0].name}: {unjudged[0].reason}")
    elif not findings:
        _failure(case, "not comparable", "nothing was compared")
    else:
        worst = max(findings, key=lambda finding: finding.ratio)
        summary = f"{len(findings)} tensors; nearest to its limit: {worst.name}, {worst.verdict}"
        xml.SubElement(case, "system-out").text = _text(
            f"{summary}, E {worst.error:.3g} u of {worst.limit:.3g}. {worst.reason}"
        )


def _tensors(suite: xml.Element, judgement: Judgement) -> None:
    for finding in [finding for finding in judgement.findings if finding.verdict == "fault"][:TENSORS]:
        _failure(
            _case(suite, judgement, f"{finding.level}: {finding.name}"), "fault", amount(finding), [finding.reason]
        )


def _whole(suite: xml.Element, report: Report, judgement: Judgement) -> None:
    """The faults of the run as a whole and of no level of it: its coverage, the explicit tolerance."""
    case = _case(suite, judgement, "run")
    verdict, judged = report.verdict(judgement), judgement.verdict
    if verdict == judged == "coverage hole" or (verdict != judged and verdict == "fault"):
        _failure(case, verdict, report.reason(judgement), judgement.coverage)
    elif verdict == "not comparable":
        _failure(case, verdict, report.reason(judgement))


def _case(suite: xml.Element, judgement: Judgement, name: str) -> xml.Element:
    return xml.SubElement(
        suite, "testcase", classname=_text(f"polymae.compare.{judgement.label}"), name=_text(name), time="0"
    )


def _failure(case: xml.Element, verdict: str, message: str, lines: list[str] | None = None) -> None:
    kind = "error" if verdict == "not comparable" else "failure"
    xml.SubElement(case, kind, type=verdict, message=_text(message)).text = _text("\n".join(lines or [message]))


def _count(element: xml.Element) -> None:
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(name, str(sum(case.find(kind) is not None for case in cases)))


def _text(words: str) -> str:
    """Without the control characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "?", words)
