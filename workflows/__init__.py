"""Agents that answer one question under one config; what `tuner` exports runs on this package alone.

agent = workflows.load("best.yaml")
outcome = await agent.run("Who lives next to the miller of Eastham?")
"""

from workflows.agent import Agent
from workflows.agent import build
from workflows.agent import load
from workflows.agent_pack import AgentPack
from workflows.agent_pack import Demonstration
from workflows.agent_pack import Document
from workflows.agent_pack import Product
from workflows.agent_pack import Step
from workflows.base import Checkpoint
from workflows.base import Outcome
from workflows.base import Params
from workflows.base import PromptParams
from workflows.base import Workflow
from workflows.config import AgentConfig
from workflows.config import ModelSettings
from workflows.errors import ConfigError
from workflows.errors import ModelError
from workflows.errors import ModelTimeout
from workflows.errors import ToolError
from workflows.errors import WorkflowsError
from workflows.llm import LLM
from workflows.llm import ChatClient
from workflows.llm import Request
from workflows.llm import ScriptedLLM
from workflows.session import Session
from workflows.table import WORKFLOWS
from workflows.trace import Span
from workflows.trace import Trace

__all__ = [
    "LLM",
    "WORKFLOWS",
    "Agent",
    "AgentConfig",
    "AgentPack",
    "ChatClient",
    "Checkpoint",
    "ConfigError",
    "Demonstration",
    "Document",
    "ModelError",
    "ModelSettings",
    "ModelTimeout",
    "Outcome",
    "Params",
    "Product",
    "PromptParams",
    "Request",
    "ScriptedLLM",
    "Session",
    "Span",
    "Step",
    "ToolError",
    "Trace",
    "Workflow",
    "WorkflowsError",
    "build",
    "load",
]
