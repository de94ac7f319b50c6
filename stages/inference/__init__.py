"""Answers of exported models: ONNX files run on the CPU, without the frameworks that trained them."""
