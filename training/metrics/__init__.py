"""Metrics: functions of arrays, independent of the other packages of `training`."""
