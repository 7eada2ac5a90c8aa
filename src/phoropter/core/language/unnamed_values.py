"""The sentence for a value that was given without its name, where values are given by name."""

from __future__ import annotations

from collections.abc import Sequence


def describe_unnamed(kind: str, values: Sequence[object], names: Sequence[str], way_out: str = "") -> str:
    """What to write in place of a call of `kind` with `values` given by place, of which there is one at least.

    names: of values that such a call takes, for an example · way_out: what else was meant, in the place of the example
    """
    value = repr(values[0])
    shown = value if len(value) <= 60 else f"a {type(values[0]).__name__}"
    example = ", ".join(f"{name}=…" for name in names)
    known = f"; {way_out}" if way_out else f", as in {kind}({example})"
    return f"{kind}: {shown} was given without a name, and values are given by name{known}"
