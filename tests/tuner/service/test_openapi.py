"""The service does what its OpenAPI document says: schemathesis asks it what that allows, and what it does not."""

from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

EXAMPLES = 10
"""Of each operation, of what is allowed and of what is not."""

BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
def test_every_answer_is_one_that_the_document_has(team):
    schema = schemathesis.openapi.from_url(f"{team.up.address}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 14
    asked = {}
    for operation in operations:
        asked[operation.label] = _try(operation, team.tokens["anna"])
    assert asked["GET /studies"] >= {200}
    assert asked["GET /studies/{name}/front"] >= {200, 404, 422}
    assert asked["POST /studies/{name}/export"] >= {200, 404, 422}
    assert asked["POST /studies"] <= {400, 401, 422}  # no invented bundle has a study in it
    assert not any("Traceback" in line for line in team.up.said)


def _try(operation, token):
    """What the document allows, about any study and about one that there is, and what it does not; the statuses that came."""
    seen = set()
    # Of events only those so far: a study of which none come would be followed for ever.
    params = {"follow": "false"} if operation.path.endswith("events") else None

    # That a bundle has a study in it, and a rule a meaning, no schema tells.
    unfit = [positive_data_acceptance] if operation.body else []

    def ask(case):
        headers = {"Authorization": f"Bearer {token}"}
        answer = case.call_and_validate(headers=headers, params=params, excluded_checks=unfit)
        seen.add(answer.status_code)

    @BOUNDED
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def check_allowed(case):
        ask(case)
        # Of a study that is there all but verifications, each of which would be measured.
        if "name" in case.path_parameters and "verifications" not in operation.path:
            case.path_parameters["name"] = "first"
            ask(case)

    @BOUNDED
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def check_not_allowed(case):
        ask(case)

    check_allowed()
    with suppress(Unsatisfiable):  # nothing about it could be wrong
        check_not_allowed()
    return seen
