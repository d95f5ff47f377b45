"""Training of the deployed ONNX file, on a CPU, without the code that it was first trained with."""
