"""Names of units."""

from typing import Dict, Optional

from zoo_handler.metrics import UNITS


class Units:
    """Short forms of units and what they are called in metrics."""

    def __init__(self) -> None:
        self.units: Dict[Optional[str], str] = dict(UNITS)
