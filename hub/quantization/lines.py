"""What `hub quantize` prints: a table of what was tried, and why each is or is not released."""

from hub.lines import counted, points, wrapped
from hub.quantization.report import Judged, Quantization, Tried

_HEAD = f"    {'size':<8}{'boxes':>6}  {'AP50':>8}{'lost':>10}{'recall':>8}{'lost':>10}{'ms':>9}{'of f32':>9}"


def quantization_lines(report: Quantization) -> list[str]:
    """Return the lines of one run."""
    lines = [f"{report.release} at {report.input}, working threshold {report.score_threshold:g}"]
    lines += wrapped(f"machine: {report.cpu}; {counted(report.threads, 'thread')}")
    calibrated = counted(report.calibrated, "picture")
    lines += wrapped(
        f"calibrated on {calibrated} of dataset {report.dataset[:12]}; budget: {points(report.budget)} of AP50 and of"
        " recall; in brackets: too few boxes to judge"
    )
    lines += ["", _HEAD]
    for tried in report.tried:
        lines += _tried(tried)
    lines.append("")
    names = ", ".join(one.name for one in report.released)
    lines += wrapped(
        f"released: {names}; `edge tune` measures them on the device"
        if names
        else "nothing is worth releasing here: float32 stays the only way to run it"
    )
    return lines


def _tried(tried: Tried) -> list[str]:
    mark = "released" if tried.released else "not released"
    how = ", fine-tuned" if tried.aware else ""
    lines = ["", f"{tried.name} on {tried.runtime}{how}: {mark}"]
    looks = [one for one in (tried.chosen, tried.verdict) if one is not None]
    for at, look in enumerate(looks if tried.chosen != tried.verdict else looks[:1]):
        lines += _look(look, tried, timed=at == 0)
    if tried.layers:
        lines.append(f"  {tried.layers - len(tried.float_layers)} of {tried.layers} layers in 8 bits")
    return [*lines, *(f"  {line}" for line in wrapped(tried.why, width=76))]


def _look(look: Judged, tried: Tried, *, timed: bool) -> list[str]:
    """Return a line for all, and one for each size; what is not judged stands in brackets."""
    truth = "" if look.truth == "labels" else " (float32's boxes)"
    lines = [f"  {look.of}{truth}, {counted(look.images, 'image')}"]
    for group in dict.fromkeys(one.group for one in look.losses):
        parts = []
        for measure in ("ap50", "recall"):
            loss = look.find(group, measure)
            lost = "-" if loss is None else f"{loss.points:+.1f}" if loss.judged else f"({loss.points:+.1f})"
            parts.append(f"{'-' if loss is None else f'{loss.after * 100:.1f}':>8}{lost:>10}")
        objects = next(one.objects for one in look.losses if one.group == group)
        time = f"{tried.ms:>9.1f}{tried.ratio:>9.2f}" if timed and group == "all" else ""
        lines.append(f"    {group:<8}{objects:>6}  {''.join(parts)}{time}")
    return lines
