"""The catalogue of faults: complete, each test in it exists, and the runner calls bad what is bad."""

from __future__ import annotations

import ast

import pytest

from tests.faults.catalogue import FAULTS
from tests.faults.run import Outcome, table, verdict
from tests.support.tools import ROOT


def test_every_fault_is_there() -> None:
    assert [fault.number for fault in FAULTS] == list(range(1, 29))
    assert all(fault.tests for fault in FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.number))
def test_its_tests_exist(fault: object) -> None:
    from tests.faults.catalogue import Fault

    assert isinstance(fault, Fault)
    for test in fault.tests:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in names, test


def test_what_fails_and_what_never_ran_is_bad() -> None:
    fault = FAULTS[0]
    first, second = fault.tests[:2]
    assert verdict(fault, {})[2] is False
    assert verdict(fault, {first: Outcome(skipped=["no tool"])}) == (0, "NOT TRIED: no tool", False)
    assert verdict(fault, {first: Outcome(passed=1, cases=7), second: Outcome(failed=1)})[2] is False
    cases, held, fine = verdict(fault, {test: Outcome(passed=2, cases=7) for test in fault.tests})
    assert (cases, held, fine) == (7 * len(fault.tests), "yes", True)
    assert "did not run" in verdict(fault, {first: Outcome(passed=1, cases=7)})[1]
    assert table(FAULTS, {})[1] is False
