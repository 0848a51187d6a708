"""What holds for all shadows of a deployment: how long they may take, and how far answers may lie apart.

Which version is whose shadow, and how much of it at once, is in the routes.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Shadowing(BaseModel):
    """Section `shadows` of the deployment file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    least_time_s: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """After the primary's answer a shadow has this long, or the next, whichever is more. Shadows run when nothing else
    is to do: a shorter time would leave out just the answers of busy moments.
    """
    time_factor: Annotated[float, Field(ge=0, le=1000)] = 2.0
    """So many times what the primary took from arrival to answer."""
    absolute_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6
    """Two numbers a, b agree when |a - b| <= absolute_tolerance + relative_tolerance * max(|a|, |b|). Integers,
    booleans and texts agree only when they are equal.
    """
    relative_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-3
    """Of the larger one: what float32 arithmetic in another order of operations does not reach, and a person would not
    see. The largest entry of a row has to be the same all the same.
    """
