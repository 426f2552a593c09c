import subprocess
import sys
from types import ModuleType

import workflows


def test_all_lists_the_public_names() -> None:
    public = [
        name
        for name, value in vars(workflows).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert sorted(workflows.__all__) == sorted(public)
    assert len(set(workflows.__all__)) == len(workflows.__all__)


def test_importing_workflows_imports_neither_the_tuner_nor_an_engine() -> None:
    heavy = {"tuner", "litellm", "openai", "httpx", "bm25s", "simpleeval", "optuna"}
    code = f"import sys, workflows; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
