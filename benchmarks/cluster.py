"""A Ray cluster on loopback whose machines come and go; apart from the benchmarks, because the tests use it as well.

Each machine is a raylet in a process of its own, with its own CPUs, GPUs and resources, as `ray start` would start it.
Reads commands from stdin, one a line as JSON, and answers each with a line:
{"add": {"num_cpus": 2}} gives the machine's number, {"remove": 1} ends one at once, as a machine that is switched off does.
Ends with its stdin.
"""

import argparse
import json
import os
import sys


def main() -> None:
    """Start a head without anything to run on, then do as told."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num-cpus", type=float, default=0, help="CPUs of the head (0)")
    given = parser.parse_args()
    # Read as Ray is imported: on loopback alone it takes itself for a cluster of one machine.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    stdout, sys.stdout = sys.stdout, sys.stderr

    def say(content: object) -> None:
        print(json.dumps(content), file=stdout, flush=True)

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": given.num_cpus, "include_dashboard": False},
    )
    machines = []
    try:
        say({"address": cluster.address})
        for line in sys.stdin:
            command = json.loads(line)
            if "add" in command:
                machines.append(cluster.add_node(include_dashboard=False, **command["add"]))
                say({"machine": len(machines) - 1})
            else:
                cluster.remove_node(machines[command["remove"]], allow_graceful=False)
                say({"removed": command["remove"]})
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
