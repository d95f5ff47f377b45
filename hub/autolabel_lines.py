"""What `hub autolabel` prints, in lines of at most 80 characters, and as JSON."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hub.autolabel import DIFFERENT, Applied
from hub.certificates import GROUND_TRUTH, GUARANTEE, Details, details_of
from hub.certify import fewest, interval
from hub.lines import utc, wrapped
from hub.store_labels import Certificate

if TYPE_CHECKING:
    from hub.autolabel_report import Report, Standing

_SHOWN_LEVELS: Final = 12


def certificate_lines(certificate: Certificate) -> list[str]:
    """Return what `hub autolabel certify` prints."""
    details = details_of(certificate)
    asked = f", at most {certificate.epsilon:.1%} wrong with confidence {1 - certificate.delta:.1%}"
    lines = wrapped(
        f"model {certificate.model}, labels {', '.join(details.labels)}{asked if certificate.rule == GUARANTEE else ''}"
    )
    lines += wrapped(
        f"{certificate.images} random images answered by people; {details.looked_at} of {details.population} unlabelled"
        f" ones looked at"
    )
    if details.attempt > 1 and certificate.rule == GUARANTEE:
        lines += wrapped(f"attempt {details.attempt} of this model: {details.delta:.2%} of delta is left for it")
    if details.alike < DIFFERENT:
        lines += wrapped(
            f"caution: the unlabelled images are not like the random ones (p = {details.alike:.1g}): the pool has"
            " changed since they were drawn; draw new ones"
        )
    for note in details.notes:
        lines += wrapped(note)
    if details.levels:
        lines += ["", *_levels(details)]
    return [*lines, "", *_outcome(certificate, details)]


def _levels(details: Details) -> Iterator[str]:
    yield f"{'share':>6} {'confidence':>10} {'accepted':>8} {'wrong':>6} {'p':>8}  (passes: p <= {details.delta:.3g})"
    tested = [level for level in details.levels if level.passed is not None]
    step = -(-len(tested) // _SHOWN_LEVELS)
    last = max((place for place, level in enumerate(tested) if level.passed), default=-1)
    for place, level in enumerate(tested):
        if place % step == 0 or place >= last:
            word = "passes" if level.passed else "fails: the last that is tested"
            yield (
                f"{level.share:>6.1%} {level.threshold:>10.4f} {level.accepted:>8} {level.wrong:>6}"
                f" {level.p_value:>8.2g}  {word}"
            )


def _outcome(certificate: Certificate, details: Details) -> list[str]:
    if certificate.threshold is None:
        first, *rest = _missing(certificate, details)
        return [line for text in (f"refused: {first}", *rest) for line in wrapped(text)]
    accepted = (
        f"{certificate.share:.1%} of the unlabelled images reach confidence {certificate.threshold:.4f}; of the"
        f" {certificate.accepted} random ones that do, {certificate.wrong} are wrong"
    )
    if certificate.rule == GROUND_TRUTH:
        low, high = interval(certificate.wrong, certificate.accepted)
        promise = (
            f"this rule promises nothing: {certificate.wrong} of {certificate.accepted} accepted images are unusable"
            f" ({low:.0%} to {high:.0%}), with a box missing, extra, of the wrong label or with an IoU under .6"
        )
    else:
        promise = f"certified: at most {certificate.epsilon:.1%} of what reaches it is wrong"
    return [*wrapped(accepted), *wrapped(promise), "next: hub autolabel apply"]


def _missing(certificate: Certificate, details: Details) -> list[str]:
    """Return why a certificate was refused, and what to do: a sentence each."""
    draw = "next: hub batch new --random, which draws them"
    if details.needs is not None:
        more = f"needs {details.needs} more random images that people have labelled"
        seen = f"{certificate.wrong} of the {certificate.accepted} most confident are wrong"
        if details.needs >= details.population:
            draw = f"only {details.population} are here: let people label these, or wait for more"
        return [more, *[seen] * (certificate.rule == GUARANTEE), draw]
    if certificate.rule == GROUND_TRUTH:
        return ["no threshold has a mean IoU of .6", "the model needs training"]
    return [
        f"{certificate.wrong} of the {certificate.accepted} most confident images are wrong",
        f"more images do not help at {certificate.epsilon:.1%}: train the model, or allow more with --epsilon",
    ]


def refused_lines(why: str) -> list[str]:
    """Return a refusal as it is printed, `why` as hub.validation.RefusedError says it: what to do comes last."""
    first, *rest = why.splitlines()
    lines = wrapped(f"hub: {first}")
    for text in rest:
        lines += textwrap.wrap(text, 80, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    return lines


def refused_word(certificate: Certificate) -> str:
    """Return the refusal on one line."""
    return "; ".join(_missing(certificate, details_of(certificate)))


def applied_lines(applied: Applied) -> list[str]:
    """Return what `hub autolabel apply` prints."""
    lines = wrapped(
        f"{applied.labelled} of {applied.looked_at} images labelled by {applied.certificate.model},"
        f" {applied.boxes} boxes"
    )
    if applied.unreadable:
        lines += wrapped(f"{applied.unreadable} images cannot be opened and stay as they are")
    if applied.batch_id is None:
        return lines
    return [
        *lines,
        *wrapped(f"batch {applied.batch_id}: {applied.checks} of them, drawn at random, for a person to label"),
        f"next: hub batch export {applied.batch_id} --format cvat --out checks-{applied.batch_id}",
    ]


def report_lines(report: "Report", written: Sequence[Path]) -> list[str]:
    """Return what `hub autolabel report` prints."""
    if not report.standings:
        return ["no certificate yet: `hub autolabel certify`", *(f"drawn: {path}" for path in written)]
    lines = [f"{'id':>3} {'when (UTC)':16} {'rule':12} {'images':>6} {'share':>6} {'wrong':>9} {'labelled':>8} state"]
    for one in report.standings:
        certificate = one.certificate
        share = "-" if certificate.threshold is None else f"{certificate.share:.0%}"
        wrong = f"{certificate.wrong}/{certificate.accepted}"
        lines.append(
            f"{certificate.id:>3} {utc(certificate.at_ms):16} {certificate.rule:12} {certificate.images:>6}"
            f" {share:>6} {wrong:>9} {one.checks.labelled:>8} {one.state}"
        )
        lines += ["    " + line for line in wrapped("; ".join(_of_standing(one)), width=76)]
    lines += ["", *_cost(report)]
    return [*lines, *(f"drawn: {path}" for path in written)]


def _of_standing(one: "Standing") -> Iterator[str]:
    certificate, checks = one.certificate, one.checks
    yield certificate.model
    if certificate.rule == GUARANTEE:
        yield f"at most {certificate.epsilon:.1%} wrong, confidence {1 - certificate.delta:.1%}"
    elif certificate.accepted:
        yield f"{certificate.wrong} of {certificate.accepted} accepted images are unusable; promises nothing"
    if checks.labelled:
        low, high = checks.interval
        found = (
            f"{checks.wrong} of {checks.answered} wrong ({low:.0%} to {high:.0%})" if checks.answered else "none yet"
        )
        yield f"checked by people: {checks.answered} of {checks.drawn}, {found}"
    if one.state == "void":
        yield "the checks contradict it: nothing more is labelled under it; certify again on new random images"
    if one.state == "refused":
        yield refused_word(certificate)


def _cost(report: "Report") -> list[str]:
    people = sum(one.images_person for one in report.rounds)
    machine = sum(one.images_machine for one in report.rounds)
    spent = sum(one.cost_person + one.cost_machine for one in report.rounds)
    instead = sum(one.cost_all_person for one in report.rounds)
    unit = f" {report.currency}" if report.currency else ""
    lines = [f"labelled: {people} images by people, {machine} by the machine"]
    if spent or instead:
        lines += wrapped(f"cost: {spent:.2f}{unit}; by people alone {instead:.2f}{unit}")
    return lines


def certificate_as_json(certificate: Certificate) -> str:
    """Return a certificate as one JSON object, its details among the rest."""
    return msgspec.json.encode(_plain(certificate)).decode()


def applied_as_json(applied: Applied) -> str:
    """Return what was labelled as one JSON object."""
    plain = {name: getattr(applied, name) for name in Applied.__slots__ if name != "certificate"}
    return msgspec.json.encode({"certificate": applied.certificate.id, **plain}).decode()


def report_as_json(report: "Report", written: Sequence[Path]) -> str:
    """Return the report as one JSON object: certificates with their checks, rounds, and the files written."""
    standings = [
        {**_plain(one.certificate), "state": one.state, "checks": one.checks._asdict()} for one in report.standings
    ]
    whole = {"certificates": standings, "rounds": report.rounds, "drawn": [str(path) for path in written]}
    return msgspec.json.encode(whole).decode()


def _plain(certificate: Certificate) -> dict[str, Any]:
    return {**certificate._asdict(), "details": details_of(certificate), "fewest": _fewest(certificate)}


def _fewest(certificate: Certificate) -> int | None:
    """Return how many accepted images without an error pass."""
    if certificate.rule != GUARANTEE:
        return None
    return fewest(epsilon=certificate.epsilon, delta=details_of(certificate).delta)
