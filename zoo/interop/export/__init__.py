"""Export to safetensors, torch.export and ONNX."""
