"""busd_client: what the package names is there, and costs only who asks for it."""

from __future__ import annotations

import subprocess
import sys
from operator import attrgetter

import busd_client
import pytest
from busd_client import channel_core, deliveries, events


@pytest.mark.parametrize("name", [name for name in busd_client.__all__ if name != "channel"])
def test_a_name_is_that_of_its_module(name: str) -> None:
    homes = [module for module in (channel_core, deliveries, events) if hasattr(module, name)]
    assert getattr(busd_client, name) in [getattr(module, name) for module in homes]


def test_no_other_name() -> None:
    with pytest.raises(AttributeError, match="module 'busd_client' has no attribute 'Batches'"):
        attrgetter("Batches")(busd_client)


def test_names_are_listed_before_they_are_asked_for() -> None:
    asked = "import busd_client; print({*busd_client.__all__, '__name__'} <= {*dir(busd_client)})"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "True"


def test_an_address_needs_no_client() -> None:
    asked = "import sys, busd_client.address; print(sorted(m for m in sys.modules if m.startswith('busd_client')))"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "['busd_client', 'busd_client.address']"
