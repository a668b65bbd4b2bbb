"""Admission, queues, batches and deadlines, independent of HTTP and ONNX Runtime."""
