"""Metrics: functions of arrays that import nothing of ours."""
