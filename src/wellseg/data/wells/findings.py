"""Reports findings of restored wells: layout, gaps, stuck blocks, pixels without data."""

from collections.abc import Sequence

from wellseg.data.wells.restore import Restored
from wellseg.problems import Problem, count, list_names, number_ranges


def restoration_problems(restored: Sequence[Restored]) -> list[Problem]:
    """Returns notes and warnings for wells restored by `restore_well`, in a readable order."""
    problems = _layout(restored)
    for well in restored:
        problems += [p for p in (_ambiguous(well), _missing(well), _stuck(well), _empty(well), _nulls(well)) if p]
    return problems


def _layout(restored: Sequence[Restored]) -> list[Problem]:
    looked_at = [r for r in restored if r.evidence is not None]
    if not looked_at:
        return []
    paired = [r.name for r in looked_at if r.paired]
    single = [r.name for r in looked_at if not r.paired]
    lines = [f"{r.name}: {'paired' if r.paired else 'single'} ({r.evidence})" for r in looked_at]
    what = "paired wells (patches 2m and 2m + 1 are the even and odd azimuths of the same rows): "
    what += ", ".join(paired) or "none"
    return [
        Problem(
            "note",
            f"{what}; single wells: {', '.join(single) or 'none'}",
            where="\n".join(lines),
            why="pairing: correlation of 2m with 2m + 1 less that with the next pair, about 0.9 in pairs and 0 otherwise; "
            "continuity: above 0 where the rows below 2m start in 2m + 2; jump: about 0 where 2m + 1 continues below",
            fix="if this is wrong: data.azimuth_layout=single",
            fault=11,
        )
    ]


def _ambiguous(r: Restored) -> Problem | None:
    if r.evidence is None or not r.evidence.ambiguous:
        return None
    return Problem(
        "warning",
        f"{r.name} may be paired or single; treated as {'paired' if r.paired else 'single'}",
        where=str(r.evidence),
        why="the criteria contradict each other, as they can for few patches",
        fix="set data.azimuth_layout=single or data.azimuth_layout=interleaved",
        fault=11,
    )


def _missing(r: Restored) -> Problem | None:
    if not r.missing:
        return None
    half = " (one of a pair: its columns)" if r.paired else ""
    return Problem(
        "warning",
        f"{count(r.missing, 'patch')} of {r.name} missing{half}; the rows there hold no data",
        where=f"{r.name}_patch_{number_ranges(r.missing)}",
        why="depth is right on both sides of the gap",
        fault=10,
    )


def _stuck(r: Restored) -> Problem | None:
    if not r.stuck:
        return None
    return Problem(
        "warning",
        f"{r.name} is stuck: {count(r.stuck, 'patch')} repeating an earlier one bit by bit, taken as no data",
        where=f"{r.name}_patch_{number_ranges(r.stuck)}",
        why="the log was stuck there; the first occurrence is kept",
        fault=9,
    )


def _empty(r: Restored) -> Problem | None:
    if not r.empty:
        return None
    return Problem(
        "warning",
        f"{count(r.empty, 'patch')} of {r.name} without any data: left out of training, no data in predictions",
        where=f"{r.name}_patch_{number_ranges(r.empty)}",
        fault=9,
    )


def _nulls(r: Restored) -> Problem | None:
    if not r.nulls:
        return None
    codes = ", ".join(f"{code}: {n:,}" for code, n in r.wells[0].null_counts.items())
    files = [f"{r.names[k]}: {n:,}" for k, n in r.nulls.items()]
    return Problem(
        "note",
        f"{r.name}: {sum(r.nulls.values()):,} pixels without data in {count(r.nulls, 'patch')} ({codes})",
        where=list_names(files),
        fault=8,
    )
