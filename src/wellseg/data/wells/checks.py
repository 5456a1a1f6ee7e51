"""Checks restored wells for repeated content, frozen rows, unknown null codes, and leaks.

A block is the part of a well that one patch covers, or 36 rows where the well was not cut into patches.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from wellseg.data.wells.well import Well
from wellseg.problems import SHOWN, Problem, count, list_names
from wellseg.types import IGNORE

BLOCK_ROWS = 36
FROZEN_ROWS = 12
"""Number of identical consecutive rows that cause a warning; real wells repeat a row once or twice by rounding."""

CODE_FACTOR = 300.0
"""A repeated value above this multiple of the median magnitude counts as a null code; the deepest real pit has 100."""


def check_wells(wells: Sequence[Well]) -> list[Problem]:
    """Returns warnings about `wells`; none of them prevents training."""
    problems = []
    for well in wells:
        problems += [p for p in (_no_data(well), _frozen(well), _codes(well), _unlabelled(well)) if p]
    return problems + _duplicates(wells)


def find_leaks(train: Sequence[Well], held_out: Sequence[Well]) -> list[Problem]:
    """Finds leaks between two splits: wells of one pipe that share depths, patches of equal content."""
    problems, copies = [], []
    for a in train:
        for b in held_out:
            if a.group == b.group and a.depth[0] <= b.depth[-1] and b.depth[0] <= a.depth[-1]:
                first, second = _first_shared(a, b)
                problems.append(_leak(f"{first} and {_short(first, second)} share rows", [(a.name, b.name)]))
    ours: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for well in train:
        for name, digest in _digests(well):
            ours[digest].append((well.group, name))
    for well in held_out:
        for name, digest in _digests(well):
            # Copies within one pipe are already reported as shared rows.
            copies += [(n, name) for group, n in ours.get(digest, ()) if group != well.group]
    if copies:
        problems.append(_leak(f"{copies[0][0]} and {_short(*copies[0])} have the same content", copies))
    return problems


def folder_leaks(
    name: str, names: Mapping[int, str], parts: Mapping[int, str], *, paired: bool, severity: str = "error"
) -> list[Problem]:
    """Returns the leak of a well whose patches lie in several folders of the data set's own split.

    names and parts (folders) by patch index. Paired wells leak interleaved pairs, which share rows; single wells leak
    neighbouring patches of one groove.
    """
    if len(set(parts.values())) < 2:
        return []
    apart = [(k, k + 1) for k in sorted(parts) if k + 1 in parts and parts[k] != parts[k + 1]]
    shared = [(a, b) for a, b in apart if paired and a % 2 == 0]
    pairs = [(names[a], names[b]) for a, b in shared or apart]
    if shared:
        what = f"{pairs[0][0]} and {_short(*pairs[0])} share rows"
        what += f", as do {len(pairs) - 1:,} more pairs of {name}" if len(pairs) > 1 else ""
    else:
        what = f"patches of {name} lie in {' and in '.join(sorted(set(parts.values())))}"
    return [_leak(what, pairs, severity)]


def _leak(what: str, pairs: Sequence[tuple[str, str]], severity: str = "error") -> Problem:
    return Problem(
        severity,
        f"leak: {what}",
        where=list_names([f"{a} | {_short(a, b)}" for a, b in pairs]),
        why="training data would be scored as if the model had not seen them",
        fix="data.split=wells assigns each well to one split",
        fault=12,
    )


def _first_shared(a: Well, b: Well) -> tuple[str, str]:
    """Returns the patch names of two wells at their first shared depth; wells without patches by name."""
    depth = max(a.depth[0], b.depth[0])
    names = []
    for well in (a, b):
        row = int(np.searchsorted(well.depth, depth))
        found = (
            ""
            if well.patch_names is None
            else _block_names(well)[min(row // _block_rows(well), len(well.patch_names) - 1)]
        )
        names.append(found or well.name)
    return names[0], names[1]


def _block_rows(well: Well) -> int:
    return BLOCK_ROWS if well.patch_names is None else max(well.num_rows // len(well.patch_names), 1)


def _block_names(well: Well) -> list[str]:
    names = () if well.patch_names is None else well.patch_names
    return [next((str(n) for n in row if n), "") for row in names]


def _short(first: str, second: str) -> str:
    """Shortens the second name to its number, such as `_11`, where both have the same stem."""
    stem, _, number = second.rpartition("_")
    return f"_{number}" if stem and stem == first.rpartition("_")[0] else second


def _digests(well: Well) -> Iterator[tuple[str, bytes]]:
    """Yields name and content hash of every block with texture: constant blocks are equal by chance."""
    views = 1 if well.patch_names is None else well.patch_names.shape[1]
    rows = _block_rows(well)
    for side in range(views):
        values = np.ascontiguousarray(well.values[:, side::views])
        for block, top in enumerate(range(0, len(values) - rows + 1, rows)):
            content = values[top : top + rows]
            bits = content.view(np.uint32)
            if (bits == bits[0, 0]).all() or np.isnan(content).mean() > 0.5:
                continue
            if well.patch_names is None:
                name = f"{well.name} rows {top}-{top + rows - 1}"
            else:
                name = str(well.patch_names[block, side]) or well.name
            yield name, blake2b(content.tobytes(), digest_size=16).digest()


def _duplicates(wells: Sequence[Well]) -> list[Problem]:
    seen: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for well in wells:
        for name, digest in _digests(well):
            # Test wells are numbered from 1 again, so that only well and name identify a patch.
            seen[digest].append((well.group, name))
    same = [copies for copies in seen.values() if len(copies) > 1]
    if not same:
        return []
    texts = [" = ".join(name if name.startswith(group) else f"{group}: {name}" for group, name in c[:3]) for c in same]
    return [
        Problem(
            "warning",
            f"{count(same, 'patch')} found under more than one name",
            where=list_names(texts),
            why="copies in two wells leak when they are in different splits; copies within a well count twice",
            fix="remove the copies",
            fault=12,
        )
    ]


def _no_data(well: Well) -> Problem | None:
    if well.valid.any():
        return None
    return Problem("warning", f"{well.name} holds no data at all", where=f"{well.num_rows:,} rows", fault=9)


def _frozen(well: Well) -> Problem | None:
    """Returns a warning about runs of bit-identical rows."""
    same = (well.values[1:] == well.values[:-1]) | (~well.valid[1:] & ~well.valid[:-1])
    repeats = same.all(axis=1) & well.valid[1:].any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], repeats.astype(np.int8), [0]])))
    runs = [(a, b) for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True) if b - a >= FROZEN_ROWS]
    if not runs:
        return None
    return Problem(
        "warning",
        f"{well.name}: one row repeats in {count(runs, 'stretch')}",
        where="rows " + list_names([f"{a}-{b}" for a, b in runs]),
        why="the tool did not move there; these rows are used unchanged",
        fault=9,
    )


def _codes(well: Well) -> Problem | None:
    values = well.values[well.valid]
    if not values.size:
        return None
    typical = float(np.median(np.abs(values[:: max(values.size // 100_000, 1)])))
    if typical == 0:
        return None
    far = values[np.abs(values) > CODE_FACTOR * typical]
    codes, counts = np.unique(far, return_counts=True)
    repeated = [(f"{v:g}", int(n)) for v, n in zip(codes, counts, strict=True) if n >= SHOWN]
    if not repeated:
        return None
    return Problem(
        "warning",
        f"{well.name}: unknown no-data codes? {', '.join(v for v, _ in repeated[:SHOWN])}",
        where=", ".join(f"{v} in {n:,} pixels" for v, n in repeated[:SHOWN]),
        why="the network would treat these values as measurements",
        fix="replace them by NaN",
        fault=8,
    )


def _unlabelled(well: Well) -> Problem | None:
    if well.target is None or not well.valid.any() or (well.target != IGNORE).any():
        return None
    return Problem("warning", f"{well.name} has no label on any valid pixel", where=f"{well.num_rows:,} rows")
