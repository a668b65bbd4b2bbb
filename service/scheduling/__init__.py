"""Admission, queues, batches and deadlines; knows neither HTTP nor ONNX Runtime."""
