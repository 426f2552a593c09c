"""Packs that the tests of the workflows share."""

import pytest

from workflows import AgentPack
from workflows import Demonstration
from workflows import Document
from workflows import Step


@pytest.fixture
def pack() -> AgentPack:
    """Two demonstrations, three pages and every toolkit."""
    return AgentPack(
        instruction="Answer about the villages.",
        toolkits=("browser", "calculator"),
        demonstrations=(
            Demonstration(
                question="Where does the smith live?",
                answer="Oak",
                reasoning="The smith is Anna, and Anna lives in Oak.",
                steps=(
                    Step(
                        thought="I look for the smith.",
                        tool="search",
                        argument="smith",
                        observation="Anna is the smith.",
                    ),
                    Step(thought="I know.", tool="finish", argument="Oak"),
                ),
            ),
            Demonstration(
                question="Who bakes bread in Elm?",
                answer="Bert",
                reasoning="Bert is the baker of Elm.",
                steps=(Step(thought="Bert does.", tool="finish", argument="Bert"),),
            ),
        ),
        documents=(
            Document(
                title="Anna",
                sentences=(
                    "Anna is a smith.",
                    "She lives in Oak.",
                    "Her anvil is old.",
                    "She has a dog.",
                    "The dog sleeps.",
                    "Oak has a well.",
                    "A dog guards Oak.",
                ),
            ),
            Document(title="Bert", sentences=("Bert is a baker.", "He lives in Elm.")),
            Document(title="Old Bert", sentences=("Old Bert owns no dog.",)),
        ),
    )
