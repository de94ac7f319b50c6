"""From a framework's graph to the ONNX file that is served, and an int8 copy of it."""
