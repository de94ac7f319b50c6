"""ONNX graphs as files: in one canonical form, checked, in standard operators only."""

from pathlib import Path

import onnx

from stages.common.errors import UserError

INPUT, OUTPUT = "images", "logits"
PRODUCER = "image-classifiers"
IR_VERSION = 9  # of the file format: the one that came with opset 19, which the runtimes of 2024 read


def write(graph: onnx.ModelProto, file: Path) -> None:
    """Write what Classifier.onnx_graph gave: the same network, the same bytes, in any process.

    UserError where the graph is no valid ONNX, or holds operators that are not ONNX's own: only its opset is named.
    """
    canonical = _canonical(graph)
    try:
        onnx.checker.check_model(canonical, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the exported graph is not valid ONNX ({reason})") from error
    file.write_bytes(canonical.SerializeToString(deterministic=True))


def _canonical(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph under names that say its order only, without what exporters note of themselves and of the code.

    Exporters number their names through the whole process and keep stack traces with paths of this machine.
    """
    source = graph.graph
    names = {"": "", source.input[0].name: INPUT, source.output[0].name: OUTPUT}
    stored = {tensor.name: tensor for tensor in source.initializer}
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    for number, node in enumerate(source.node):
        for name in node.input:
            if name not in names:  # in the order of a valid graph only initializers are new
                names[name] = f"w{len(initializers)}"
                tensor = stored[name]
                tensor.name, tensor.doc_string = names[name], ""
                del tensor.metadata_props[:]
                initializers.append(tensor)
        for place, name in enumerate(node.output):
            names.setdefault(name, f"v{number}_{place}")
        attributes: list[onnx.AttributeProto] = sorted(node.attribute, key=lambda attribute: attribute.name)
        copy = onnx.NodeProto(
            op_type=node.op_type,
            domain="" if node.domain == "ai.onnx" else node.domain,
            name=f"n{number}_{node.op_type}",
            input=[names[name] for name in node.input],
            output=[names[name] for name in node.output],
            attribute=attributes,
        )
        for attribute in copy.attribute:
            attribute.ClearField("doc_string")
            if attribute.type == onnx.AttributeProto.TENSOR:
                attribute.t.ClearField("name")
                attribute.t.ClearField("doc_string")
        nodes.append(copy)
    ends = []
    for end, name in ((source.input[0], INPUT), (source.output[0], OUTPUT)):
        kind = end.type.tensor_type
        shape = ["N", *(dimension.dim_value for dimension in kind.shape.dim[1:])]
        ends.append(onnx.helper.make_tensor_value_info(name, kind.elem_type, shape))
    rebuilt = onnx.helper.make_graph(nodes, "classifier", ends[:1], ends[1:], initializers)
    opsets = [opset for opset in graph.opset_import if opset.domain in ("", "ai.onnx")]
    return onnx.helper.make_model(
        rebuilt,
        opset_imports=[onnx.helper.make_opsetid("", opsets[0].version)],
        ir_version=IR_VERSION,
        producer_name=PRODUCER,
    )
