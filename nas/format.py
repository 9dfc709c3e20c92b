"""Numbers as people read them: SI prefixes only here, base units everywhere else."""

from __future__ import annotations

_Scales = tuple[tuple[float, str], ...]
_SMALL: _Scales = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_DECIMAL: _Scales = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def duration(seconds: float) -> str:
    """0.00123 → `1.23 ms`."""
    return small(seconds, "s")


def small(number: float, unit: str) -> str:
    """0.00123 J → `1.23 mJ`: for units of which there is hardly ever a thousand."""
    scale, prefix = _scale(number, _SMALL)
    return f"{_digits(number / scale)} {prefix}{unit}"


def amount(number: float, unit: str = "") -> str:
    """12_345_678 → `12.3 M`; with a unit, `12.3 MB`."""
    scale, prefix = _scale(number, _DECIMAL)
    return f"{_digits(number / scale)} {prefix}{unit}".rstrip()


def interval(low_s: float, high_s: float) -> str:
    """A time interval in the unit of its upper end: `1.21–1.27 ms`."""
    scale, prefix = _scale(high_s, _SMALL)
    return f"{_digits(low_s / scale)}–{_digits(high_s / scale)} {prefix}s"


def percent(share: float, digits: int = 1) -> str:
    """0.9731 → `97.3 %`."""
    return f"{100 * share:.{digits}f} %"


def count(number: int) -> str:
    """A large whole number: exact up to a million, then in powers of ten."""
    if number < 10**6:
        return f"{number:,}"
    exponent = len(str(number)) - 1
    if number / 10**exponent >= 9.95:  # would print as 10.0
        exponent += 1
    return f"{number / 10**exponent:.1f}·10^{exponent}"


def _scale(value: float, scales: _Scales) -> tuple[float, str]:
    """The largest scale that `value`, rounded as it is printed, reaches; the base unit for 0."""
    shown = abs(float(f"{value:.3g}"))
    if not shown:
        return next(entry for entry in scales if entry[0] == 1)
    return next((entry for entry in scales if shown >= entry[0]), scales[-1])


def _digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
