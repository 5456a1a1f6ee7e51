"""Counts what the type checker does not see: `# type: ignore` comments, and `Any` in annotations of the package.

    python scripts/type_debt.py             prints the counts; exits 1 where one is above its recorded ceiling
    python scripts/type_debt.py --lower     records the present counts where they are lower

The ceilings are in scripts/type_debt.json and only go down.
"""

import argparse
import ast
import io
import json
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CEILINGS = Path(__file__).with_suffix(".json")


def ignores(source: str) -> int:
    """Returns how many comments of a file silence the type checker."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return sum(t.type == tokenize.COMMENT and "type: ignore" in t.string for t in tokens)


def annotations(tree: ast.AST) -> Iterator[ast.expr]:
    """Yields every annotation of a file: of arguments, results and variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.returns


def anys(source: str) -> int:
    """Returns how often the annotations of a file say Any, in quotes or not."""
    found = 0
    for annotation in annotations(ast.parse(source)):
        for node in ast.walk(annotation):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
            names = ast.walk(ast.parse(text, mode="eval")) if text else [node]
            found += sum(isinstance(n, ast.Name) and n.id == "Any" for n in names)
    return found


def count(folder: Path) -> dict[str, int]:
    """Returns both counts over all Python files of a folder."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))]
    return {"type_ignore": sum(map(ignores, sources)), "any": sum(map(anys, sources))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 where a count is above its ceiling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lower", action="store_true", help="record lower counts")
    options = parser.parse_args(arguments)
    found, ceilings = count(ROOT / "src" / "wellseg"), json.loads(CEILINGS.read_text(encoding="utf-8"))
    print(f"type debt: {found['type_ignore']} type: ignore (at most {ceilings['type_ignore']}), ", end="")
    print(f"{found['any']} Any in annotations (at most {ceilings['any']})")
    if options.lower:
        lowered = {key: min(found[key], ceilings[key]) for key in found}
        CEILINGS.write_text(json.dumps(lowered, indent=2) + "\n", encoding="utf-8")
    above = [key for key in found if found[key] > ceilings[key]]
    if above:
        print(f"error: {' and '.join(above)} rose; give these annotations a type", file=sys.stderr)
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
