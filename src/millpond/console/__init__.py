"""The console: pages in the browser. It shows what `platform` tells, and decides nothing."""

from pathlib import Path

#: Style sheet, scripts and icon, served under `/static`.
STATIC = Path(__file__).parent / "static"
