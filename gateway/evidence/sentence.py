"""Numbers as people read them, for the sentence of a verdict."""

from __future__ import annotations

import math


def number(value: float) -> str:
    """Two significant digits, more for what is already long: 0.0024, 0.95, 2.4, 36, 410. Infinity in words."""
    if math.isinf(value):
        return "any number of" if value > 0 else "minus infinity"
    if value == 0.0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.1e}"
    decimals = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def ratio(value: float) -> str:
    """A relative risk: 2.4, 1.05, 0.97; near 1 a third digit is what matters."""
    if 0.9 <= value < 1.095:
        return f"{value:.2f}"
    return number(value)


def requests(n: int) -> str:
    """A count, exact to 9,999 and to three digits above: 840, 9,120, 41,000, 1,230,000."""
    if n >= 10_000:
        scale = 10 ** (len(str(n)) - 3)
        n = (n + scale // 2) // scale * scale
    return f"{n:,}"


def percent(share: float) -> str:
    """A share of one as per cent: 1 %, 0.05 %, 12 %."""
    if share == 0.0:
        return "0 %"
    value = 100.0 * share
    if value < 0.001:
        return f"{value:.0e} %"
    return f"{float(f'{value:.2g}'):.10g} %"


def risk(log_threshold: float, of: str = "a false alarm") -> str:
    """The guarantee behind a threshold: "risk of a false alarm < 1 %"."""
    return f"risk of {of} < {percent(math.exp(-log_threshold))}"


def span(low: float, high: float, form: object = None) -> str:
    """An interval: "(1.7 to 3.6)", "(1.7 or more)", "(up to 3.6)"."""
    write = form if callable(form) else ratio
    if math.isinf(high) and low <= 0.0:
        return "(nothing known yet)"
    if math.isinf(high):
        return f"({write(low)} or more)"
    return f"({write(low)} to {write(high)})"


def undecided(log_e: float, log_threshold: float) -> str:
    """How far the evidence is: "not decided: evidence 8.2 of the 100 needed"."""
    e = 0.0 if log_e < -6.0 else math.exp(min(log_e, 700.0))
    return f"not decided: evidence {number(round(e, 2))} of the {number(math.exp(log_threshold))} needed"


def quoted(event: str) -> str:
    """An event as the name of itself: "fails" in double quotes."""
    return f'"{event}"'
