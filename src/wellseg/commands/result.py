"""What commands return: plain values that pickle, compare and print as short text."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, repr=False)
class CommandResult:
    """The base of all results.

    Attributes:
        objective: The number that a sweep maximises, or None where the command has none.
    """

    objective: float | None = None

    def __repr__(self) -> str:
        """Returns a few lines of text: what was written where, and the scores."""
        return "\n".join([type(self).__name__, *self._lines()])

    def _lines(self) -> list[str]:
        """Returns the lines of the text after the first."""
        return []
