"""How much the property tests try: enough for every change, far more with scripts/test --long."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadline and no judgement of slowness: a busy machine is no defect.
settings.register_profile(
    "quick", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("quick"), max_examples=1000)
settings.load_profile("quick")
