"""Evaluation of bundles: metrics, baselines, reports and advice."""
