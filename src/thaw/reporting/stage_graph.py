"""The stages of a network as TensorBoard's graph. Nothing is traced, so it works for every network."""

from collections.abc import Mapping, Sequence
from typing import Any


def stage_graph(stages: Mapping[str, Sequence[str]]) -> Any:
    """TensorBoard's `GraphDef`: the input, then a box for each stage that opens to its modules, in order.

    Args:
        stages: by stage, input to output, a line for each of its modules: `layer1.0.conv1: Conv2d(64, 64, ...)`.
    """
    from tensorboard.compat.proto.attr_value_pb2 import AttrValue
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.node_def_pb2 import NodeDef
    from tensorboard.compat.proto.versions_pb2 import VersionDef

    previous = "input"
    nodes = [NodeDef(name=previous, op="Placeholder")]
    for stage, modules in stages.items():
        for module in modules or [stage]:
            path, _, described = module.partition(": ")
            name = "/".join([stage, *path.split(".")]) if path != stage else f"{stage}/{stage}"
            shown = {"module": AttrValue(s=described.encode())} if described else {}
            nodes.append(NodeDef(name=name, op=described.partition("(")[0] or "stage", input=[previous], attr=shown))
            previous = name
    nodes.append(NodeDef(name="logits", op="Output", input=[previous]))
    return GraphDef(node=nodes, versions=VersionDef(producer=22))
